"""Reads revisions: which are promoted, which one is current, and what they and their parents were trained on."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from moe_formats.job_config import ArtefactRef, SnapshotRef
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_revision import ExpertRevision

#: Largest number of snapshots that are recorded as ancestry: they have to fit into an object of the API server.
MAX_ANCESTRY = 64


class WithRevisions(Protocol):
    """What knows an Expert and its revisions, oldest first."""

    @property
    def expert(self) -> Expert:
        """The Expert."""
        ...

    @property
    def revisions(self) -> tuple[ExpertRevision, ...]:
        """Its revisions."""
        ...

    @property
    def pointer(self) -> str | None:
        """Name of the revision that is current, if it is promoted."""
        ...


def is_promoted(revision: ExpertRevision) -> bool:
    """Return whether the gate promoted a revision."""
    verdict = revision.status.verdict
    return verdict is not None and verdict.outcome == "Promoted" and revision.status.artefact is not None


def by_name(revisions: Iterable[ExpertRevision]) -> dict[str, ExpertRevision]:
    """Return revisions by name."""
    return {revision.metadata.name: revision for revision in revisions}


def current_of(state: WithRevisions) -> ExpertRevision | None:
    """Return the current revision of an Expert, or None if no revision is promoted.

    It is the one that the Expert's status names, or that a proposal moves it to. If that names none, or if that revision
    was deleted or is no longer promoted, it is the newest promoted revision.
    """
    named = by_name(state.revisions).get(state.pointer or "")
    if named is not None and is_promoted(named):
        return named
    promoted = [revision for revision in state.revisions if is_promoted(revision)]
    return promoted[-1] if promoted else None


def parent_ref(revision: ExpertRevision) -> ArtefactRef:
    """Return the reference by which a revision becomes a parent, with all that is known of what it was trained on.

    Raises ValueError if the revision has no artefact.
    """
    artefact, parents = revision.status.artefact, revision.spec.inputs.parents
    if artefact is None:
        raise ValueError(f"revision {revision.metadata.name} has no artefact, so it cannot be a parent")
    seen = _snapshots(revision)
    forgotten = (
        len(seen) > MAX_ANCESTRY
    )  # The oldest are not recorded, so their text can no longer be looked up.
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


def line_of(revision: ExpertRevision, revisions: Mapping[str, ExpertRevision]) -> Iterator[ExpertRevision]:
    """Yield a revision, its parent, and so on, as long as they are of the same Expert and exist: a line of refreshes."""
    found: ExpertRevision | None = revision
    while found is not None and found.spec.expert_uid == revision.spec.expert_uid:
        yield found
        parent = found.spec.inputs.parent
        found = revisions.get(parent.revision) if parent is not None else None


def root_of(revision: ExpertRevision, revisions: Mapping[str, ExpertRevision]) -> ExpertRevision:
    """Return the first revision in a line of refreshes: the one whose parent is the base, or that has a preset.

    If the beginning of the line was deleted, this is the oldest revision that is left of it.
    """
    *_, root = line_of(revision, revisions)
    return root
