"""What a revision says of itself on its way to a verdict: its phase and its conditions."""

from typing import Any

import pytest
from world import World

from moe_formats.job_report import Failure

CONDITIONS = ("Ready", "Reconciling", "Stalled", "Trained", "Evaluated", "Promoted")


@pytest.fixture
def world() -> World:
    """A pool with one Expert that branches from nobody, before anything was done about it."""
    world = World()
    world.pool()
    world.expert("general")
    return world


def said(world: World, name: str = "general-1") -> tuple[Any, ...]:
    """Return phase, the first letter of each condition's status, and the reasons of Ready and of the last three."""
    if not world.has("ExpertRevision", name):
        return ()
    status = world.revision(name).status
    found = {item.type: item for item in status.conditions}
    if not found:
        return ()
    assert status.reason == found["Ready"].reason
    letters = "".join(found[type_].status[0] for type_ in CONDITIONS)
    reasons = [found[type_].reason for type_ in ("Ready", "Trained", "Evaluated", "Promoted")]
    return (status.phase, letters, *reasons)


def test_the_way_to_promotion(world: World) -> None:
    # Ready, Reconciling, Stalled, Trained, Evaluated, Promoted
    assert world.course(said) == [
        (),
        ("Training", "FTFFFF", "Progressing", "Training", "Pending", "Pending"),
        ("Evaluating", "FTFTFF", "Progressing", "Trained", "Evaluating", "Pending"),
        ("Evaluating", "FTFTTF", "Progressing", "Trained", "Evaluated", "Pending"),
        ("Promoted", "TFFTTT", "Promoted", "Trained", "Evaluated", "Promoted"),
    ]


def test_a_refused_revision_is_not_ready_and_does_not_stall(world: World) -> None:
    world.settle()
    world.data["general"], world.trainer.junk = 1, {1}
    world.change("general", runID="again")
    assert world.course(lambda world: said(world, "general-2"))[-1] == (
        "Refused",
        "FFFTTF",
        "PromotionRefused",
        "Trained",
        "Evaluated",
        "PromotionRefused",
    )


def test_a_revision_that_failed_for_good_stalls_with_the_trainers_reason(world: World) -> None:
    world.trainer.fate["general-1-a1"] = Failure(reason="LossNotFinite", message="NaN at step 7")
    assert world.course(said)[-1] == ("Failed", "FFTFFF", *["LossNotFinite"] * 4)
    conditions = {item.type: item.message for item in world.revision("general-1").status.conditions}
    assert "training failed for good: NaN at step 7" in conditions["Trained"]


def test_a_revision_that_waits_for_data_says_so_before_anything_is_trained(world: World) -> None:
    world.trainer.clusters = 12
    assert world.course(said)[-1] == ("Waiting", "FFFFFF", *["HoldoutTooSmall"] * 4)


def test_a_superseded_revision_names_the_one_that_is_asked_for_now(world: World) -> None:
    world.settle()
    world.kubelet.unschedulable.add("general-2-a1")
    world.change("general", seed=1)
    world.settle()
    world.change("general", seed=2)
    assert world.course(lambda world: said(world, "general-2"))[-1] == (
        "Superseded",
        "FFFFFF",
        "Superseded",
        "Training",
        "Pending",
        "Superseded",
    )
    conditions = {item.type: item.message for item in world.revision("general-2").status.conditions}
    assert "general-3" in conditions["Promoted"]


def test_every_condition_is_about_the_generation_it_was_decided_on(world: World) -> None:
    world.settle()
    status = world.revision("general-1").status
    assert {item.observed_generation for item in status.conditions} == {status.observed_generation} == {1}
