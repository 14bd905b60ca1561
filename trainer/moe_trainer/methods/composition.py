"""The banks of several Experts on one base, stacked: one mixture with E + sum of k in-layer experts per layer.

    all rows of the router are visible            the router chooses among all, token by token: an ordinary checkpoint
    rows chosen by sequence (``choose``)          each sequence sees only the base's rows and its own bank's, as if that
                                                  bank were the only one; one grouped product computes all of them

Shapes: B sequences, T tokens per sequence, N = B * T, D hidden, E all in-layer experts of a layer, M banks plus 1 for the base.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from moe_formats.failure import JobError
from moe_formats.format import Digest
from moe_formats.job_config import ArtefactRef
from moe_trainer.methods import adapter, checkpoint_format
from moe_trainer.methods.expert_bank import ExpertBank, bankable
from moe_trainer.models.bank_layers import CLOSED
from moe_trainer.models.causal_model import CausalModel
from moe_trainer.storage.committed import opened
from moe_trainer.text.tokenizer import Tokenizer


class VisibleRows(nn.Module):
    """Limits which of a router's rows each sequence of a batch can choose (``Mixture.beside``)."""

    def __init__(self) -> None:
        super().__init__()
        self.visible_BE: Tensor | None = (
            None  #: For the sequences of the next pass; None: all rows are visible to all.
        )

    def forward(self, x_ND: Tensor, logits_NE: Tensor) -> Tensor:
        """Return the logits, with CLOSED for rows that a token's sequence does not see."""
        if self.visible_BE is None:
            return logits_NE
        logits_BTE = logits_NE.view(len(self.visible_BE), -1, logits_NE.shape[1])
        return logits_BTE.masked_fill(~self.visible_BE[:, None], CLOSED).flatten(0, 1)


@dataclass(frozen=True)
class Composition:
    """A base with banks stacked on it, in evaluation mode."""

    model: CausalModel
    tokenizer: Tokenizer
    base: ArtefactRef
    #: Which in-layer experts the sequences of each bank see; the last row is for sequences without a bank.
    visible_ME: Tensor

    def choose(self, banks: Sequence[int | None]) -> None:
        """Set the bank of each sequence of the next passes, by its number in the composition; None: no bank."""
        rows = torch.tensor([-1 if bank is None else bank for bank in banks])
        for mixture in self.model.mixtures:
            assert isinstance(mixture.beside, VisibleRows)
            mixture.beside.visible_BE = self.visible_ME[rows]


def compose(store: Path, banks: Sequence[tuple[str, Digest]]) -> Composition:
    """Load the base of some banks and stack the banks on it in this order; banks are given by path and digest.

    Raises JobError: ArtefactCorrupt, or InvalidConfig if one is not a bank, or their bases differ.
    """
    record = _common_record(store, banks)
    base = record.base
    with (
        adapter.needing_base(store / banks[0][0], record),
        opened(store, base.path, base.digest) as folder,
    ):
        model, tokenizer = checkpoint_format.read(folder)
    ends = [bankable(model)[0].mixture.router.experts]
    for path, digest in banks:
        with opened(store, path, digest) as folder:
            ExpertBank().load(folder, model)
        ends.append(model.mixtures[0].router.experts)
    visible_ME = torch.zeros(len(banks) + 1, ends[-1], dtype=torch.bool)
    visible_ME[:, : ends[0]] = True
    for bank, (start, end) in enumerate(pairwise(ends)):
        visible_ME[bank, start:end] = True
    for mixture in model.mixtures:
        mixture.beside = VisibleRows()
    return Composition(model.eval(), tokenizer, base, visible_ME)


def _common_record(store: Path, banks: Sequence[tuple[str, Digest]]) -> adapter.AdapterRecord:
    """Return the record of a bank, whose base is that of all."""
    records = {}
    for path, digest in banks:
        record = adapter.read(store, path, digest)
        if record is None or record.method != "ExpertBank":
            what = "a checkpoint" if record is None else f"an adapter made by {record.method}"
            raise JobError(
                "InvalidConfig",
                f"{path} is {what}, but only banks can be composed: leave it out, or train it with method ExpertBank.",
            )
        records[record.base.digest] = record
    if len(records) != 1:
        bases = [record.base for record in records.values()]
        named = ", ".join(sorted(f"{base.revision} ({base.digest})" for base in bases)) or "none"
        raise JobError(
            "InvalidConfig",
            f"only banks of the same base can be composed, but these have {len(records)}: {named}. Name banks of one base only.",
        )
    return next(iter(records.values()))
