"""A roll back is proposed if requests got clearly worse within a day of a promotion, and not otherwise."""

import random
from datetime import datetime, timedelta

import pytest
from world import World

from moe_formats.observations import SECONDS, TENTHS
from moe_formats.resources.lifecycle import Act
from moe_operator.planner.acts import ACTS
from moe_operator.planner.acts.policy import Found
from moe_operator.planner.proposals import members
from moe_operator.state import Key, Member, PoolState
from moe_operator.traffic import MINUTES, PoolTraffic, Usage

POLICY = ACTS[Act.ROLL_BACK]


@pytest.fixture(scope="module")
def changed() -> World:
    """A pool whose Expert code has had a second revision for half a day."""
    world = World()
    world.pool()
    world.expert("general")
    world.expert("code")
    world.settle()
    world.run(until=world.now + timedelta(days=2))
    world.change("code", seed=5)
    world.settle()
    world.run(until=world.now + timedelta(hours=12))
    return world


def member(world: World, traffic: PoolTraffic) -> Member:
    state = world.operator.gather(Key("ExpertPool", "default", "first-pool"))
    assert isinstance(state, PoolState)
    found = next(item for item in members(state) if item.expert.metadata.name == "code")
    return Member(
        found.expert, found.pool, found.revisions, found.base_revisions, found.base_revision, traffic
    )


def promoted(world: World) -> float:
    verdict = world.revision("code-2").status.verdict
    assert verdict is not None
    return datetime.fromisoformat(verdict.time).timestamp()


def traffic_of(
    world: World,
    *,
    failed: tuple[float, float] = (0.01, 0.01),
    late: tuple[float, float] = (0.02, 0.02),
    each: float = 20,
    step: float = MINUTES,
) -> PoolTraffic:
    """Traffic of a day before and half a day after: shares of requests that fail and of answers that begin late."""
    traffic, edge = PoolTraffic(), promoted(world)
    uid = world.get("Expert", "code")["metadata"]["uid"]
    time = edge - 24 * 3600
    while time < world.now.timestamp():
        which = int(time >= edge)
        first_token = [0.0] * (len(SECONDS) + 1)
        first_token[4], first_token[8] = each * (1 - late[which]), each * late[which]
        usage = Usage(
            MINUTES, MINUTES, 1.0, each * (1 - failed[which]), each * failed[which],
            first_token=tuple(first_token), confidence=(0.0,) * len(TENTHS),
        )  # fmt: skip
        traffic.add(uid, time, usage)
        time += step
    return traffic


def test_requests_that_fail_more_often_have_it_proposed_with_the_numbers(changed: World) -> None:
    found = POLICY.trigger(member(changed, traffic_of(changed, failed=(0.01, 0.06))), changed.now)
    assert isinstance(found, Found)
    assert (found.current.metadata.name, found.parent) == ("code-2", "code-1")
    assert "6.0%" in found.summary and "1.0%" in found.summary
    assert not isinstance(found.expected, str)
    assert found.expected.interval.value == pytest.approx(-0.05, abs=0.002)
    assert found.expected.interval.lower < -0.05 < found.expected.interval.upper < 0


def test_answers_that_begin_later_have_it_proposed(changed: World) -> None:
    found = POLICY.trigger(member(changed, traffic_of(changed, late=(0.02, 0.2))), changed.now)
    assert isinstance(found, Found)
    assert "streamed answers that begin after" in found.summary


@pytest.mark.parametrize(
    "traffic",
    [
        {},  # as before
        {"failed": (0.06, 0.01)},  # better
        {"failed": (0.010, 0.018)},  # worse by less than a percentage point
        {"failed": (0.10, 0.15)},  # not twice as often
        {"failed": (0.0, 0.5), "each": 0.5},  # too few requests
    ],
)
def test_nothing_less_has_it_proposed(changed: World, traffic: dict[str, object]) -> None:
    assert POLICY.trigger(member(changed, traffic_of(changed, **traffic)), changed.now) is None  # type: ignore[arg-type]


def test_without_traffic_or_before_there_were_two_revisions_nothing_is_proposed(changed: World) -> None:
    assert POLICY.trigger(member(changed, PoolTraffic()), changed.now) is None
    first = changed.fork()
    first.expert("law")
    first.settle()
    state = first.operator.gather(Key("ExpertPool", "default", "first-pool"))
    law = next(item for item in members(state) if item.expert.metadata.name == "law")
    assert POLICY.trigger(law, first.now) is None


def test_a_pinned_expert_is_left_alone(changed: World) -> None:
    pinned = changed.fork()
    pinned.change("code", revision="code-2")
    traffic = traffic_of(changed, failed=(0.01, 0.5))
    assert POLICY.trigger(member(pinned, traffic), pinned.now) is None


def test_a_steady_expert_is_rarely_proposed_to_roll_back(changed: World) -> None:
    """The control: requests fail by chance at the same rate before and after, in 400 replays."""
    chance, alarms = random.Random(5), 0
    for _ in range(400):
        shares = [
            sum(chance.random() < 0.02 for _ in range(number)) / number for number in (24 * 40, 12 * 40)
        ]
        traffic = traffic_of(changed, failed=(shares[0], shares[1]), each=40, step=3600)
        alarms += POLICY.trigger(member(changed, traffic), changed.now) is not None
    assert alarms <= 4


def test_it_is_proposed_and_its_effect_is_measured_when_enough_requests_have_come(changed: World) -> None:
    world = changed.fork()
    uid = world.get("ExpertPool", "first-pool")["metadata"]["uid"]
    traffic = traffic_of(world, failed=(0.01, 0.06))
    world.operator.answers.traffic[uid] = traffic
    world.reconcile("ExpertPool", "first-pool")
    ((name, _),) = world.proposals().items()
    world.settle()
    world.approve(name)
    world.settle()
    assert world.status("code").current_revision == "code-1"
    assert world.proposal(name).status.reason == "EffectUnknown"
    code = world.get("Expert", "code")["metadata"]["uid"]
    for _ in range(12):
        world.now += timedelta(seconds=MINUTES)
        traffic.add(code, world.now.timestamp(), Usage(MINUTES, MINUTES, 1.0, 99, 1))
    world.now += timedelta(minutes=31)
    world.settle()
    status = world.proposal(name).status
    assert (status.phase, status.reason) == ("Done", "EffectSeen")
    assert status.measured.interval.value == pytest.approx(-0.05, abs=0.01)
