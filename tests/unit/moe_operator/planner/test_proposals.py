"""What is proposed, approved, carried out, verified and undone, in a world where Jobs succeed unless told otherwise."""

from datetime import timedelta
from typing import Any

import pytest
from world import POOL, World

from moe_formats.resources.lifecycle import Act
from moe_formats.resources.reasons import Reason


@pytest.fixture(scope="module")
def settled() -> World:
    world = World()
    world.pool()
    world.expert("general")
    world.expert("code")
    world.settle()
    return world


@pytest.fixture(scope="module")
def changed(settled: World) -> World:
    """A pool whose Expert code has two promoted revisions."""
    world = settled.fork()
    world.change("code", seed=5)
    world.settle()
    return world


@pytest.fixture
def twice(changed: World) -> World:
    return changed.fork()


@pytest.fixture
def served(settled: World) -> World:
    return settled.fork()


def approved(world: World, name: str) -> None:
    world.settle()
    world.approve(name)
    world.settle()


def new_data(world: World, mode: str = "Propose") -> str:
    """Let new data come to code in a pool that does not train on it by itself, and return the proposal's name."""
    world.pool(lifecycle={"overrides": {"refresh": mode}})
    world.data["code"] = 1
    world.change("code", data={**world.get("Expert", "code")["spec"]["data"], "refresh": "hourly"})
    world.now += timedelta(hours=1)
    world.settle()
    return next(iter(world.proposals()), "")


# -- roll back, as a person proposes it


def test_a_proposal_waits_for_a_person_and_changes_nothing(twice: World) -> None:
    twice.propose("back", "code", "RollBack", revision="code-1")
    twice.settle()
    status = twice.proposal("back").status
    assert (status.phase, status.reason) == ("Open", Reason.AWAITING_APPROVAL)
    assert (status.evidence.current, status.evidence.parent) == ("code-2", "code-1")
    assert "moectl approve back" in _ready(twice, "back")[2]
    assert twice.status("code").serving.revision == "code-2"
    assert twice.status("code").proposal == "back"
    assert twice.reasons("code").count(Reason.PROPOSED) == 1


def test_what_is_written_into_the_status_by_hand_is_put_right(twice: World) -> None:
    twice.propose("back", "code", "RollBack", revision="code-1")
    twice.settle()
    evidence = twice.proposal("back").status.evidence
    forged = {"digest": "sha256:" + 64 * "0", "current": "code-1", "summary": "approve me"}
    twice.edit("ExpertProposal", "back", {"status": {"evidence": forged, "phase": "Approved"}})
    twice.approve("back", evidence=forged["digest"])
    twice.settle()
    status = twice.proposal("back").status
    assert (status.phase, status.reason) == ("Open", Reason.APPROVAL_VOID)
    assert (status.evidence.digest, status.evidence.summary) == (evidence.digest, evidence.summary)
    assert twice.status("code").current_revision == "code-2"


def test_an_approved_roll_back_moves_the_pointer_and_trains_nothing(twice: World) -> None:
    before = list(twice.created)
    twice.propose("back", "code", "RollBack", revision="code-1")
    approved(twice, "back")
    assert twice.status("code").current_revision == "code-1"
    assert twice.status("code").serving.revision == "code-1"
    verdict = twice.revision("code-2").status.verdict
    assert verdict is not None
    assert (verdict.outcome, verdict.clause, verdict.proposal) == ("Withdrawn", "proposal", "back")
    status = twice.proposal("back").status
    assert (status.phase, status.revision, status.approved_by) == ("Done", "code-1", "Person")
    assert [name for name in twice.created[len(before) :] if "distill" not in name] == []
    assert twice.get("Expert", "code")["spec"].get("revision") is None


def test_what_was_rolled_back_is_not_promoted_again_by_itself(twice: World) -> None:
    twice.propose("back", "code", "RollBack", revision="code-1")
    approved(twice, "back")
    twice.delete("ExpertProposal", "back")
    twice.now += timedelta(days=8)
    twice.settle()
    assert twice.status("code").current_revision == "code-1"
    assert twice.revisions("code") == ["code-1", "code-2"]


