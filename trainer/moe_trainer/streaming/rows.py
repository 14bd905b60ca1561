"""A document as training reads it: rows of token ids.

text            bos text eos, all of it learnt
conversation    one row or several (Tokenizer.conversation); only the answers are learnt
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from moe_trainer.snapshots.layout import Document
from moe_trainer.text.tokenizer import Tokenizer


class Row(NamedTuple):
    """Token ids that begin and end as a document does, and which of them are learnt; None if all are."""

    ids: Sequence[int]
    learnt: Sequence[bool] | None = None


class Encoded(NamedTuple):
    """A document as training reads it, and what is left out of it (Conversation)."""

    rows: Sequence[Row]
    left_out: Mapping[str, int] = {}
    answers: int = 0  #: The number of answers that are learnt.


def encoded(document: Document, tokenizer: Tokenizer) -> Encoded:
    """Return a document as training reads it."""
    if document.turns is None:
        return Encoded([Row([tokenizer.bos_id, *tokenizer.encode(document.text), tokenizer.eos_id])])
    conversation = tokenizer.conversation(list(document.said()), document.answers())
    rows = [
        Row([i for ids, _ in row for i in ids], [learnt for ids, learnt in row for _ in ids])
        for row in conversation.rows
    ]
    answers = sum(learnt for row in conversation.rows for _, learnt in row)
    return Encoded(rows, conversation.left_out, answers)
