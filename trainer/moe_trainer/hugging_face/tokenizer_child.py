"""The process that tokenizer_process.py starts: reads a tokenizer, and answers questions until its input ends.

    {"seconds": 120, "open": {"tokenizer.json": 12345, …}} and the files' bytes  ->  {}
    {"seconds": 5, "encode": "text"}                                             ->  {"ids": 3} and 3 × 32 bits
    {"seconds": 5, "prompt": [["user", "How far?"]]}                             ->  {"ids": 9} and 9 × 32 bits

An error is answered with ``reason`` and ``message``. Its address space is limited to as many bytes as its argument says,
and so is its processor time per question, in case nobody is left to kill it.
"""

import json
import os
import resource
import sys
from array import array
from typing import Any, BinaryIO

from moe_formats.failure import JobError
from moe_trainer.hugging_face.tokenizer import CheckpointTokenizer
from moe_trainer.hugging_face.tokenizer_process import TemplateRefused, too_much


def main() -> None:
    """Answer questions from standard input on standard output."""
    questions = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    memory = int(sys.argv[1])
    _limit(resource.RLIMIT_AS, memory)
    _limit(resource.RLIMIT_CORE, 0)
    tokenizer: CheckpointTokenizer | None = None
    for line in questions:
        question = json.loads(line)
        used = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + 2 * question["seconds"]) + 1)
        ids = array("I")
        try:
            if "open" in question:
                tokenizer = CheckpointTokenizer(_files(questions, question["open"]))
            elif tokenizer is not None:
                ids = array("I", _ids(tokenizer, question))
            answer: dict[str, Any] = {"ids": len(ids)}
        except JobError as error:
            refused = isinstance(error, TemplateRefused)
            answer = {"reason": error.reason, "message": error.message[:2000], "refused": refused}
        except MemoryError:
            failed = too_much(question, f"it needs more than {memory:,} bytes of memory, which is the limit")
            answer = {"reason": failed.reason, "message": failed.message}
        answers.write(json.dumps(answer).encode() + b"\n" + ids.tobytes())
        answers.flush()


def _files(questions: BinaryIO, sizes: dict[str, int]) -> dict[str, bytes]:
    return {name: questions.read(size) for name, size in sizes.items()}


def _ids(tokenizer: CheckpointTokenizer, question: dict[str, Any]) -> list[int]:
    if "encode" in question:
        return tokenizer.encode(question["encode"])
    return tokenizer.prompt([(role, words) for role, words in question["prompt"]])


def _limit(what: int, most: int) -> None:
    """Lower a limit of this process; one that is lower already stays."""
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


if __name__ == "__main__":
    main()