def test_a_roll_back_that_is_undone_promotes_the_revision_again(twice: World) -> None:
    twice.propose("back", "code", "RollBack", revision="code-1")
    approved(twice, "back")
    twice.undo("back")
    twice.settle()
    assert twice.status("code").serving.revision == "code-2"
    assert twice.revision("code-2").status.phase == "Promoted"
    assert twice.proposals()["back"] == "Undone"


def test_a_roll_back_goes_over_every_revision_since(twice: World) -> None:
    twice.change("code", seed=6)
    twice.settle()
    twice.propose("back", "code", "RollBack", revision="code-1")
    approved(twice, "back")
    assert twice.status("code").current_revision == "code-1"
    twice.undo("back")
    twice.settle()
    assert twice.status("code").current_revision == "code-3"
    assert twice.revision("code-2").status.phase == "Promoted"


@pytest.mark.parametrize("revision", ["code-2", "code-9", "general-1"])
def test_a_roll_back_to_what_is_no_earlier_promoted_revision_says_which_are(
    twice: World, revision: str
) -> None:
    twice.propose("back", "code", "RollBack", revision=revision)
    twice.settle()
    assert _ready(twice, "back")[1] == Reason.NOT_POSSIBLE
    assert "promoted are code-1" in _ready(twice, "back")[2]
    assert twice.proposals()["back"] == "Open"


def test_an_undo_is_refused_once_the_expert_has_changed(twice: World) -> None:
    twice.propose("back", "code", "RollBack", revision="code-1")
    approved(twice, "back")
    twice.change("code", seed=7)
    twice.settle()
    assert twice.status("code").current_revision == "code-3"
    twice.undo("back")
    twice.settle()
    status = twice.proposal("back").status
    assert (status.phase, status.reason) == ("Done", Reason.UNDO_REFUSED)
    assert twice.status("code").current_revision == "code-3"


# -- decisions


def test_an_approval_that_quotes_other_evidence_is_void(twice: World) -> None:
    twice.propose("back", "code", "RollBack", revision="code-1")
    twice.settle()
    old = twice.proposal("back").status.evidence.digest
    twice.change("code", seed=6)
    twice.settle()
    twice.approve("back", evidence=old)
    twice.settle()
    status = twice.proposal("back").status
    assert (status.phase, status.reason) == ("Open", Reason.APPROVAL_VOID)
    assert status.evidence.current == "code-3"
    assert twice.status("code").current_revision == "code-3"
    approved(twice, "back")
    assert twice.status("code").current_revision == "code-1"


def test_an_approval_twice_is_one(twice: World) -> None:
    twice.propose("back", "code", "RollBack", revision="code-1")
    approved(twice, "back")
    before = twice.writes
    twice.approve("back")
    twice.settle()
    assert twice.proposals()["back"] == "Done"
    assert twice.writes - before <= 2  # the status, for its generation


def test_a_rejected_proposal_stays_rejected(twice: World) -> None:
    twice.propose("back", "code", "RollBack", revision="code-1")
    twice.settle()
    twice.approve("back", "Rejected")
    twice.settle()
    twice.approve("back")
    twice.settle()
    assert twice.proposals()["back"] == "Rejected"
    assert twice.status("code").current_revision == "code-2"


@pytest.mark.parametrize("expires", [None, "2026-11-22T00:00:00Z"])
def test_a_proposal_expires(twice: World, expires: str | None) -> None:
    spec: dict[str, Any] = {"expires": expires} if expires else {}
    twice.propose("back", "code", "RollBack", revision="code-1", **spec)
    twice.settle()
    twice.run(until=twice.now + timedelta(days=1 if expires else 7, minutes=1))
    assert twice.proposals()["back"] == "Expired"
    twice.approve("back")
    twice.settle()
    assert twice.status("code").current_revision == "code-2"


