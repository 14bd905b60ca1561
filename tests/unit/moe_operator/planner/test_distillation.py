"""The table of the Distilled strategy: what the pool says while it is made, and when it cannot be made."""

import pytest
from world import World
from world.manifests import is_finished

from moe_formats.job_report import Failure


@pytest.fixture
def world(served: World) -> World:
    return served.fork()


def conditions(world: World) -> dict[str, tuple[str, str, str]]:
    return {item.type: (item.status, item.reason, item.message) for item in world.pool_status().conditions}


def fail_tables(world: World, failure: Failure) -> None:
    """Let every distill Job from now on end with a failure."""
    world.change("code", seed=1)
    for _ in range(2000):
        world.reconcile_all()
        for job in world.all("Job", role="distill"):
            if not is_finished(job):
                world.trainer.fate[job["metadata"]["name"]] = failure
        if not world.tick() and conditions(world)["TableReady"][1] == failure.reason:
            return
    raise AssertionError(conditions(world))


def test_a_table_that_is_there_says_how_well_it_routes(world: World) -> None:
    status, reason, message = conditions(world)["TableReady"]
    assert (status, reason) == ("True", "Ready")
    assert "code, general: 90.0% of segments" in message
    assert conditions(world)["Ready"][0] == "True"


def test_a_table_that_cannot_be_made_stalls_the_pool_and_is_told_once(world: World) -> None:
    fail_tables(world, Failure(reason="ArtefactCorrupt", message="cells/1.json is damaged", retryable=False))
    world.settle()
    found = conditions(world)
    assert found["TableReady"][:2] == ("False", "ArtefactCorrupt")
    assert "cells/1.json is damaged" in found["TableReady"][2]
    assert found["Ready"][:2] == ("False", "ArtefactCorrupt")
    assert found["Stalled"][:2] == ("True", "ArtefactCorrupt")
    told = [event for event in world.all("Event") if event["reason"] == "ArtefactCorrupt"]
    assert [(event["type"], event["count"]) for event in told] == [("Warning", 1)]
    assert "Requests are routed without it" in told[0]["message"]
    assert world.status("code").serving.revision == "code-2", "requests are routed all the same"


def test_another_revision_makes_another_table_and_the_pool_is_ready_again(world: World) -> None:
    fail_tables(world, Failure(reason="ArtefactCorrupt", message="damaged", retryable=False))
    world.change("code", seed=2)
    world.settle()
    found = conditions(world)
    assert (found["Ready"][0], found["Stalled"][0], found["TableReady"][0]) == ("True", "False", "True")


def test_a_pool_that_routes_without_a_table_says_nothing_of_one(world: World) -> None:
    world.pool(routing={"strategy": "Posterior"})
    world.settle()
    assert "TableReady" not in conditions(world)
