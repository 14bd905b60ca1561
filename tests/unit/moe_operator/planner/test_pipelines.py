"""What a pool's status says of how the data of its Experts develop."""

from datetime import UTC, datetime, timedelta
from math import exp

import pytest
from world import World

from moe_formats.resources.expert_status import Admitted
from moe_operator.planner.pipelines import admitted_with


@pytest.fixture
def world() -> World:
    """Two Experts that serve, of which one is read again every day, and gets larger with each version of its data."""
    world = World()
    world.pool()
    for name in ("code", "prose"):
        world.expert(name, base={"preset": "tiny"})
        world.trainer.grows[name] = 5000
    world.change("code", data=world.get("Expert", "code")["spec"]["data"] | {"refresh": "daily"})
    world.settle()
    return world


def test_the_first_snapshots_count_and_nothing_was_improved_yet(world: World) -> None:
    found = world.pool_status().pipelines
    assert (found.active, found.documents, found.bytes, found.promotions) == (1, 2000, 200_000, 0)
    assert found.improvement is None
    assert found.absent == {"improvement": "no revision was promoted over another one"}
    assert found.specialization == {"code": 0.97, "prose": 0.97}


def test_time_alone_changes_nothing(world: World) -> None:
    before = world.pool_status().pipelines
    assert before.until >= world.now.replace(minute=0, second=0, microsecond=0)
    world.change("code", data=world.get("Expert", "code")["spec"]["data"] | {"refresh": "never"})
    world.settle()
    writes = world.writes
    world.run(until=world.now + timedelta(days=3))
    world.reconcile_all()
    assert world.writes == writes
    assert world.pool_status().pipelines == before.model_copy(update={"active": 0})


def test_new_text_and_what_it_gained_are_counted_with_what_came_in_the_day_before(world: World) -> None:
    world.data["code"] = 3
    world.run(until=world.now + timedelta(hours=30))
    found = world.pool_status().pipelines
    assert (found.documents, found.bytes, found.promotions) == (0, 15_000, 1)
    assert found.improvement == pytest.approx(1 - exp(-0.12), abs=1e-4)
    world.data["code"] = 5
    world.run(until=world.now + timedelta(hours=24))
    found = world.pool_status().pipelines
    assert (found.bytes, found.promotions) == (10_000, 1)


def test_experts_of_a_pool_are_added_up_within_a_day(world: World) -> None:
    world.change("prose", data=world.get("Expert", "prose")["spec"]["data"] | {"refresh": "daily"})
    world.data.update(code=2, prose=1)
    world.run(until=world.now + timedelta(hours=30))
    found = world.pool_status().pipelines
    assert (found.active, found.bytes, found.promotions) == (2, 15_000, 2)


def test_a_time_that_is_none_spoils_nothing(world: World) -> None:
    verdict = {**world.get("ExpertRevision", "code-1")["status"]["verdict"], "time": "yesterday"}
    world.edit("ExpertRevision", "code-1", {"status": {"verdict": verdict}})
    world.settle()
    assert world.pool_status().pipelines.bytes == 200_000


def test_a_paused_expert_is_no_active_pipeline(world: World) -> None:
    world.change("code", paused=True)
    world.settle()
    assert world.pool_status().pipelines.active == 0


def test_growth_within_an_hour_is_one_entry_and_there_are_at_most_25(world: World) -> None:
    held = world.status("code").snapshot
    now, kept = datetime(2026, 11, 21, 12, 0, tzinfo=UTC), list[Admitted]()
    for quarter in range(4 * 60):
        larger = held.model_copy(
            update={"documents": held.documents + 1, "train_bytes": held.train_bytes + 10}
        )
        kept = admitted_with(kept, held, larger, now + quarter * timedelta(minutes=15))
        held = larger
    assert (len(kept), {(item.documents, item.bytes) for item in kept}) == (25, {(4, 40)})
    smaller = held.model_copy(update={"documents": 1, "train_bytes": 1})
    assert admitted_with(kept, held, smaller, now + timedelta(hours=59, minutes=45)) == kept
