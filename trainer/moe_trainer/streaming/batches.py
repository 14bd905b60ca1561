"""From streams of tokens to batches: what step k trains on depends only on the seed and on k.

Documents follow each other in a stream (tokens.py). Each epoch cuts the stream into blocks of context + 1 tokens, with
an offset and in an order that are drawn from (seed, epoch). So the position in the data is the number of the step:
nothing else has to be saved, and a resumed run reads the same batches. Unless documents are kept apart, tokens of a
document can see the one before it in their block.

If there are several streams, each has epochs of its own, and blocks are taken from them by their shares
(block_order.py): a stream that is short for its share is read more often. The shares may change as the run goes on; then what
step k trains on also depends on the Phase that it is in.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from moe_formats.format import Format
from moe_trainer.streaming.block_order import Interleaving, Permutation
from moe_trainer.streaming.tokens import TokenStream, number_of

#: Most blocks that a validation scores; they are spread evenly over the validation text.
VALIDATION_BLOCKS = 24
#: The order of an epoch with more blocks is computed and not kept as a list.
LISTED_BLOCKS = 1 << 20

#: Stands in targets for a token that is not learnt: torch's cross-entropy skips it.
IGNORED = -100


@dataclass(frozen=True)
class MicroBatch:
    """A part of a step's sequences: what one forward and backward pass reads."""

    ids_BT: Tensor
    targets_BT: Tensor  #: The next id of each token, IGNORED where it is not learnt.
    replayed_B: Tensor  #: Whether a sequence is text of the base's own training.
    positions_BT: (
        Tensor | None
    )  #: Each token's place in its document; None: a sequence counts as one document.


@dataclass(frozen=True)
class DocumentEnds:
    """The tokens that begin and end a document.

    By them documents are kept apart in tokens that an earlier version wrote, without the places where documents begin.
    """

    bos_id: int
    eos_id: int

    def positions(self, ids_BT: Tensor) -> Tensor:
        """Return each token's place in its document, as far as the document is in the block; int64.

        A document begins with ``bos_id``. A tokenizer that has one token for both ends writes it twice between
        two documents, and the second of the two is the beginning: alone it may stand within a conversation.
        """
        begins_BT = ids_BT == self.bos_id
        if self.bos_id == self.eos_id:
            begins_BT[:, 1:] &= begins_BT[:, :-1].clone()
            begins_BT[:, 0] = False
        place_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        start_BT = torch.where(begins_BT, place_T, 0).cummax(dim=1).values
        return place_T - start_BT


class Phase(Format):
    """A part of a run, up to the next one, in which streams have the same shares."""

    first: int = Field(description="Number of its first block, counted over the whole run.")
    read: tuple[int, ...] = Field(description="Number of blocks of each stream that were read before it.")
    shares: tuple[float, ...] = Field(description="Share of each stream in a batch.")


