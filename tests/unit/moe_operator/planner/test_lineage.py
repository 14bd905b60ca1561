"""What is recorded of what a revision and its parents saw."""

from typing import Literal

import pytest
from world import World

from moe_formats.job_config import ArtefactRef, SnapshotRef
from moe_formats.resources.expert_revision import ExpertRevision
from moe_operator.planner.lineage import MAX_ANCESTRY, parent_ref


def snapshots(count: int) -> list[SnapshotRef]:
    return [SnapshotRef(path=f"data/{number}", digest=f"sha256:{number:064}") for number in range(count)]


def with_parent_that_saw(
    revision: ExpertRevision, ancestry: list[SnapshotRef], contamination: Literal["Unknown"] | None = None
) -> ExpertRevision:
    parent = ArtefactRef(
        revision="before",
        path="a1",
        digest="sha256:" + 64 * "f",
        ancestry=ancestry,
        contamination=contamination,
    )
    inputs = revision.spec.inputs.model_copy(update={"parent": parent, "preset": None})
    return revision.model_copy(update={"spec": revision.spec.model_copy(update={"inputs": inputs})})


@pytest.mark.parametrize(("before", "contamination"), [(MAX_ANCESTRY - 1, None), (MAX_ANCESTRY, "Unknown")])
def test_of_more_snapshots_than_are_recorded_the_rest_is_unknown(
    served: World, before: int, contamination: str | None
) -> None:
    revision = with_parent_that_saw(served.revision("code-1"), snapshots(before))
    found = parent_ref(revision)
    assert len(found.ancestry) == MAX_ANCESTRY
    assert found.ancestry[-1] == revision.spec.inputs.data
    assert found.contamination == contamination


def test_what_is_unknown_of_a_parent_is_unknown_of_its_children(served: World) -> None:
    revision = with_parent_that_saw(served.revision("code-1"), snapshots(2), contamination="Unknown")
    assert parent_ref(revision).contamination == "Unknown"
