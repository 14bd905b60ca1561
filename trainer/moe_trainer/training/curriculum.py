"""Curriculum: sources whose loss has fallen least are read more often, if that proves better than leaving weights alone.

    weights   w <- softmax(ln w + rate * excess), each at least floor times the weight that the spec gives the source
    excess    bits per byte of a source's validation text now, less those at the start of the run; or where its 95 % interval
              reaches nearer to the mean of all sources, that end: chance alone moves no weight
    trial     an interval trained twice from one state, once with each kind of weights (trial.py)

Weights follow the losses from the first validation on, but batches have them only after a trial in which they beat the
spec's own, which is stratified sampling: on the source with the largest excess there, one-sided at 5 % over
documents. The next trial may end it again. No published way of mixing beats stratified sampling reliably, so nothing is
taken for granted here.

The weights and the position in each stream are part of a checkpoint, so a run that resumes reads the same batches.

Shapes: B blocks of validation text, T tokens.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from moe_formats import training_spec
from moe_formats.format import Format
from moe_formats.job_config import MIN_CLUSTERS
from moe_trainer.models.causal_model import CausalModel
from moe_trainer.statistics.bootstrap import TAIL, Ratio, bootstrap, seed_of
from moe_trainer.streaming.batches import (
    Batches,
    DocumentEnds,
    Phase,
    validation_blocks,
    validation_clusters,
    validation_positions,
)
from moe_trainer.streaming.tokens import Streams

#: Probability that a trial takes a curriculum for better that is not.
ALPHA = 0.05


class Trial(Format):
    """A comparison of the curriculum's weights with the spec's, over the steps to the next validation."""

    step: int = Field(description="Step at which both began.")
    source: str = Field(description="Source with the largest excess under the spec's weights, which decides.")
    clusters: int = Field(description="Number of its documents in the validation text.")
    difference: float | None = Field(
        default=None,
        description="Bits per byte of that source with the curriculum's weights, less those with the spec's. Absent if there "
        "are fewer than 20 documents, on which nothing is decided; then the curriculum's weights are not tried.",
    )
    upper: float | None = Field(
        default=None, description="Upper bound of the difference, one-sided at 5 %. Absent with it."
    )
    used: bool = Field(description="Whether the curriculum's weights are used from here on.")


class Measured(Format):
    """The losses of a source's validation text, block by block."""

    nats: tuple[float, ...]
    bytes: tuple[int, ...]

    @property
    def bits_per_byte(self) -> float:
        """The bits per byte of all blocks together."""
        return math.fsum(self.nats) / (math.log(2) * sum(self.bytes))


class CurriculumState(Format):
    """How far the curriculum of a run is."""

    reference: tuple[Measured, ...] = Field(description="Losses of each source at the start of the run.")
    weights: tuple[float, ...] = Field(description="Weight of each source by the curriculum; their sum is 1.")
    used: bool = Field(default=False, description="Whether batches have these weights or the spec's.")
    phase: Phase
    trials: tuple[Trial, ...] = ()


@dataclass(frozen=True)
class Slice:
    """The validation text of one source."""

    name: str
    share: float  #: Of a batch, as the spec has it.
    blocks_BT: Tensor
    positions_BT: Tensor | None
    documents: Sequence[int]  #: The document in which each block begins.