class Batches:
    """Training streams, cut into batches of ``rows`` blocks of ``context`` + 1 tokens."""

    def __init__(
        self,
        *streams: TokenStream,
        context: int,
        batch_tokens: int,
        seed: int,
        ends: DocumentEnds | None = None,
    ) -> None:
        """Take the streams; one that is shorter than a block is repeated until it is one.

        With ``ends``, the documents of a sequence are kept apart: by where a stream says that they begin, or if it does not,
        by these tokens.
        """
        keys = [f"{seed}"] if len(streams) == 1 else [f"{seed} stream {n}" for n in range(len(streams))]
        self._strands = [_Strand(stream, context, key) for stream, key in zip(streams, keys, strict=True)]
        self.shares = [stream.share for stream in streams]
        self.enter(Phase(first=0, read=(0,) * len(streams), shares=tuple(self.shares)))
        self.context = context
        self._ends = ends
        self.rows = rows_of(batch_tokens, context)
        own = [strand for strand in self._strands if strand.own]
        share = sum(strand.share for strand in own) / sum(strand.share for strand in self._strands)
        #: Blocks of an epoch: those of the run's own data, and the rehearsed and replayed ones that go with them.
        self.blocks = round(sum(strand.blocks for strand in own) / share)

    @property
    def tokens(self) -> int:
        """Tokens that one step predicts."""
        return self.rows * self.context

    def steps(self, epochs: float) -> int:
        """Return the number of steps in ``epochs`` epochs, rounded up."""
        return max(1, math.ceil(epochs * self.blocks / self.rows))

    def passes(self, steps: int) -> list[float]:
        """Return how often the first ``steps`` steps read each stream: tokens that were predicted per token that can be.

        An epoch leaves out what does not fill a block, so one epoch of a short stream is less than one pass.
        """
        quotas, phase = self._mixture.quotas, self.phase
        cycles = (steps * self.rows - phase.first) / sum(quotas)
        blocks = [read + cycles * quota for read, quota in zip(phase.read, quotas, strict=True)]
        strands = zip(blocks, self._strands, strict=True)
        return [number * self.context / strand.predictable for number, strand in strands]

    def enter(self, phase: Phase) -> None:
        """Read blocks from the first of a phase on as the phase has it."""
        self.phase = phase
        self._mixture = Interleaving(phase.shares)

    def change(self, step: int, shares: Sequence[float]) -> None:
        """Enter a new phase at a step, which must be in the present one or at its end."""
        first = step * self.rows
        new = self._mixture.before(first - self.phase.first)
        read = tuple(had + more for had, more in zip(self.phase.read, new, strict=True))
        self.enter(Phase(first=first, read=read, shares=tuple(shares)))

    def in_parts(self, step: int, rows: range, parts: int) -> list[MicroBatch]:
        """Return some rows of a step in ``parts`` micro-batches of about the same size."""
        ids = self.batch(step, rows)[:, :-1].tensor_split(parts)
        targets = self.targets(step, rows).tensor_split(parts)
        replayed = self.replayed(step, rows).tensor_split(parts)
        places = self.positions(step, rows)
        positions = [None] * parts if places is None else places.tensor_split(parts)
        return [MicroBatch(*part) for part in zip(ids, targets, replayed, positions, strict=True)]

    def positions(self, step: int, rows: range | None = None) -> Tensor | None:
        """Return each token's place in its document, rows by context, where documents are to be kept apart."""
        if self._ends is None:
            return None
        return torch.stack(
            [strand.positions(number, self._ends) for strand, number in self._blocks(step, rows)]
        )

    def batch(self, step: int, rows: range | None = None) -> Tensor:
        """Return the token ids of a step (the first is 0): int64, rows by context + 1.

        A process that shares the batch with others passes its own rows, of 0 to ``self.rows``; only those are read.
        """
        return torch.stack([strand.ids(number) for strand, number in self._blocks(step, rows)])

    def targets(self, step: int, rows: range | None = None) -> Tensor:
        """Return what a step predicts: its ids from the second on, with IGNORED in place of those that are not learnt."""
        return torch.stack([strand.targets(number) for strand, number in self._blocks(step, rows)])

    def replayed(self, step: int, rows: range | None = None) -> Tensor:
        """Return, as bool, which rows of a step are text of the base's own training."""
        return torch.tensor([strand.replayed for strand, _ in self._blocks(step, rows)], dtype=torch.bool)

    def _blocks(self, step: int, rows: range | None) -> "list[tuple[_Strand, int]]":
        wanted = range(self.rows) if rows is None else rows
        found = [self._mixture[step * self.rows + row - self.phase.first] for row in wanted]
        return [(self._strands[stream], self.phase.read[stream] + number) for stream, number in found]