def test_a_proposal_about_nobody_is_void_after_a_minute(twice: World) -> None:
    twice.propose("back", "poetry", "RollBack", revision="poetry-1")
    twice.settle()
    assert twice.proposals()["back"] == "Void"
    assert _ready(twice, "back")[1] == Reason.SUBJECT_GONE


def test_a_proposal_about_an_expert_that_was_made_again_is_void(twice: World) -> None:
    twice.propose("back", "code", "RollBack", revision="code-1")
    twice.settle()
    twice.delete("Expert", "code")
    twice.tick()
    twice.expert("code")
    twice.settle()
    assert twice.proposals()["back"] == "Void"


def test_nothing_starts_while_the_pool_is_paused(twice: World) -> None:
    twice.pool(paused=True)
    twice.propose("back", "code", "RollBack", revision="code-1")
    approved(twice, "back")
    assert (twice.proposals()["back"], _ready(twice, "back")[1]) == ("Approved", Reason.PAUSED)
    twice.pool()
    twice.settle()
    assert twice.proposals()["back"] == "Done"


# -- budget


def test_as_many_start_within_a_day_as_the_budget_allows(twice: World) -> None:
    twice.propose("back", "code", "RollBack", revision="code-1")
    approved(twice, "back")
    twice.change("code", seed=8)
    twice.settle()
    twice.propose("again", "code", "RollBack", revision="code-1")
    approved(twice, "again")
    assert (twice.proposals()["again"], _ready(twice, "again")[1]) == ("Approved", Reason.WAITING_FOR_BUDGET)
    assert "perExpert = 1" in _ready(twice, "again")[2]
    twice.run(until=twice.now + timedelta(hours=25))
    assert twice.proposals()["again"] == "Done"


def test_of_two_that_are_approved_at_once_one_waits_for_the_other(twice: World) -> None:
    twice.pool(lifecycle={"budget": {"perExpert": 2}})
    twice.change("code", base={"expert": "general", "follow": "Pinned"})
    twice.change("general", seed=9)
    twice.settle()
    twice.propose("base", "code", "Rebase")
    twice.propose("older", "code", "Rebase")
    twice.settle()
    twice.approve("base")
    twice.approve("older")
    twice.settle()
    assert twice.proposals() == {"base": "Done", "older": "Open"}
    assert _ready(twice, "older")[1] == Reason.NOT_POSSIBLE  # the base has been followed already


def test_a_budget_of_zero_starts_nothing_and_names_the_field(twice: World) -> None:
    twice.pool(lifecycle={"budget": {"perPool": 0}})
    twice.propose("back", "code", "RollBack", revision="code-1")
    approved(twice, "back")
    assert "spec.lifecycle.budget.perPool = 0" in _ready(twice, "back")[2]
    assert twice.status("code").current_revision == "code-2"
    twice.pool()
    twice.settle()
    assert twice.proposals()["back"] == "Done"


# -- refresh


def test_new_data_waits_for_a_person_if_the_pool_says_so(served: World) -> None:
    name = new_data(served)
    assert name.startswith("code-refresh-")
    assert served.proposal(name).status.phase == "Open"
    assert served.revisions("code") == ["code-1"]
    approved(served, name)
    assert served.revision("code-2").spec.cause == "NewData"
    assert name in served.revision("code-2").spec.cause_message
    assert served.status("code").serving.revision == "code-2"
    status = served.proposal(name).status
    assert (status.phase, status.revision) == ("Done", "code-2")
    assert status.effect.startswith("measured -11.3 %")  # e^-0.12 - 1


def test_new_data_that_is_held_back_is_only_counted(served: World) -> None:
    new_data(served, "Off")
    assert served.proposals() == {}
    (row,) = served.pool_status().lifecycle.acts
    assert (row.act, row.mode, row.held_back_total, len(row.held_back)) == (Act.REFRESH, "Off", 1, 1)
    assert served.revisions("code") == ["code-1"]


def test_a_proposal_that_the_gate_refuses_missed_its_effect(served: World) -> None:
    served.trainer.junk = {1}
    name = new_data(served)
    approved(served, name)
    status = served.proposal(name).status
    assert (status.phase, status.reason) == ("Missed", Reason.PROMOTION_REFUSED)
    assert served.status("code").serving.revision == "code-1"
    assert served.proposals() == {name: "Missed"}


