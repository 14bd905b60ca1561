"""From a snapshot to batches of tokens: what step k trains on is a function of the seed and of k alone.

Documents become ``bos bytes eos`` and are packed into one stream, which each epoch cuts into blocks of
context + 1 tokens, at an offset and in an order that it draws from (seed, epoch). So the data cursor is
the step's number: nothing else has to be saved, and a resumed run reads the same batches. Tokens of
one document may see the document before it in their block.

About 2 % of the clusters are kept apart to validate on. They are training-side text, never the holdout.
"""

import math
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from moe_trainer.data.snapshot_layout import Document, read_documents
from moe_trainer.tokenizer import Tokenizer

VALIDATION_SHARE = 0.02
#: Blocks that a validation scores at most, spread evenly over the validation text.
VALIDATION_BLOCKS = 24


class Batches:
    """The training stream, cut into batches of ``rows`` blocks of ``context`` + 1 tokens."""

    def __init__(self, stream: Tensor, *, context: int, batch_tokens: int, seed: int) -> None:
        """Take a stream of int16 tokens; one that is shorter than a block is repeated until it is one."""
        repeats = math.ceil((context + 1) / len(stream))
        self.stream = stream.repeat(repeats)
        self.context = context
        self.rows = max(1, batch_tokens // context)
        self.blocks = (len(self.stream) - 1) // context
        self._seed = seed
        self._epochs: dict[int, tuple[int, list[int]]] = {}

    @property
    def tokens(self) -> int:
        """Tokens that one step predicts."""
        return self.rows * self.context

    def steps(self, epochs: float) -> int:
        """Return the number of steps in some epochs, rounded up."""
        return max(1, math.ceil(epochs * self.blocks / self.rows))

    def batch(self, step: int) -> Tensor:
        """Return the token ids of a step (the first is 0): int64, rows by context + 1."""
        first = step * self.rows
        return torch.stack([self._block(number) for number in range(first, first + self.rows)])

    def _block(self, number: int) -> Tensor:
        epoch, place = divmod(number, self.blocks)
        if epoch not in self._epochs:
            self._epochs = {epoch: self._draw_epoch(epoch)}
        offset, order = self._epochs[epoch]
        start = offset + order[place] * self.context
        return self.stream[start : start + self.context + 1].long()

    def _draw_epoch(self, epoch: int) -> tuple[int, list[int]]:
        """Return where an epoch's first block starts, and the order of its blocks."""
        generator = torch.Generator("cpu").manual_seed(_number(f"{self._seed} epoch {epoch}"))
        room = len(self.stream) - 1 - self.blocks * self.context
        offset = int(torch.randint(room + 1, (), generator=generator, device="cpu"))
        return offset, torch.randperm(self.blocks, generator=generator, device="cpu").tolist()


def read_streams(snapshot: Path, tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """Return the training and the validation stream of a snapshot, int16.

    The validation stream is empty where no cluster falls to it; the training stream never is.
    """
    training: list[Tensor] = []
    validation: list[Tensor] = []
    for document in read_documents(snapshot):
        tokens = torch.tensor(
            [tokenizer.bos_id, *tokenizer.encode(document.text), tokenizer.eos_id], dtype=torch.int16
        )
        (validation if _validates(document) else training).append(tokens)
    if not training:
        training, validation = validation, []
    return torch.cat(training), torch.cat(validation) if validation else torch.empty(0, dtype=torch.int16)


def validation_blocks(stream: Tensor, context: int) -> Tensor | None:
    """Return blocks of context + 1 tokens, spread evenly over a stream; None if it is shorter than one."""
    blocks = (len(stream) - 1) // context
    if blocks < 1:
        return None
    chosen = min(blocks, VALIDATION_BLOCKS)
    starts = [place * blocks // chosen * context for place in range(chosen)]
    return torch.stack([stream[start : start + context + 1] for start in starts]).long()


def _validates(document: Document) -> bool:
    return _number(f"validation {document.cluster}") < VALIDATION_SHARE * 2**63


def _number(text: str) -> int:
    """Return 63 bits that are drawn from a text."""
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") >> 1
