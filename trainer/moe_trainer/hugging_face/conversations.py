r"""Conversations as token ids: the rows that training reads, and which of their tokens are learnt.

A row is what the chat template writes of the whole conversation, encoded at once, so its ids are those of transformers'
``apply_chat_template``. What comes before an answer in it are exactly the ids of the prompt with which a server asks for that
answer. The answer is learnt with the token that ends it:

    the template writes a token at which the server ends an answer     it is learnt      … About it. <|im_end|>
    the next turn begins with one                                       it is learnt      … About it. <|user|>
    neither                                                             eos is appended   … About it. <|eos|>

One row cannot hold all answers if a prompt is not the beginning of it: the template writes earlier turns differently once
another answer is asked for (Qwen3 leaves out earlier thoughts), eos had to be appended, a token of the whole conversation
reaches from a prompt into its answer (``\n`` and ``\n\n`` in one), or the finished conversation does not begin with the prompt
(QwQ's ends with ``<think>``; finished_turns.py). Then that answer gets a row of its own after its prompt.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from moe_formats.failure import JobError
from moe_trainer.hugging_face.encoding import Encoded, TextEncoder
from moe_trainer.hugging_face.finished_turns import Finished, FinishedTurns, Render, Said
from moe_trainer.hugging_face.words import stand_in
from moe_trainer.text.tokenizer import Conversation, ConversationPiece

#: Ordinary texts after which the rest of a token that was cut is encoded: one that does not merge with it is taken.
_ANCHORS = ("a", ".", "\n", "0", "a ")


class Bounds(NamedTuple):
    """The tokens that begin and end documents, and those at which a server ends an answer."""

    bos_id: int
    eos_id: int
    end_ids: Set[int]


@dataclass
class _Row:
    """A row in the making: its ids, which spans of them are learnt, and what follows in the template's text."""

    ids: list[int]
    learnt: list[slice] = field(default_factory=list)
    rest: list[int] = field(default_factory=list)

    def begins(self, ids: Sequence[int]) -> bool:
        """Return whether this row is the beginning of some ids."""
        return len(ids) >= len(self.ids) and list(ids[: len(self.ids)]) == self.ids


class _Answer(NamedTuple):
    """The ids of an answer with what ends it, and those that follow in the template's text."""

    ids: Sequence[int]
    rest: Sequence[int] = ()


