"""Reading revisions: which are promoted, which one is current, what their parents saw."""

from collections.abc import Iterable, Mapping

from moe_formats.job_config import ArtefactRef, SnapshotRef
from moe_formats.resources.expert_revision import ExpertRevision
from moe_operator.state import ExpertState

#: Longest ancestry that is recorded: an object of the API server has to hold it.
MAX_ANCESTRY = 64


def is_promoted(revision: ExpertRevision) -> bool:
    """Say whether the gate let a revision pass."""
    verdict = revision.status.verdict
    return verdict is not None and verdict.outcome == "Promoted" and revision.status.artefact is not None


def by_name(revisions: Iterable[ExpertRevision]) -> dict[str, ExpertRevision]:
    """Return revisions by name."""
    return {revision.metadata.name: revision for revision in revisions}


def current_of(state: ExpertState) -> ExpertRevision | None:
    """Return the revision that the Expert's status calls current, if it is there and promoted.

    Where the status knows none, or its object was deleted, the newest promoted revision stands in.
    """
    named = by_name(state.revisions).get(state.expert.status.current_revision or "")
    if named is not None and is_promoted(named):
        return named
    promoted = [revision for revision in state.revisions if is_promoted(revision)]
    return promoted[-1] if promoted else None


def parent_ref(revision: ExpertRevision) -> ArtefactRef:
    """Return a revision with an artefact as a parent, with all that is known of what it and its parents saw."""
    artefact, parents = revision.status.artefact, revision.spec.inputs.parents
    if artefact is None:
        raise ValueError(f"{revision.metadata.name} has no artefact to be a parent with")
    seen = _snapshots(revision)
    forgotten = len(seen) > MAX_ANCESTRY  # what was in those can no longer be looked up
    unknown = forgotten or any(parent.contamination is not None for parent in parents)
    return ArtefactRef(
        revision=revision.metadata.name,
        path=artefact.path,
        digest=artefact.digest,
        ancestry=seen[-MAX_ANCESTRY:],
        contamination="Unknown" if unknown else None,
    )


def _snapshots(revision: ExpertRevision) -> list[SnapshotRef]:
    """Return every recorded snapshot that a revision and its parents were trained on, oldest first."""
    inputs = revision.spec.inputs
    earlier = [item for parent in inputs.parents for item in parent.ancestry]
    seen: dict[str, SnapshotRef] = {item.digest: item for item in [*earlier, inputs.data]}
    return list(seen.values())


def root_of(revision: ExpertRevision, revisions: Mapping[str, ExpertRevision]) -> ExpertRevision:
    """Return the revision of the same Expert at the start of a chain of refreshes.

    Its parent is the base, or a preset. A chain whose beginning was deleted ends at its oldest link.
    """
    while True:
        parent = revision.spec.inputs.parent
        before = revisions.get(parent.revision) if parent else None
        if before is None or before.spec.expert_uid != revision.spec.expert_uid:
            return revision
        revision = before
