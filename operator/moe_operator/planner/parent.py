"""Which artefact a revision starts from, by cause.

SpecChanged   the pinned base, or the preset: weights are a function of the spec, not of its history
NewData       the current revision: what was learnt is kept
"""

from collections.abc import Callable, Mapping

from moe_formats.job_config import ArtefactRef
from moe_formats.resources.expert_revision import Cause, ExpertRevision
from moe_operator.planner.lineage import parent_ref

Choice = Callable[[ArtefactRef | None, ExpertRevision | None], ArtefactRef | None]


def _pinned_base(base: ArtefactRef | None, current: ExpertRevision | None) -> ArtefactRef | None:
    return base


def _current_revision(base: ArtefactRef | None, current: ExpertRevision | None) -> ArtefactRef | None:
    return parent_ref(current) if current is not None else base


PARENT_BY_CAUSE: Mapping[Cause, Choice] = {
    Cause.SPEC_CHANGED: _pinned_base,
    Cause.NEW_DATA: _current_revision,
}


def parent_for(
    cause: Cause, *, base: ArtefactRef | None, current: ExpertRevision | None
) -> ArtefactRef | None:
    """Return the parent; None means a preset."""
    return PARENT_BY_CAUSE[cause](base, current)
