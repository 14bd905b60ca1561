"""A tokenizer in a process of its own, whose memory and time are limited.

A tokenizer and its chat template come from outside, and decide by themselves how much work a text is. What cannot be
stopped from within (a regular expression that explodes, a replacement that doubles a text forty times, a crash of the
library) ends here with the process, and becomes an error of the input.

    try_out(files)           before a tokenizer is used in this process: reads it, and gives it samples that grow
    PromptProcesses(files)   for a server: prompts of strangers are turned into tokens there

The process (tokenizer_child.py) is asked by lines of JSON, and answers in JSON and token ids; it is killed if an answer
takes too long.
"""

import json
import os
import signal
import subprocess
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, LifoQueue
from threading import Timer
from typing import Any

from moe_formats.failure import JobError, TransientError
from moe_formats.format import Digest, digest_of
from moe_trainer import limits
from moe_trainer.text.content import Role

CHILD = "moe_trainer.hugging_face.tokenizer_child"

#: Texts that samples are made of by repeating them: words, and what regular expressions of tokenizers look for.
_UNITS = (
    "a",
    "aB ",
    "The order is alpha, then beta.\n",
    "0123456789",
    " ",
    "\n",
    "\t",
    "'",
    "!",
    "é",
    "漢",
    "🙂",
)
#: Samples have about these lengths, in characters.
_LENGTHS = (32, 512, 8192)
#: The end of a sample, after which a regular expression has to go back.
_END = "!x"
#: Most bytes of what the process says besides ids.
_ANSWER_BYTES = 1 << 20
#: Most ids per byte of a sample. A byte that is no token has one id, and some tokenizers add one.
_IDS_PER_BYTE = 4
#: Turns of the conversations that a template is tried on.
_TURNS = (1, 2, 5, 64)

#: Digests of the files that have been tried out in this process.
_tried: set[Digest] = set()


class TemplateRefused(JobError):
    """A chat template refuses a conversation, or fails; another conversation may do."""


