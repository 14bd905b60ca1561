r"""What a chat template writes once an answer is there, as text that goes on from the prompt for it.

Of most templates the finished conversation begins with the prompt. Those of thinking models often end their prompt with the
beginning of thoughts, or with empty ones, and write neither with an answer that has none:

    prompt      …<|im_start|>assistant\n<think>\n                               QwQ
    finished    …<|im_start|>assistant\nSo gamma.<|im_end|>\n
    learnt      after that prompt: \n</think>\n\nSo gamma.<|im_end|>

A server sends the prompt, so what is learnt has to go on from it. It is found in this order:

1. As the messages are, if that begins with the prompt and has all words of the answer.
2. With the thoughts in a field of their own (``reasoning_content``), if the template writes them. Where the data has none, a
   mark takes their place and is taken out again: so they are ended as the template ends them.
3. After a prompt that ends with ``<think>``, of a template that knows no such field (QwQ's, DeepSeek-R1's): the thoughts, if
   any, ``</think>``, and the answer as it is finished.
4. What the finished conversation has where the two part. Where it also has what ends the prompt, from there on.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from moe_trainer.hugging_face.encoding import Encoded, TextEncoder
from moe_trainer.hugging_face.words import end_of_words
from moe_trainer.text.content import Role

Said = Sequence[tuple[Role, str]]

#: Thoughts within an answer's words.
_WITHIN = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)
#: Ends a prompt that begins thoughts.
_BEGUN = re.compile(r"<think>\s*$")
#: Takes the place of thoughts that an answer does not have.
_MARK = "MOE-NO-THOUGHTS"
#: Shortest end of a prompt that is looked for in the finished conversation, in characters.
_SHORTEST = 3


class Render(Protocol):
    """Writes a conversation as text; with ``ask``, up to the place where the next answer begins."""

    def __call__(self, said: Said, *, ask: bool) -> str:
        """Return the text."""
        ...


class Finished(NamedTuple):
    """A finished conversation as it is learnt."""

    text: str  #: Begins with the prompt.
    end: int | None  #: The character at which the answer's words end; None if some of them are left out.
    rendered: str  #: What the template writes: what it writes after a further turn goes on from this.
    without_thoughts: bool = False  #: Whether thoughts from a field of their own are left out.


class _Answer(NamedTuple):
    """An answer's thoughts, if it has any, and its words without them."""

    thoughts: str | None
    words: str

    @classmethod
    def of(cls, turn: Said) -> "_Answer":
        """Take one from a turn: its words, with thoughts before them or within."""
        if len(turn) > 1:
            return cls(turn[0][1], turn[1][1])
        words = turn[0][1]
        within = _WITHIN.match(words)
        return cls(within[1].strip(), words[within.end() :]) if within else cls(None, words)

    @property
    def all_words(self) -> str:
        """Return the thoughts and the words."""
        return self.words if self.thoughts is None else f"<think>{self.thoughts}</think>{self.words}"


class FinishedTurns:
    """Finds what goes on from a prompt, for one tokenizer and chat template."""

    def __init__(self, render: Render, encoder: TextEncoder) -> None:
        """Take what writes and encodes text."""
        self._render, self._encoder = render, encoder

    def after(self, asked: Encoded, before: Said, turn: Said) -> Finished | None:
        """Return a conversation that ends with a ``turn``, the answer with thoughts in a field of their own before it if any.

        ``asked`` is the prompt after the turns ``before``. None if the turns before the answer are written differently once
        it is there.
        """
        rendered = self._render([*before, *turn], ask=False)
        answer = _Answer.of(turn)
        begins = rendered.startswith(asked.text)
        if begins and (end := _end(asked.text, rendered, answer.all_words)) is not None:
            return Finished(rendered, end, rendered)
        found = next(
            (
                Finished(text, end, rendered)
                for text in self._going_on(asked, before, answer, rendered, begins=begins)
                if (end := _end(asked.text, text, answer.all_words)) is not None
            ),
            None,
        )
        if found is not None:
            return found
        text = rendered if begins else self._parted(asked, before, answer, rendered)
        if text is None:
            return None
        alone = _end(asked.text, text, answer.words) if len(turn) > 1 else None
        return Finished(text, alone, rendered, without_thoughts=alone is not None)

    def _going_on(
        self, asked: Encoded, before: Said, answer: _Answer, rendered: str, *, begins: bool
    ) -> Iterator[str]:
        """Yield texts that begin with the prompt and have an answer and its thoughts after it, the best first."""
        thoughts = answer.thoughts or _MARK
        form = self._render([*before, ("thoughts", thoughts), ("assistant", answer.words)], ask=False)
        if _end("", form, f"<think>{thoughts}</think>{answer.words}") is not None:
            text = form if form.startswith(asked.text) else self._parted(asked, before, answer, form)
            if text is not None:
                yield asked.text + text[len(asked.text) :].replace(_MARK, "", 1)
        if begins:
            return
        words = answer.words.strip()
        if _BEGUN.search(asked.text) and words in rendered:
            yield f"{asked.text}{answer.thoughts or ''}\n</think>\n\n{words}{rendered.rpartition(words)[2]}"
        if (text := self._parted(asked, before, answer, rendered)) is not None:
            yield text

    def _parted(self, asked: Encoded, before: Said, answer: _Answer, rendered: str) -> str | None:
        """Return a prompt with what follows where a finished conversation parts from it.

        None if turns before the answer would be in it twice.
        """
        finished = self._encoder.encoded(rendered)
        pairs = enumerate(zip(asked.ids, finished.ids, strict=False))
        same = next(
            (at for at, (one, other) in pairs if one != other), min(len(asked.ids), len(finished.ids))
        )
        at = asked.starts[same] if same < len(asked.ids) else len(asked.text)
        words = max(rendered.rfind(answer.words.strip()), 0)
        begins = rendered.rfind((answer.thoughts or _MARK).strip(), 0, words)
        # What both have by chance where the answer begins belongs to the answer.
        at = min(at, begins if begins >= 0 else words or at)
        rest, lead = rendered[at:], max(words - at, 0)
        endings = [asked.text[start:] for start in asked.starts[same:]]
        for ending in (*endings, *map(str.strip, endings)):
            if len(ending) >= _SHORTEST and (found := rest.rfind(ending, 0, lead)) >= 0:
                return asked.text + rest[found + len(ending) :]
        user = next((words.strip() for role, words in reversed(before) if role == "user"), "")
        if user and asked.text.rfind(user) + len(user) > at:
            return None
        return asked.text + rest


def _end(asked: str, text: str, words: str) -> int | None:
    """Return the character at which words end that stand after a prompt in a text; None if some of them do not."""
    end = end_of_words(words, text[len(asked) :])
    return None if end is None else len(asked) + end