def test_an_undone_refresh_goes_back_and_is_not_proposed_again(served: World) -> None:
    name = new_data(served)
    approved(served, name)
    served.undo(name)
    served.settle()
    assert served.proposals() == {name: "Undone"}
    assert served.status("code").serving.revision == "code-1"
    served.now += timedelta(hours=2)
    served.settle()
    assert served.proposals() == {name: "Undone"}
    assert served.revisions("code") == ["code-1", "code-2"]


def test_a_proposal_that_is_deleted_while_it_runs_is_given_up(served: World) -> None:
    name = new_data(served)
    served.approve(name)
    while not served.has("ExpertRevision", "code-2"):
        served.tick()
        served.reconcile_all()
    served.delete("ExpertProposal", name)
    served.settle()
    assert served.status("code").current_revision == "code-1"
    # The evidence still holds, so it is proposed again, and nothing runs before it is approved again.
    assert served.proposals() == {name: "Open"}


def test_what_changes_meanwhile_supersedes_the_operators_proposal(served: World) -> None:
    first = new_data(served)
    served.data["code"] = 2
    served.now += timedelta(hours=1)
    served.settle()
    second = next(name for name in served.proposals() if name != first)
    assert served.proposals() == {first: "Superseded", second: "Open"}
    served.approve(first)
    served.settle()
    assert served.revisions("code") == ["code-1"]


# -- rebase


def rebased(world: World, follow: str) -> None:
    """Let code follow its base, and the base get a newer revision."""
    world.change("code", base={"expert": "general", "follow": follow})
    world.change("general", seed=9)
    world.settle()


def test_a_pinned_base_is_followed_by_nobody(served: World) -> None:
    rebased(served, "Pinned")
    assert served.proposals() == {}


def test_a_newer_base_is_proposed_and_trained_from_once_approved(served: World) -> None:
    rebased(served, "Propose")
    (name,) = served.proposals()
    assert name.startswith("code-rebase-")
    assert served.revisions("code") == ["code-1"]
    approved(served, name)
    made = served.revision("code-2").spec
    assert made.cause == "Rebase"
    assert made.inputs.parent is not None
    assert made.inputs.parent.revision == "general-2"
    assert served.status("code").serving.revision == "code-2"
    assert served.status("code").base_revision == "general-2"
    assert served.proposals() == {name: "Done"}


def test_a_base_that_is_followed_by_itself_needs_nobody(served: World) -> None:
    rebased(served, "Auto")
    ((name, phase),) = served.proposals().items()
    assert phase == "Done"
    assert served.proposal(name).status.approved_by == "Policy"
    assert served.status("code").base_revision == "general-2"


def test_nothing_that_a_person_wrote_is_approved_by_the_policy(served: World) -> None:
    served.change("code", base={"expert": "general", "follow": "Auto"})
    served.propose("mine", "code", "Rebase")
    served.edit(
        "ExpertProposal", "mine", {"metadata": {"labels": {"app.kubernetes.io/managed-by": "moe-operator"}}}
    )
    served.change("general", seed=9)
    served.settle()
    assert served.proposal("mine").status.approved_by == ""
    assert served.proposals()["mine"] == "Superseded"


def test_a_newer_base_while_a_rebase_trains_changes_nothing_about_it(served: World) -> None:
    rebased(served, "Propose")
    (name,) = served.proposals()
    served.approve(name)
    while not served.has("ExpertRevision", "code-2"):
        served.tick()
        served.reconcile_all()
    served.change("general", seed=10)
    served.settle()
    assert served.status("code").base_revision == "general-2"
    assert served.proposals()[name] == "Done"


# -- respecialize