def try_out(files: Mapping[str, bytes], patterns: Sequence[str]) -> None:
    """Give a tokenizer's files to a process and try them on samples; those that were tried before pass at once.

    ``patterns`` are texts that the tokenizer looks for. Raises JobError: TokenizerUnsupported if reading or encoding
    takes too much time or memory, crashes, or makes ids out of proportion; ChatTemplateUnsupported for a template that
    exceeds a limit, or writes nothing.
    """
    digest = digest_of(b"\0".join(part for name in sorted(files) for part in (name.encode(), files[name])))
    if digest in _tried:
        return
    process = TokenizerProcess(files)
    try:
        for length in _LENGTHS:
            for unit in [*_UNITS, *patterns]:
                sample = unit * max(1, length // len(unit)) + _END
                ids = process.encode(sample, limits.SAMPLE_SECONDS)
                if len(ids) > _IDS_PER_BYTE * len(sample.encode()) + _IDS_PER_BYTE:
                    raise JobError(
                        "TokenizerUnsupported",
                        f"tokenizer.json makes {len(ids):,} ids of a text of {len(sample.encode()):,} bytes; the "
                        f"limit is {_IDS_PER_BYTE} per byte.",
                    )
        for turns in _TURNS:
            said: list[tuple[Role, str]] = [
                ("assistant" if turn % 2 else "user", f"Zephyr{turn}") for turn in range(turns)
            ]
            with suppress(TemplateRefused):
                process.prompt(said, limits.SAMPLE_SECONDS)
    finally:
        process.close()
    _tried.add(digest)


class TokenizerProcess:
    """One process with one tokenizer. It answers one question at a time."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        """Start the process and let it read a tokenizer's files; raises JobError (TokenizerUnsupported)."""
        inherited = {
            name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "LANG") if name in os.environ
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", CHILD, str(limits.TOKENIZER_MEMORY_BYTES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=inherited
            | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TOKENIZERS_PARALLELISM": "false"},
        )
        self._killed = False
        sizes = {name: len(data) for name, data in files.items()}
        try:
            self._ask({"open": sizes}, b"".join(files.values()), limits.PROBE_SECONDS, "reading it")
        except BaseException:
            self.close()
            raise

    @property
    def alive(self) -> bool:
        """Return whether the process can be asked again."""
        return not self._killed and self._process.poll() is None

    def encode(self, text: str, seconds: float) -> list[int]:
        """Return the ids of a text; raises JobError (TokenizerUnsupported) if that is too much work."""
        return self._ask({"encode": text}, b"", seconds, f"encoding a text of {len(text):,} characters")

    def prompt(self, said: Sequence[tuple[Role, str]], seconds: float) -> list[int]:
        """Return the ids after which the assistant is to write.

        Raises TemplateRefused, or JobError (ChatTemplateUnsupported) if that is too much work.
        """
        characters = sum(len(words) for _, words in said)
        what = f"the prompt of {len(said)} messages with {characters:,} characters"
        return self._ask({"prompt": list(said)}, b"", seconds, what)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # what was never sent does not matter
                assert pipe is not None
                pipe.close()

    def _ask(self, question: Mapping[str, Any], data: bytes, seconds: float, what: str) -> list[int]:
        """Return the ids that answer a question."""
        timer = Timer(seconds, self._kill)
        timer.daemon = True
        timer.start()
        try:
            answer, ids = self._exchange(json.dumps({"seconds": seconds, **question}).encode(), data)
        except (OSError, EOFError, ValueError):
            raise self._ended(question, what, seconds) from None
        finally:
            timer.cancel()
        if "message" in answer:
            kind = TemplateRefused if answer.get("refused") else JobError
            raise kind(str(answer["reason"]), str(answer["message"]))
        return ids

    def _exchange(self, question: bytes, data: bytes) -> tuple[dict[str, Any], list[int]]:
        """Send a question, and return the answer's JSON and ids; raises EOFError if there is none."""
        into, out = self._process.stdin, self._process.stdout
        assert into is not None and out is not None
        into.write(question + b"\n" + data)
        into.flush()
        line = out.readline(_ANSWER_BYTES)
        if not line.endswith(b"\n"):
            raise EOFError
        answer: dict[str, Any] = json.loads(line)
        size = answer.get("ids", 0) * array("I").itemsize
        raw = out.read(size)
        if len(raw) < size:
            raise EOFError
        return answer, array("I", raw).tolist()

    def _kill(self) -> None:
        self._killed = True
        self._process.kill()

    def _ended(self, question: Mapping[str, Any], what: str, seconds: float) -> JobError:
        """Return the error for a process that ended instead of answering within ``seconds``."""
        code = self._process.wait()
        if self._killed or code == -signal.SIGXCPU:
            found = f"took longer than {seconds:g} s, which is the limit"
        elif code in (-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGILL):
            found = (
                f"ended the process by {signal.Signals(-code).name}: it crashes the library, or needs more than "
                f"{limits.TOKENIZER_MEMORY_BYTES:,} bytes of memory, which is the limit"
            )
        else:
            return TransientError(
                "Crashed", f"the process with the tokenizer ended with code {code} during {what}."
            )
        return too_much(question, f"{what} {found}")


def too_much(question: Mapping[str, Any], what: str) -> JobError:
    """Return the error for a tokenizer or a template that needs too much."""
    if "prompt" in question:
        return JobError(
            "ChatTemplateUnsupported",
            f"the base's chat template or tokenizer.json needs too much: {what}. Shorten the messages, or take another "
            "base.",
        )
    return JobError(
        "TokenizerUnsupported",
        f"tokenizer.json needs too much: {what}. Shorten the text, or take another base.",
    )


class PromptProcesses:
    """Turns the prompts of strangers into ids, each in a process that does nothing else meanwhile.

    There are as many processes as were needed at the same time. One that had to be killed is replaced.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        """Start the first process."""
        self._files = dict(files)
        self._idle: LifoQueue[TokenizerProcess] = LifoQueue()
        self._idle.put(TokenizerProcess(files))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; raises JobError (TokenizerUnsupported) after PROMPT_SECONDS."""
        with self._one() as process:
            return process.encode(text, limits.PROMPT_SECONDS)

    def prompt(self, said: Sequence[tuple[Role, str]]) -> list[int]:
        """Return the ids after which the assistant is to write; raises JobError (ChatTemplateUnsupported)."""
        with self._one() as process:
            return process.prompt(said, limits.PROMPT_SECONDS)

    def close(self) -> None:
        """End the processes that are idle."""
        with suppress(Empty):
            while True:
                self._idle.get_nowait().close()

    @contextmanager
    def _one(self) -> Iterator[TokenizerProcess]:
        process = self._living()
        try:
            yield process
        finally:
            if process.alive:
                self._idle.put(process)
            else:
                process.close()

    def _living(self) -> TokenizerProcess:
        """Return a process that is idle, or a new one."""
        with suppress(Empty):
            while True:
                process = self._idle.get_nowait()
                if process.alive:
                    return process
                process.close()
        return TokenizerProcess(self._files)