class ConversationEncoder:
    """Encodes conversations for one tokenizer and chat template."""

    def __init__(
        self, encoder: TextEncoder, render: Render, bounds: Bounds, refused: Callable[[str], JobError]
    ) -> None:
        """Take what writes and encodes text; ``refused`` makes the error for a template that cannot be used."""
        self._encoder, self._render, self._bounds, self._refused = encoder, render, bounds, refused
        self._finished = FinishedTurns(render, encoder)

    def prompt(self, said: Said) -> list[int]:
        """Return the ids after which the assistant's next words are to follow."""
        return self._begun(self._encoder.ids(self._render(said, ask=True)))

    def conversation(self, said: Said, answers: Sequence[int]) -> Conversation:
        """Return the rows in which the ``answers``, the numbers of turns, are learnt.

        An answer of which the template leaves words out is counted and not learnt; without thoughts of a field of their own
        it is learnt all the same, and these are counted. Turns before the last learnt answer are counted by role if the
        template leaves words of them out. Raises JobError (ChatTemplateUnsupported) if the template writes the turns before
        an answer differently once the answer is there.
        """
        rows: list[_Row] = []
        left_out: Counter[str] = Counter()
        known, last = Encoded(), None
        for number in answers:
            before = said[:number] if said[number - 1][0] != "thoughts" else said[: number - 1]
            asked = self._encoder.encoded(self._render(before, ask=True), known)
            finished = self._finished.after(asked, before, said[len(before) : number + 1])
            if finished is None:
                raise self._refused(_differently(asked.text, self._render(said[: number + 1], ask=False)))
            if finished.end is None:
                left_out["answer"] += 1
                continue
            left_out["thoughts"] += finished.without_thoughts
            known = self._encoder.encoded(finished.text, asked)
            answer = self._answer(said, number, asked, known, finished)
            prompt = self._begun(asked.ids)
            if not (rows and rows[-1].begins(prompt)):
                rows.append(_Row([]))
            learnt = slice(len(prompt), len(prompt) + len(answer.ids))
            rows[-1].ids, rows[-1].rest = [*prompt, *answer.ids], list(answer.rest)
            rows[-1].learnt.append(learnt)
            last = number, asked.text
        if last is not None:
            left_out.update(_left_out(said[: last[0]], last[1]))
            self._finish(rows[-1], self._encoder.encoded(self._render(said, ask=False), known))
        return Conversation([self._pieces(row) for row in rows], dict(+left_out))

    def _answer(
        self, said: Said, number: int, asked: Encoded, written: Encoded, finished: Finished
    ) -> _Answer:
        """Return a turn's answer with what ends it."""
        end = finished.end or 0
        at = self._end_from(written, end)
        if at is None and number + 1 < len(said):
            following = self._render(said[: number + 2], ask=True)
            if following.startswith(finished.rendered):
                going_on = self._encoder.encoded(written.text + following[len(finished.rendered) :], written)
                at = self._end_from(going_on, len(written.text), directly=True)
                written = written if at is None else going_on
        if at is not None:
            first, middle = self._continued(asked, written)
            return _Answer([*middle, *written.ids[first : at + 1]], written.ids[at + 1 :])
        without_space = written.text[:end] + written.text[end:].rstrip()
        written = self._encoder.encoded(without_space, asked)
        first, middle = self._continued(asked, written)
        return _Answer([*middle, *written.ids[first:], self._bounds.eos_id])

    def _end_from(self, written: Encoded, character: int, *, directly: bool = False) -> int | None:
        """Return the number of the first token from a character on that ends an answer; ``directly``, after space only."""
        for at in range(written.first_from(character), len(written.ids)):
            if written.ids[at] in self._bounds.end_ids:
                between = written.text[character : written.starts[at]]
                return None if directly and between.strip() else at
        return None

    def _continued(self, asked: Encoded, written: Encoded) -> tuple[int, list[int]]:
        """Return the number of the first token of a text that is wholly after a prompt, and ids for what is in between.

        There is something in between if a token reaches from the prompt into the answer. After the prompt's own ids, a
        model can only write the rest of it as tokens of their own.
        """
        boundary = len(asked.text)
        if written.ids[: len(asked.ids)] == asked.ids:
            return len(asked.ids), []
        first = written.first_from(boundary)
        until = written.starts[first] if first < len(written.starts) else len(written.text)
        between = written.text[boundary:until]
        return first, self._going_on(between) if between else []

    def _going_on(self, text: str) -> list[int]:
        """Return the ids of a text that goes on from another one, without the mark that some tokenizers put first."""
        for anchor in _ANCHORS:
            alone, together = self._encoder.ids(anchor), self._encoder.ids(anchor + text)
            if together[: len(alone)] == alone:
                return together[len(alone) :]
        return self._encoder.ids(text)

    def _begun(self, ids: Sequence[int]) -> list[int]:
        """Return ids that begin with the token that begins documents."""
        return list(ids) if tuple(ids[:1]) == (self._bounds.bos_id,) else [self._bounds.bos_id, *ids]

    def _finish(self, row: _Row, whole: Encoded) -> None:
        """Set what follows the last answer: the rest of the whole conversation, if the row is the beginning of it."""
        ids = self._begun(whole.ids)
        if row.begins(ids):
            row.rest = ids[len(row.ids) :]

    def _pieces(self, row: _Row) -> list[ConversationPiece]:
        """Return a row in pieces; if one token begins and ends documents, it ends with that token."""
        pieces: list[ConversationPiece] = [(row.ids[:1], False)]
        at = 1
        for learnt in row.learnt:
            pieces += [(row.ids[at : learnt.start], False), (row.ids[learnt], True)]
            at = learnt.stop
        rest = row.rest
        if self._bounds.bos_id == self._bounds.eos_id != [*row.ids, *rest][-1]:
            rest = [*rest, self._bounds.eos_id]
        return [(ids, learnt) for ids, learnt in [*pieces, (rest, False)] if ids]


def _differently(asked: str, text: str) -> str:
    """Return what is wrong with a template whose text of an answer does not begin with the prompt for it."""
    pairs = enumerate(zip(asked, text, strict=False))
    same = next((at for at, (one, other) in pairs if one != other), len(text))
    return (
        "it writes the turns before an answer differently once the answer follows, so the answer's words cannot be told apart "
        f"from the rest: the prompt for it goes on with {asked[same : same + 40]!r} where the conversation has "
        f"{text[same : same + 40]!r}"
    )


def _left_out(said: Said, text: str) -> Iterator[str]:
    """Yield the role of each turn of which a text leaves words out.

    Thoughts of a field of their own do not count here: templates leave out those of earlier answers, at servers too.
    """
    squeezed = "".join(text.split())
    return (role for role, words in said if role != "thoughts" and not stand_in(words, squeezed))