def drifted(world: World, mode: str = "Propose") -> None:
    """Let new data come twice, of which the revision that is trained on it gains 10 % less than on the first."""
    world.pool(lifecycle={"overrides": {"respecialize": mode}})
    world.change("code", data={**world.get("Expert", "code")["spec"]["data"], "refresh": "hourly"})
    world.trainer.drift = {"code-3": 0.1}
    for version in (1, 2):
        world.data["code"] = version
        world.now += timedelta(hours=1)
        world.settle()


def test_drift_is_proposed_to_be_trained_away_and_its_effect_is_measured(served: World) -> None:
    drifted(served)
    (name,) = served.proposals()
    status = served.proposal(name).status
    assert name.startswith("code-respecialize-")
    assert "10.0%" in status.evidence.summary
    assert len(status.evidence.windows) == 2
    assert status.expected.interval.value == pytest.approx(-0.08)
    assert served.revisions("code") == ["code-1", "code-2", "code-3"]
    approved(served, name)
    made = served.revision("code-4").spec
    assert made.cause == "Drift"
    assert made.inputs.parent is not None
    assert made.inputs.parent.revision == "code-3"
    assert made.inputs.rehearsal is not None
    assert served.status("code").serving.revision == "code-4"
    status = served.proposal(name).status
    assert (status.phase, status.reason) == ("Done", Reason.EFFECT_SEEN)
    served.now += timedelta(hours=3)
    served.settle()
    assert served.revisions("code") == ["code-1", "code-2", "code-3", "code-4"]


def test_a_changed_spec_after_drift_still_starts_from_the_base(served: World) -> None:
    drifted(served, "Auto")
    assert served.status("code").current_revision == "code-4"
    served.change("code", training={"learningRate": 0.002})
    served.settle()
    made = served.revision("code-5").spec
    assert (made.cause, made.inputs.parent.revision) == ("SpecChanged", "general-1")  # type: ignore[union-attr]
    assert made.inputs.rehearsal is None


def test_two_proposals_that_miss_their_effect_take_auto_from_the_act(served: World) -> None:
    served.pool(lifecycle={"overrides": {"respecialize": "Auto"}, "budget": {"perExpert": 9, "perPool": 9}})
    served.change("code", data={**served.get("Expert", "code")["spec"]["data"], "refresh": "hourly"})
    served.trainer.drift = {f"code-{number}": 0.9 for number in range(1, 20)}
    for version in range(1, 6):
        served.data["code"] = version
        served.now += timedelta(hours=1)
        served.settle()
    row = next(item for item in served.pool_status().lifecycle.acts if item.act is Act.RESPECIALIZE)
    assert (row.mode, row.effective, len(row.missed)) == ("Auto", "Propose", 2)
    assert "Open" in served.proposals().values()
    assert Reason.EFFECT_NOT_SEEN in served.reasons(POOL)
    served.trainer.drift = {}
    served.pool(lifecycle={"overrides": {"respecialize": "Propose"}})
    served.settle()
    served.pool(lifecycle={"overrides": {"respecialize": "Auto"}, "budget": {"perExpert": 9, "perPool": 9}})
    served.settle()
    row = next(item for item in served.pool_status().lifecycle.acts if item.act is Act.RESPECIALIZE)
    assert (row.effective, len(row.missed)) == (
        "Auto",
        1,
    )  # the one that was open, which misses as the others did
    assert "Open" not in served.proposals().values()


# -- the whole pool


def test_a_settled_world_with_proposals_is_planned_without_a_single_write(twice: World) -> None:
    twice.propose("back", "code", "RollBack", revision="code-1")
    twice.settle()
    twice.now += timedelta(minutes=5)
    for key in twice.subjects():
        plan = twice.plan(*key)
        assert (plan.create, plan.apply, plan.delete, plan.statuses, plan.events) == ((),) * 5


def test_a_healthy_pool_is_left_alone(served: World) -> None:
    served.run(until=served.now + timedelta(days=30))
    assert served.proposals() == {}
    assert served.get("ExpertPool", POOL)["status"].get("lifecycle") is None


def _ready(world: World, name: str) -> tuple[str, str, str]:
    found = next(item for item in world.proposal(name).status.conditions if item.type == "Ready")
    return found.status, found.reason, found.message
