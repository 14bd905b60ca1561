r"""From a snapshot to batches of tokens: what step k trains on is a function of the seed and of k alone.

Documents become ``bos bytes eos`` and are packed into one stream, which each epoch cuts into blocks of
context + 1 tokens, at an offset and in an order that it draws from (seed, epoch). So the data cursor is
the step's number: nothing else has to be saved, and a resumed run reads the same batches. Tokens of
one document may see the document before it in their block.

Conversations become what the server sends the model (Tokenizer.conversation). Only the answers are learnt:
every other token is read and not predicted.

About 2 % of the clusters are kept apart to validate on. They are training-side text, never the holdout.
"""

import math
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from moe_trainer.data.snapshot_layout import Document, read_documents
from moe_trainer.tokenizer import Tokenizer

VALIDATION_SHARE = 0.02
#: Blocks that a validation scores at most, spread evenly over the validation text.
VALIDATION_BLOCKS = 24

#: Stands in targets for a token that is not learnt: torch's cross-entropy passes over it.
IGNORED = -100


class Stream(NamedTuple):
    """Tokens (int16, or int32 if the vocabulary is large) in the order of reading, and which are learnt (None: all)."""

    tokens: Tensor
    learnt: Tensor | None = None


class Batches:
    """The training stream, cut into batches of ``rows`` blocks of ``context`` + 1 tokens."""

    def __init__(self, stream: Stream, *, context: int, batch_tokens: int, seed: int) -> None:
        """Take a stream; one that is shorter than a block is repeated until it is one."""
        repeats = math.ceil((context + 1) / len(stream.tokens))
        self._tokens = stream.tokens.repeat(repeats)
        self._learnt = None if stream.learnt is None else stream.learnt.repeat(repeats)
        self.context = context
        self.rows = rows_of(batch_tokens, context)
        self.blocks = (len(self._tokens) - 1) // context
        self._seed = seed
        self._epochs: dict[int, tuple[int, list[int]]] = {}

    @property
    def tokens(self) -> int:
        """Tokens that one step predicts."""
        return self.rows * self.context

    def steps(self, epochs: float) -> int:
        """Return the number of steps in some epochs, rounded up."""
        return max(1, math.ceil(epochs * self.blocks / self.rows))

    def batch(self, step: int, rows: range | None = None) -> Tensor:
        """Return the token ids of a step (the first is 0): int64, rows by context + 1.

        A process that shares the batch with others gives the rows that are its own, of 0 to ``self.rows``,
        and only those are read.
        """
        return torch.stack([self._tokens[block].long() for block in self._blocks(step, rows)])

    def targets(self, step: int, rows: range | None = None) -> Tensor:
        """Return what a step predicts: its ids from the second on, IGNORED where one is not learnt."""
        ids_BT = self.batch(step, rows)[:, 1:]
        if self._learnt is None:
            return ids_BT
        learnt_BT = torch.stack([self._learnt[block] for block in self._blocks(step, rows)])[:, 1:]
        return ids_BT.masked_fill(~learnt_BT, IGNORED)

    def _blocks(self, step: int, rows: range | None) -> list[slice]:
        first = step * self.rows
        wanted = range(self.rows) if rows is None else rows
        return [self._block(first + row) for row in wanted]

    def _block(self, number: int) -> slice:
        epoch, place = divmod(number, self.blocks)
        if epoch not in self._epochs:
            self._epochs = {epoch: self._draw_epoch(epoch)}
        offset, order = self._epochs[epoch]
        start = offset + order[place] * self.context
        return slice(start, start + self.context + 1)

    def _draw_epoch(self, epoch: int) -> tuple[int, list[int]]:
        """Return where an epoch's first block starts, and the order of its blocks."""
        generator = torch.Generator("cpu").manual_seed(_number(f"{self._seed} epoch {epoch}"))
        room = len(self._tokens) - 1 - self.blocks * self.context
        offset = int(torch.randint(room + 1, (), generator=generator, device="cpu"))
        return offset, torch.randperm(self.blocks, generator=generator, device="cpu").tolist()


def rows_of(batch_tokens: int, context: int) -> int:
    """Return the number of blocks that make a step of about ``batch_tokens``."""
    return max(1, batch_tokens // context)


def read_streams(snapshot: Path, tokenizer: Tokenizer) -> tuple[Stream, Stream]:
    """Return the training and the validation stream of a snapshot.

    The validation stream is empty where no cluster falls to it; the training stream never is.
    """
    training: list[Stream] = []
    validation: list[Stream] = []
    for document in read_documents(snapshot):
        (validation if _validates(document) else training).append(_tokens(document, tokenizer))
    if not training:
        training, validation = validation, []
    return _joined(training), _joined(validation)


def _tokens(document: Document, tokenizer: Tokenizer) -> Stream:
    dtype = torch.int16 if tokenizer.vocab_size <= 1 << 15 else torch.int32
    if document.turns is None:
        ids = [tokenizer.bos_id, *tokenizer.encode(document.text), tokenizer.eos_id]
        return Stream(torch.tensor(ids, dtype=dtype))
    pieces = tokenizer.conversation(list(document.said()))
    return Stream(
        torch.tensor([i for ids, _ in pieces for i in ids], dtype=dtype),
        torch.tensor([learnt for ids, learnt in pieces for _ in ids], dtype=torch.bool),
    )


def _joined(streams: list[Stream]) -> Stream:
    tokens = torch.cat([torch.empty(0, dtype=torch.int16), *(stream.tokens for stream in streams)])
    if all(stream.learnt is None for stream in streams):
        return Stream(tokens)
    every = [
        torch.ones(len(stream.tokens), dtype=torch.bool) if stream.learnt is None else stream.learnt
        for stream in streams
    ]
    return Stream(tokens, torch.cat(every))


def validation_blocks(stream: Stream, context: int) -> Tensor | None:
    """Return blocks of context + 1 tokens, spread evenly over a stream; None if it is shorter than one.

    Bits per byte are measured on all words of a conversation, as on its holdouts.
    """
    tokens = stream.tokens
    blocks = (len(tokens) - 1) // context
    if blocks < 1:
        return None
    chosen = min(blocks, VALIDATION_BLOCKS)
    starts = [place * blocks // chosen * context for place in range(chosen)]
    return torch.stack([tokens[start : start + context + 1] for start in starts]).long()


def _validates(document: Document) -> bool:
    return _number(f"validation {document.cluster}") < VALIDATION_SHARE * 2**63


def _number(text: str) -> int:
    """Return 63 bits that are drawn from a text."""
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") >> 1
