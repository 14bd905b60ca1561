"""What asks for another revision, what it would start from, and how that is said."""

from dataclasses import replace

import pytest
from world import World, digest

from moe_formats.job_config import ArtefactRef
from moe_formats.resources.expert_revision import Cause
from moe_operator.planner.base import decide_base, pinned_base
from moe_operator.planner.demand import Demand, decide_wanted, inputs_of
from moe_operator.planner.identity import inputs_digest
from moe_operator.planner.lineage import parent_ref


@pytest.fixture
def world(served: World) -> World:
    return served.fork()


def test_the_first_revision_says_that_there_was_none(world: World) -> None:
    spec = world.revision("code-1").spec
    assert (spec.cause, spec.cause_message) == (
        Cause.SPEC_CHANGED,
        "the Expert has no promoted revision yet",
    )


def test_a_changed_spec_names_every_field_with_both_values(world: World) -> None:
    training = {"learningRate": 0.01, "balancing": {"bias": "Sign"}}
    world.change("code", training=training, seed=7, runID="again")
    world.settle()
    assert world.revision("code-2").spec.cause_message == (
        "spec.training.balancing.bias: None -> Sign; spec.training.learningRate: 0.001 -> 0.01; "
        "spec.seed: 0 -> 7; spec.runID: '' -> 'again'"
    )
    told = [event["message"] for event in world.all("Event") if event["reason"] == "RevisionCreated"]
    assert any(
        "code-2 was created; cause: SpecChanged (spec.training.balancing.bias" in line for line in told
    )


def test_new_data_name_both_digests(world: World) -> None:
    old = world.status("code").snapshot.digest[:19]
    world.change("code", data={**world.get("Expert", "code")["spec"]["data"], "refresh": "hourly"})
    world.settle()
    world.data["code"] = 1
    world.tick(3600)
    world.settle()
    spec = world.revision("code-2").spec
    assert spec.cause is Cause.NEW_DATA
    new = spec.inputs.data.digest[:19]
    assert spec.cause_message == f"the newest snapshot is {new}; the current revision was trained on {old}"


def test_a_revision_may_be_made_from_several_parents(world: World) -> None:
    state = world.expert_state("code")
    snapshot = state.expert.status.snapshot
    assert snapshot is not None
    own = parent_ref(world.revision("code-1"))
    other = ArtefactRef(revision="law-1", path="p", digest=digest("law"), contamination="Unknown")
    base = decide_base(state)
    merged = inputs_of(state, Demand(Cause.NEW_DATA, (own, other), "two twins"), base, snapshot)
    alone = inputs_of(state, Demand(Cause.NEW_DATA, (own,), "one"), base, snapshot)
    assert [parent.revision for parent in merged.parents] == ["code-1", "law-1"]
    assert inputs_digest(merged) != inputs_digest(alone)


def test_following_a_newer_revision_of_the_base_is_a_demand_like_any_other(world: World) -> None:
    """Nothing demands it by itself; once such a revision is promoted, it is what the Expert branches from."""
    newer = parent_ref(world.revision("general-1")).model_copy(
        update={"revision": "general-2", "digest": digest("general-2")}
    )
    state = world.expert_state("code")
    snapshot = state.expert.status.snapshot
    assert snapshot is not None
    demand = Demand(Cause.SPEC_CHANGED, (newer,), "general-2 is the base's newest revision")
    inputs = inputs_of(state, demand, decide_base(state), snapshot)
    old = world.revision("code-1")
    spec = old.spec.model_copy(
        update={"number": 2, "inputs": inputs, "inputs_digest": inputs_digest(inputs), "cause": demand.cause}
    )
    metadata = old.metadata.model_copy(update={"name": "code-2"})
    rebased = old.model_copy(update={"metadata": metadata, "spec": spec})
    status = state.expert.status.model_copy(update={"current_revision": "code-2"})
    after = replace(
        state,
        expert=state.expert.model_copy(update={"status": status}),
        revisions=(*state.revisions, rebased),
    )
    assert pinned_base(after) == newer
    wanted = decide_wanted(after, decide_base(after), snapshot)
    assert (wanted.current, wanted.revision, wanted.demand) == (rebased, None, None)


def test_a_refused_attempt_at_a_newer_base_moves_nothing(world: World) -> None:
    state = world.expert_state("code")
    old = world.revision("code-1")
    newer = parent_ref(world.revision("general-1")).model_copy(update={"revision": "general-2"})
    spec = old.spec.model_copy(update={"inputs": old.spec.inputs.model_copy(update={"parent": newer})})
    metadata = old.metadata.model_copy(update={"name": "code-2"})
    refused = old.model_copy(
        update={"metadata": metadata, "spec": spec, "status": old.status.model_copy(update={"verdict": None})}
    )
    after = replace(state, revisions=(*state.revisions, refused))
    pinned = pinned_base(after)
    assert pinned is not None
    assert pinned.revision == "general-1"
