"""Why a revision would be made: an ordered chain over the differences between spec and current revision."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_revision import Cause, ExpertRevision
from moe_operator.planner.identity import training_input
from moe_operator.planner.lineage import root_of
from moe_operator.planner.names import expert_of


@dataclass(frozen=True)
class Difference:
    """What an Expert asks for, its current revision, and the revision its chain of refreshes began with."""

    expert: Expert
    data_digest: str
    current: ExpertRevision
    root: ExpertRevision


def cause_of(
    expert: Expert,
    *,
    data_digest: str,
    current: ExpertRevision | None,
    revisions: Mapping[str, ExpertRevision],
) -> Cause | None:
    """Return the cause of the revision that is wanted, or None while the current one is what is asked for."""
    if current is None:
        return Cause.SPEC_CHANGED
    difference = Difference(expert, data_digest, current, root_of(current, revisions))
    return next((cause for differs, cause in CHAIN if differs(difference)), None)


def _base(difference: Difference) -> bool:
    base, inputs = difference.expert.spec.base, difference.root.spec.inputs
    if inputs.parent is None:
        return inputs.preset != base.preset
    if base.digest is not None:
        return inputs.parent.digest != base.digest
    ancestor = expert_of(inputs.parent.revision)
    # A parent of the Expert's own means that the beginning of the chain was deleted: nothing to compare.
    return ancestor not in (base.expert, difference.expert.metadata.name)


def _training(difference: Difference) -> bool:
    asked = training_input(difference.expert).revision_identity()
    return asked != difference.current.spec.inputs.training.revision_identity()


def _seed(difference: Difference) -> bool:
    return difference.expert.spec.seed != difference.current.spec.inputs.seed


def _run_id(difference: Difference) -> bool:
    return difference.expert.spec.run_id != difference.current.spec.inputs.run_id


def _data(difference: Difference) -> bool:
    return difference.data_digest != difference.current.spec.inputs.data.digest


#: The first that applies names the cause.
CHAIN: tuple[tuple[Callable[[Difference], bool], Cause], ...] = (
    (_base, Cause.SPEC_CHANGED),
    (_training, Cause.SPEC_CHANGED),
    (_seed, Cause.SPEC_CHANGED),
    (_run_id, Cause.SPEC_CHANGED),
    (_data, Cause.NEW_DATA),
)