class _Strand:
    """One stream's blocks, numbered through its epochs."""

    def __init__(self, stream: TokenStream, context: int, key: str) -> None:
        repeats = math.ceil((context + 1) / len(stream.tokens))
        self._tokens = stream.tokens.repeat(repeats) if repeats > 1 else stream.tokens
        #: Tokens of the stream that can be predicted: the first one has none before it, unless the stream is repeated.
        self.predictable = len(stream.tokens) - (repeats == 1)
        learnt = stream.learnt
        self._learnt = learnt.repeat(repeats) if learnt is not None and repeats > 1 else learnt
        self._starts = stream.starts
        if stream.starts is not None and repeats > 1:
            self._starts = torch.cat([stream.starts + n * len(stream.tokens) for n in range(repeats)])
        self.share, self.replayed = stream.share, stream.replayed
        self.own = stream.own
        self.blocks = (len(self._tokens) - 1) // context
        self._context, self._key = context, key
        self._epoch = -1
        self._offset = 0
        self._order: Sequence[int] | Permutation = ()

    def ids(self, number: int) -> Tensor:
        """Return a block's context + 1 ids."""
        return self._tokens[self._block(number)].long()

    def targets(self, number: int) -> Tensor:
        """Return a block's ids from the second on, with IGNORED in place of those that are not learnt."""
        block = self._block(number)
        ids_T = self._tokens[block][1:].long()
        return ids_T if self._learnt is None else ids_T.masked_fill(~self._learnt[block][1:], IGNORED)

    def positions(self, number: int, ends: DocumentEnds) -> Tensor:
        """Return the places in their documents of a block's ids but the last."""
        block = self._block(number)
        return positions(self._tokens, self._starts, block.start, block.stop - 1, ends)

    def _block(self, number: int) -> slice:
        epoch, place = divmod(number, self.blocks)
        if epoch != self._epoch:
            self._draw(epoch)
        start = self._offset + self._order[place] * self._context
        return slice(start, start + self._context + 1)

    def _draw(self, epoch: int) -> None:
        """Draw the offset of an epoch's first block, and the order of its blocks."""
        key = f"{self._key} epoch {epoch}"
        generator = torch.Generator("cpu").manual_seed(number_of(key))
        room = len(self._tokens) - 1 - self.blocks * self._context
        self._offset = int(torch.randint(room + 1, (), generator=generator, device="cpu"))
        if self.blocks <= LISTED_BLOCKS:
            self._order = torch.randperm(self.blocks, generator=generator, device="cpu").tolist()
        else:
            self._order = Permutation(self.blocks, key)
        self._epoch = epoch


def rows_of(batch_tokens: int, context: int) -> int:
    """Return the number of blocks in a step of about ``batch_tokens`` tokens."""
    return max(1, batch_tokens // context)


def positions(tokens: Tensor, starts: Tensor | None, first: int, end: int, ends: DocumentEnds) -> Tensor:
    """Return the place of each token of ``first`` to ``end`` in its document, as far as the document is in there; int64.

    ``starts`` are the places of documents' first tokens; without them, documents are found by their ``ends``.
    """
    if starts is None:
        return ends.positions(tokens[first:end][None])[0]
    bounds = torch.tensor([first, end], device=starts.device)
    begun = starts[slice(*torch.searchsorted(starts, bounds).tolist())] - first
    start_T = torch.zeros(end - first, dtype=torch.int64, device=starts.device).index_copy(0, begun, begun)
    return torch.arange(end - first, device=starts.device) - start_T.cummax(dim=0).values


def validation_clusters(stream: TokenStream, context: int) -> list[int]:
    """Return the number of the document in which each validation block begins; 0 where a stream does not say."""
    starts = _validated(len(stream.tokens), context)
    if stream.starts is None:
        return [0] * len(starts)
    return torch.searchsorted(stream.starts, torch.tensor(starts, device="cpu"), right=True).tolist()


def validation_blocks(tokens: Tensor, context: int) -> Tensor | None:
    """Return blocks of context + 1 tokens, spread evenly over a stream; None if it is shorter than one block.

    Bits per byte are measured on all words of a conversation, as on holdouts.
    """
    starts = _validated(len(tokens), context)
    return torch.stack([tokens[start : start + context + 1] for start in starts]).long() if starts else None


def validation_positions(stream: TokenStream, context: int, ends: DocumentEnds) -> Tensor | None:
    """Return the places in their documents of the validation blocks' ids but the last; None if there are no blocks."""
    starts = _validated(len(stream.tokens), context)
    found = [positions(stream.tokens, stream.starts, start, start + context, ends) for start in starts]
    return torch.stack(found) if found else None


def _validated(tokens: int, context: int) -> list[int]:
    """Return where the validation blocks of a stream begin."""
    blocks = max(0, (tokens - 1) // context)
    chosen = min(blocks, VALIDATION_BLOCKS)
    return [place * blocks // chosen * context for place in range(chosen)]
