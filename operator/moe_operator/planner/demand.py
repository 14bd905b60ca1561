"""Whether another revision is demanded, why, and what it would be made of.

An ordered chain is asked, and the first demand counts:

    spec    the Expert has no revision yet, or its spec asks for other weights than the current revision has;
            starts from the pinned base or the preset, so that weights follow from the spec and not from its history
    data    the newest snapshot is not what the current revision learnt from;
            starts from the current revision, so that what was learnt is kept

A demand becomes inputs, and the same inputs are the same revision: if it was promoted before, the pointer moves
back to it and nothing is made; if it was refused for good, nothing is made; if it is in the making, it goes on.
Only inputs that no revision has make another one.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic.alias_generators import to_camel

from moe_formats.job_config import ArtefactRef, SnapshotRef
from moe_formats.left_out import OF_REVISIONS
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_revision import (
    Cause,
    ExpertRevision,
    ExpertRevisionSpec,
    HoldoutInput,
    Inputs,
)
from moe_formats.resources.expert_status import SnapshotStatus
from moe_operator.planner.base import BaseDecision
from moe_operator.planner.identity import inputs_digest, suite_digest, training_input
from moe_operator.planner.lineage import by_name, current_of, is_promoted, parent_ref, root_of
from moe_operator.planner.names import expert_of
from moe_operator.planner.suite import draw_suite
from moe_operator.state import ExpertState


@dataclass(frozen=True)
class Demand:
    """A revision that something asks for."""

    cause: Cause
    #: The artefacts it starts from, the one that is trained first; none for a preset.
    parents: tuple[ArtefactRef, ...]
    #: What asks for it, in words: which fields or which data differ.
    evidence: str


@dataclass(frozen=True)
class Wanted:
    """What the Expert should have, and the objects that there are of it."""

    #: The promoted revision.
    current: ExpertRevision | None
    #: The revision that answers the demand, if it exists and is not the current one.
    revision: ExpertRevision | None = None
    #: What is demanded and of what it would be made, while no revision answers the demand.
    demand: Demand | None = None
    inputs: Inputs | None = None

    @property
    def undecided(self) -> bool:
        """Whether a revision is in the making, or about to be."""
        if self.revision is not None:
            return self.revision.status.verdict is None
        return self.inputs is not None


@dataclass(frozen=True)
class Question:
    """What the links of the chain look at."""

    expert: Expert
    snapshot: SnapshotStatus
    base: BaseDecision
    current: ExpertRevision | None
    #: The revision that the current one's chain of refreshes began with.
    root: ExpertRevision | None


def decide_wanted(state: ExpertState, base: BaseDecision, snapshot: SnapshotStatus | None) -> Wanted:
    """Return the current revision, and the one that is demanded where that is another.

    ``snapshot`` is None while there is none that answers what the spec asks.
    """
    current = current_of(state)
    if snapshot is None or not base.ready:
        return Wanted(current)
    root = root_of(current, by_name(state.revisions)) if current is not None else None
    question = Question(state.expert, snapshot, base, current, root)
    demand = next((found for link in CHAIN if (found := link(question)) is not None), None)
    if demand is None:
        return Wanted(current)
    inputs = inputs_of(state, demand, base, snapshot)
    digest = inputs_digest(inputs)
    existing = next((item for item in state.revisions if item.spec.inputs_digest == digest), None)
    if existing is None:
        return Wanted(current, demand=demand, inputs=inputs)
    return Wanted(existing) if is_promoted(existing) else Wanted(current, revision=existing)


def inputs_of(state: ExpertState, demand: Demand, base: BaseDecision, snapshot: SnapshotStatus) -> Inputs:
    """Return what a revision that answers a demand is made of."""
    return Inputs(
        parent=demand.parents[0] if demand.parents else None,
        merged_with=list(demand.parents[1:]),
        preset=base.preset if not demand.parents else None,
        data=SnapshotRef(path=snapshot.path, digest=snapshot.digest),
        training=training_input(state.expert),
        seed=state.expert.spec.seed,
        run_id=state.expert.spec.run_id,
    )


def new_revision(
    state: ExpertState, demand: Demand, inputs: Inputs, snapshot: SnapshotStatus
) -> ExpertRevisionSpec:
    """Return the spec of the revision to make, its suite drawn now and frozen."""
    expert = state.expert
    own = HoldoutInput(domain=expert.spec.domain, expert=expert.metadata.name, window=snapshot.anchor)
    suite = draw_suite(state, own)
    return ExpertRevisionSpec(
        expert=expert.metadata.name,
        expert_uid=expert.metadata.uid,
        pool=expert.spec.pool,
        number=next_number(state),
        cause=demand.cause,
        cause_message=demand.evidence[:1024],
        inputs=inputs,
        inputs_digest=inputs_digest(inputs),
        anchor=snapshot.anchor,
        newest=snapshot.newest,
        suite=suite,
        suite_digest=suite_digest(suite),
    )


def next_number(state: ExpertState) -> int:
    """Return a number that no revision of the Expert has had."""
    return max([state.expert.status.revisions, *(item.spec.number for item in state.revisions)]) + 1


def _spec(question: Question) -> Demand | None:
    parents = (question.base.parent,) if question.base.parent is not None else ()
    if question.current is None or question.root is None:
        return Demand(Cause.SPEC_CHANGED, parents, "the Expert has no promoted revision yet")
    differences = list(_differences(question.expert, question.current, question.root))
    return Demand(Cause.SPEC_CHANGED, parents, "; ".join(differences)) if differences else None


def _data(question: Question) -> Demand | None:
    current = question.current
    if current is None or current.spec.inputs.data.digest == question.snapshot.digest:
        return None
    evidence = (
        f"the data are {question.snapshot.digest[:19]} and no longer {current.spec.inputs.data.digest[:19]}"
    )
    return Demand(Cause.NEW_DATA, (parent_ref(current),), evidence)


#: Asked in this order.
CHAIN: tuple[Callable[[Question], Demand | None], ...] = (_spec, _data)


def _differences(expert: Expert, current: ExpertRevision, root: ExpertRevision) -> Iterator[str]:
    """Yield the fields of the spec that ask for other weights than the current revision has."""
    had = current.spec.inputs
    if _is_another_base(expert, root.spec.inputs):
        yield f"spec.base: {_base_words(expert)} in place of {_parent_words(root.spec.inputs)}"
    asked, trained = training_input(expert).revision_identity(), had.training.revision_identity()
    if asked != trained:
        yield from [f"spec.training.{line}" for line in _changes(asked, trained)] or ["spec.training"]
    if expert.spec.seed != had.seed:
        yield f"spec.seed: {had.seed} -> {expert.spec.seed}"
    if expert.spec.run_id != had.run_id:
        yield f"spec.runID: {had.run_id!r} -> {expert.spec.run_id!r}"


def _is_another_base(expert: Expert, inputs: Inputs) -> bool:
    base = expert.spec.base
    if inputs.parent is None:
        return inputs.preset != base.preset
    if base.digest is not None:
        return inputs.parent.digest != base.digest
    ancestor = expert_of(inputs.parent.revision)
    # A parent of the Expert's own means that the beginning of the chain was deleted: nothing to compare.
    return ancestor not in (base.expert, expert.metadata.name)


def _base_words(expert: Expert) -> str:
    base = expert.spec.base
    return base.expert or (f"preset {base.preset}" if base.preset else f"{base.store}/{base.path}")


def _parent_words(inputs: Inputs) -> str:
    return inputs.parent.revision if inputs.parent is not None else f"preset {inputs.preset}"


def _changes(asked: Mapping[str, Any], trained: Mapping[str, Any]) -> Iterator[str]:
    """Yield each field that differs, with both values; a field that is left out has the value of the table."""
    new, old, left_out = dict(_flat(asked)), dict(_flat(trained)), dict(_flat(OF_REVISIONS))
    for name in sorted(new.keys() | old.keys()):
        before, after = old.get(name, left_out.get(name)), new.get(name, left_out.get(name))
        if before != after:
            yield f"{name}: {before} -> {after}"


def _flat(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        path = f"{prefix}{to_camel(name)}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}.")
        else:
            yield path, value
