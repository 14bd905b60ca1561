"""Decides whether another revision is demanded, why, and what it would be made from.

The links of a chain are asked in order, and the first demand counts:

    proposal  A proposal that is being carried out: to train on new data, to specialise again, or to follow the base.
              The new revision starts from the revision that the proposal names, and is demanded until the gate decides.
    spec    The Expert has no promoted revision yet, or its spec asks for other weights than the current revision has.
            The new revision starts from the pinned base or the preset, so that weights depend on the spec alone and
            not on its history.
    data    The newest snapshot is not the one that the current revision was trained on, and the pool trains on new data
            by itself. The new revision starts from the current one, so that what was learnt is kept.

A demand becomes inputs, and inputs identify a revision. If a revision has the demanded inputs already, none is created:

    it was promoted before      it becomes the current revision again
    it was refused              it is not trained again; the gate is asked again, since targets or promotion may change
    it failed                   nothing is done
    it is being made            making it continues
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic.alias_generators import to_camel

from moe_formats.job_config import ArtefactRef, Rehearsal, SnapshotRef
from moe_formats.left_out import OF_REVISIONS
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_proposal import ExpertProposal
from moe_formats.resources.expert_revision import (
    Cause,
    ExpertRevision,
    ExpertRevisionSpec,
    HoldoutInput,
    Inputs,
)
from moe_formats.resources.expert_status import SnapshotStatus
from moe_formats.resources.lifecycle import Act
from moe_operator.planner.base import BaseDecision
from moe_operator.planner.identity import inputs_digest, suite_digest, training_input
from moe_operator.planner.lineage import by_name, current_of, is_promoted, parent_ref, root_of
from moe_operator.planner.names import expert_of
from moe_operator.planner.respecialize import rehearsal_of
from moe_operator.planner.suite import draw_suite
from moe_operator.planner.withdrawal import running
from moe_operator.state import ExpertState


@dataclass(frozen=True)
class Demand:
    """A request for another revision, from one link of the chain."""

    cause: Cause
    #: The artefacts that it starts from. The first is the one that is trained further; empty for a preset.
    parents: tuple[ArtefactRef, ...]
    #: Why it is demanded, as a sentence for people: which fields or which data differ.
    evidence: str
    #: What is rehearsed, and how long it trains, where it specialises again after drift.
    rehearsal: Rehearsal | None = None


@dataclass(frozen=True)
class Wanted:
    """The current revision of an Expert, and the revision that is demanded if that is another one."""

    #: The current revision; None before one is promoted.
    current: ExpertRevision | None
    #: The revision that has the demanded inputs, if it exists and is not the current one.
    revision: ExpertRevision | None = None
    #: What is demanded, and the inputs of the revision to create, while no revision has these inputs.
    demand: Demand | None = None
    inputs: Inputs | None = None

    @property
    def undecided(self) -> bool:
        """Whether a revision is being made, or is about to be created."""
        if self.revision is not None:
            return self.revision.status.verdict is None
        return self.inputs is not None


@dataclass(frozen=True)
class Question:
    """What the links of the chain may look at."""

    expert: Expert
    snapshot: SnapshotStatus
    base: BaseDecision
    current: ExpertRevision | None
    #: The first revision in the current revision's line of refreshes.
    root: ExpertRevision | None
    #: Whether new data is trained on without a proposal.
    refreshes: bool = True
    #: The proposals that are being carried out, oldest first.
    running: tuple[ExpertProposal, ...] = ()
    #: The Expert's revisions and those of its base Expert, by name.
    revisions: Mapping[str, ExpertRevision] = field(default_factory=dict)
    base_revisions: Mapping[str, ExpertRevision] = field(default_factory=dict)


def decide_wanted(state: ExpertState, base: BaseDecision, snapshot: SnapshotStatus | None) -> Wanted:
    """Return the current revision, and the revision that is demanded if that is another one.

    ``snapshot`` is None while no snapshot is what the spec asks for; nothing is demanded then.
    """
    current = current_of(state)
    if snapshot is None or not base.ready:
        return Wanted(current)
    root = root_of(current, by_name(state.revisions)) if current is not None else None
    pool = state.pool
    question = Question(
        state.expert,
        snapshot,
        base,
        current,
        root,
        refreshes=pool is None or pool.spec.lifecycle.mode(Act.REFRESH) == "Auto",
        running=tuple(running(state)),
        revisions=by_name(state.revisions),
        base_revisions=state.base_revisions,
    )
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
    """Return the inputs of the revision that a demand asks for."""
    return Inputs(
        parent=demand.parents[0] if demand.parents else None,
        merged_with=list(demand.parents[1:]),
        preset=base.preset if not demand.parents else None,
        data=SnapshotRef(path=snapshot.path, digest=snapshot.digest),
        rehearsal=demand.rehearsal,
        training=training_input(state.expert),
        seed=state.expert.spec.seed,
        run_id=state.expert.spec.run_id,
    )


def new_revision(
    state: ExpertState, demand: Demand, inputs: Inputs, snapshot: SnapshotStatus
) -> ExpertRevisionSpec:
    """Return the spec of the revision to create. Its suite is drawn now and never changes."""
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
        train_bytes=snapshot.train_bytes,
        suite=suite,
        suite_digest=suite_digest(suite),
    )


def next_number(state: ExpertState) -> int:
    """Return the number of the next revision: higher than that of any revision that the Expert has had."""
    return max([state.expert.status.revisions, *(item.spec.number for item in state.revisions)]) + 1


#: Causes of the revisions that proposals demand. A RollBack demands none.
_CAUSES = {Act.REFRESH: Cause.NEW_DATA, Act.RESPECIALIZE: Cause.DRIFT, Act.REBASE: Cause.REBASE}


def _proposal(question: Question) -> Demand | None:
    for proposal in question.running:
        act, evidence = proposal.spec.act, proposal.status.evidence
        if proposal.status.phase != "Running" or evidence is None or act not in _CAUSES:
            continue
        known = question.base_revisions if act is Act.REBASE else question.revisions
        parent = known.get(evidence.parent)
        if parent is None or parent.status.artefact is None:
            continue
        return Demand(
            _CAUSES[act],
            (parent_ref(parent),),
            f"proposal {proposal.metadata.name}: {evidence.summary}",
            rehearsal=_rehearsal(question, parent, evidence.windows) if act is Act.RESPECIALIZE else None,
        )
    return None


def _rehearsal(question: Question, parent: ExpertRevision, windows: list[str]) -> Rehearsal | None:
    return rehearsal_of(parent, question.revisions, question.snapshot.digest, windows)


def _spec(question: Question) -> Demand | None:
    parents = (question.base.parent,) if question.base.parent is not None else ()
    if question.current is None or question.root is None:
        return Demand(Cause.SPEC_CHANGED, parents, "the Expert has no promoted revision yet")
    differences = list(_differences(question.expert, question.current, question.root))
    return Demand(Cause.SPEC_CHANGED, parents, "; ".join(differences)) if differences else None


def _data(question: Question) -> Demand | None:
    current = question.current
    same = current is None or current.spec.inputs.data.digest == question.snapshot.digest
    if current is None or same or not question.refreshes:
        return None
    evidence = (
        f"the newest snapshot is {question.snapshot.digest[:19]}; the current revision was trained on "
        f"{current.spec.inputs.data.digest[:19]}"
    )
    return Demand(Cause.NEW_DATA, (parent_ref(current),), evidence)


#: The links of the chain, in the order in which they are asked.
CHAIN: tuple[Callable[[Question], Demand | None], ...] = (_proposal, _spec, _data)


def _differences(expert: Expert, current: ExpertRevision, root: ExpertRevision) -> Iterator[str]:
    """Yield, in words, each field of the spec that asks for other weights than the current revision has."""
    had = current.spec.inputs
    if _is_another_base(expert, root.spec.inputs):
        yield f"spec.base: {expert.spec.base} instead of {_parent_words(root.spec.inputs)}"
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
    # If the parent is a revision of the Expert itself, the beginning of the line was deleted: nothing can be compared.
    return ancestor not in (base.expert, expert.metadata.name)


def _parent_words(inputs: Inputs) -> str:
    return inputs.parent.revision if inputs.parent is not None else f"preset {inputs.preset}"


def _changes(asked: Mapping[str, Any], trained: Mapping[str, Any]) -> Iterator[str]:
    """Yield each field that differs, with both values. A field that an identity leaves out has the value in OF_REVISIONS."""
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
