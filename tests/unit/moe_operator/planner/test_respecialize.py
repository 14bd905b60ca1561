"""What a revision of cause Drift rehearses, and how long it trains."""

from collections.abc import Sequence

import pytest
from world import World

from moe_formats.format import digest_of
from moe_formats.job_config import ArtefactRef, Rehearsal, SnapshotRef
from moe_formats.resources.expert_revision import Cause, ExpertRevision
from moe_operator.planner.base import decide_base
from moe_operator.planner.demand import Demand, inputs_of
from moe_operator.planner.identity import inputs_digest
from moe_operator.planner.job_configs import train_job
from moe_operator.planner.lineage import by_name, parent_ref
from moe_operator.planner.respecialize import rehearsal_of


def ref(number: int) -> SnapshotRef:
    return SnapshotRef(path=f"snapshots/{number}", digest=digest_of(f"snapshot {number}"))


def window(number: int) -> str:
    return digest_of(f"window {number}")


def revision(
    first: ExpertRevision, number: int, snapshot: int, *, seen: int, steps: int = 100
) -> ExpertRevision:
    """Return revision ``number``, whose newest holdout is window ``seen``; its parent is the one before."""
    holdout = first.spec.anchor.model_copy(update={"digest": window(seen)})
    parent = ArtefactRef(revision=f"code-{number - 1}", path="a1", digest=digest_of("parent"))
    inputs = first.spec.inputs.model_copy(update={"data": ref(snapshot), "parent": parent})
    spec = first.spec.model_copy(
        update={"inputs": inputs, "newest": holdout if seen else None, "number": number}
    )
    assert first.status.artefact is not None
    status = first.status.model_copy(
        update={"artefact": first.status.artefact.model_copy(update={"steps": steps})}
    )
    metadata = first.metadata.model_copy(update={"name": f"code-{number}"})
    return first.model_copy(update={"spec": spec, "status": status, "metadata": metadata})


#: The line as (snapshot, newest window) of each revision, the snapshot to train on, the windows with drift, and the
#: snapshots that are rehearsed and known.
CASES: dict[str, tuple[Sequence[tuple[int, int]], int, set[int], tuple[int, int] | None]] = {
    "the current revision is the first": ([(1, 0)], 5, {1, 2, 3, 4}, (1, 1)),
    "it was refreshed before the drift": ([(1, 0), (2, 1), (3, 2)], 7, {3, 4, 5, 6}, (1, 3)),
    "it was refreshed during the drift too": ([(1, 0), (2, 1), (4, 3), (5, 4)], 6, {2, 3, 4, 5}, (1, 2)),
    "it was trained on the newest snapshot already": ([(1, 0), (3, 2), (5, 4)], 5, {1, 2, 3, 4}, (1, 1)),
    "its line began during the drift": ([(4, 3), (5, 4)], 6, {2, 3, 4, 5}, (4, 4)),
    "two of the line had one snapshot": ([(1, 0), (2, 1), (2, 1)], 6, {2, 3, 4, 5}, (1, 2)),
    "it was trained on nothing else": ([(5, 4)], 5, {1, 2, 3, 4}, None),
}


@pytest.mark.parametrize("case", CASES)
def test_text_from_before_the_drift_is_known_and_the_first_is_rehearsed(served: World, case: str) -> None:
    line, snapshot, drifted, expected = CASES[case]
    first = served.revision("code-1")
    revisions = [revision(first, n, *made[:1], seen=made[1]) for n, made in enumerate(line, start=1)]
    found = rehearsal_of(
        revisions[-1], by_name(revisions), ref(snapshot).digest, {window(number) for number in drifted}
    )
    if expected is None:
        assert found is None
    else:
        assert found == Rehearsal(
            share=0.25,
            rehearsed=ref(expected[0]),
            known=ref(expected[1]),
            max_steps=33,
            max_epochs=4,
            rate_share=0.3,
        )


@pytest.mark.parametrize(("steps", "expected"), [(600, 200), (100, 33), (3, 1), (2, 1), (1, 1)])
def test_it_takes_a_third_of_the_first_trainings_steps(served: World, steps: int, expected: int) -> None:
    first = served.revision("code-1")
    line = [revision(first, 1, 1, seen=0, steps=steps), revision(first, 2, 2, seen=1, steps=9000)]
    found = rehearsal_of(line[-1], by_name(line), ref(3).digest, {window(2)})
    assert found is not None and found.max_steps == expected


def test_a_rehearsal_is_part_of_the_identity_and_reaches_the_job(served: World) -> None:
    state = served.expert_state("code")
    current, snapshot = served.revision("code-1"), state.expert.status.snapshot
    assert snapshot is not None and state.pool is not None
    rehearsal = Rehearsal(
        share=0.25, rehearsed=ref(1), known=ref(2), max_steps=33, max_epochs=4, rate_share=0.3
    )
    base = parent_ref(current)

    def digest(rehearsal: Rehearsal | None) -> str:
        demand = Demand(Cause.NEW_DATA, (base,), "drift", rehearsal)
        return inputs_digest(inputs_of(state, demand, served_base, snapshot))

    served_base = decide_base(state)
    moved = ref(1).model_copy(update={"path": "elsewhere"})
    assert digest(rehearsal) == digest(rehearsal.model_copy(update={"rehearsed": moved}))
    others = [
        None,
        rehearsal.model_copy(update={"share": 0.5}),
        rehearsal.model_copy(update={"rehearsed": ref(3)}),
        rehearsal.model_copy(update={"known": ref(3)}),
        rehearsal.model_copy(update={"max_steps": 34}),
        rehearsal.model_copy(update={"max_epochs": 2.0}),
        rehearsal.model_copy(update={"rate_share": 1.0}),
    ]
    assert len({digest(rehearsal), *(digest(other) for other in others)}) == len(others) + 1
    inputs = current.spec.inputs.model_copy(update={"rehearsal": rehearsal})
    made = current.model_copy(update={"spec": current.spec.model_copy(update={"inputs": inputs})})
    assert train_job(state.expert, state.pool, made, 1, base=None).rehearsal == rehearsal
    assert '"rehearsal"' not in train_job(state.expert, state.pool, current, 1, base=None).to_json()