class Curriculum:
    """The slices of a run and the rule by which their weights move; the state is in the run's curve."""

    def __init__(
        self, rule: training_spec.Curriculum, slices: Sequence[Slice], others: Sequence[float]
    ) -> None:
        """Take the slices in the order of the streams, and the shares of the streams after them, which stay."""
        self._rule, self._slices, self._others = rule, slices, tuple(others)
        self._own = sum(slice.share for slice in slices)
        self.stratified = tuple(slice.share / self._own for slice in slices)
        self.measured: Sequence[Measured] = ()  #: By the newest validation.

    def measure(self, model: CausalModel, sizes_V: Tensor, rows: int) -> list[Measured]:
        """Return the losses of the slices; the model is left in training mode."""
        model.eval()
        found = [_measured(model, slice, sizes_V, rows) for slice in self._slices]
        model.train()
        return found

    def begun(self, batches: Batches) -> CurriculumState:
        """Return the state at the start of a run, whose losses have just been measured."""
        return CurriculumState(reference=tuple(self.measured), weights=self.stratified, phase=batches.phase)

    def moved(self, state: CurriculumState, batches: Batches, step: int) -> CurriculumState:
        """Return the state after a validation, whose losses have just been measured; batches follow."""
        excess = self._provable_excess(state, step)
        floors = [self._rule.floor * share for share in self.stratified]
        weights = reweighted(state.weights, excess, self._rule.rate, floors)
        return self.settled(state.model_copy(update={"weights": weights}), batches, step)

    def settled(self, state: CurriculumState, batches: Batches, step: int) -> CurriculumState:
        """Have batches read by the weights that a state says from a step on; return the state with that phase."""
        self.enter(state.weights if state.used else self.stratified, batches, step)
        return state.model_copy(update={"phase": batches.phase})

    def enter(self, weights: Sequence[float], batches: Batches, step: int) -> None:
        """Have batches read by some weights from a step on."""
        shares = (*(weight * self._own for weight in weights), *self._others)
        if shares != batches.phase.shares:
            batches.change(step, shares)

    def worst(self, state: CurriculumState, measured: Sequence[Measured]) -> int:
        """Return the number of the slice with the largest excess."""
        pairs = zip(measured, state.reference, strict=True)
        excess = [now.bits_per_byte - before.bits_per_byte for now, before in pairs]
        return excess.index(max(excess))

    def too_few(self, step: int, worst: int) -> Trial | None:
        """Return a trial that decides nothing if a slice has too few documents; None if it has enough."""
        slice = self._slices[worst]
        clusters = len(set(slice.documents))
        if clusters >= MIN_CLUSTERS:
            return None
        return Trial(step=step, source=slice.name, clusters=clusters, used=False)

    def compared(
        self, step: int, worst: int, stratified: Sequence[Measured], tried: Sequence[Measured]
    ) -> Trial:
        """Return the trial that began at a step, decided on its worst slice."""
        slice = self._slices[worst]
        found = bootstrap(
            paired(slice.documents, stratified[worst], tried[worst]), seed=seed_of("curriculum", str(step))
        )
        upper = found.upper(ALPHA)
        return Trial(
            step=step,
            source=slice.name,
            clusters=found.clusters,
            difference=found.estimate,
            upper=upper,
            used=upper < 0,
        )

    def _provable_excess(self, state: CurriculumState, step: int) -> list[float]:
        """Return each slice's excess, moved as near to the mean of all as its 95 % interval reaches."""
        intervals = []
        for slice, before, now in zip(self._slices, state.reference, self.measured, strict=True):
            excess = now.bits_per_byte - before.bits_per_byte
            low, high = -math.inf, math.inf
            if len(set(slice.documents)) >= MIN_CLUSTERS:
                found = bootstrap(
                    paired(slice.documents, before, now), seed=seed_of("excess", str(step), slice.name)
                )
                low, high = found.lower(TAIL), found.upper(TAIL)
            intervals.append((low, excess, high))
        mean = sum(share * each for share, (_, each, _) in zip(self.stratified, intervals, strict=True))
        return [min(max(mean, low), high) for low, _, high in intervals]


def slices_of(streams: Streams, context: int, ends: DocumentEnds | None) -> Mapping[str, Slice]:
    """Return the slices of a run by the name of their stream, in the order of the streams; only those with a block."""
    found = {}
    for number, stream in enumerate(streams.record.training):
        text = streams.validation_of.get(number)
        blocks_BT = None if text is None else validation_blocks(text.tokens, context)
        if not stream.own or text is None or blocks_BT is None:
            continue
        positions_BT = validation_positions(text, context, ends) if ends else None
        documents = validation_clusters(text, context)
        found[stream.name] = Slice(stream.name, stream.share, blocks_BT, positions_BT, documents)
    return found


def reweighted(
    weights: Sequence[float], excess: Sequence[float], rate: float, floors: Sequence[float]
) -> tuple[float, ...]:
    """Return softmax(ln w + rate * excess) with each weight at its floor at least; their sum is 1.

    Where some are raised to their floors, the others are scaled down alike, until none is below its own. The floors' sum
    must be at most 1.
    """
    largest = max(excess)
    raw = [weight * math.exp(rate * (each - largest)) for weight, each in zip(weights, excess, strict=True)]
    raised: set[int] = set()
    while True:
        left = 1 - sum(floors[number] for number in raised)
        total = sum(value for number, value in enumerate(raw) if number not in raised)
        found = [
            floors[number] if number in raised else left * value / total for number, value in enumerate(raw)
        ]
        low = {number for number, value in enumerate(found) if value < floors[number]}
        if not low:
            return tuple(found)
        raised |= low


def paired(documents: Sequence[int], before: Measured, after: Measured) -> Ratio:
    """Return the difference of two measurements of a slice in bits per byte, by document."""
    names = sorted(set(documents))
    index_B = np.searchsorted(names, documents)
    bits_B = (np.asarray(after.nats) - np.asarray(before.nats)) / math.log(2)
    sums = (
        np.bincount(index_B, weights=values_B, minlength=len(names)).astype(np.float64)
        for values_B in (bits_B, np.asarray(before.bytes, dtype=np.float64))
    )
    return Ratio(*sums)


def _measured(model: CausalModel, slice: Slice, sizes_V: Tensor, rows: int) -> Measured:
    nats: list[float] = []
    blocks_BT = slice.blocks_BT
    with torch.no_grad():  # inference_mode would leave gathered weights that cannot be trained
        for part in range(0, len(blocks_BT), rows):
            ids_BT = blocks_BT[part : part + rows]
            positions = slice.positions_BT
            places_BT = None if positions is None else positions[part : part + rows]
            logits_BTV, _ = model.with_routing(ids_BT[:, :-1], places_BT)
            targets_BT = ids_BT[:, 1:].to(logits_BTV.device)
            nats_BT = F.cross_entropy(logits_BTV.transpose(1, 2), targets_BT, reduction="none")
            counted_BT = sizes_V.to(logits_BTV.device)[targets_BT] > 0
            nats += (nats_BT.double() * counted_BT).sum(dim=1).tolist()
    return Measured(nats=tuple(nats), bytes=tuple(sizes_V[blocks_BT[:, 1:]].sum(dim=1).tolist()))
