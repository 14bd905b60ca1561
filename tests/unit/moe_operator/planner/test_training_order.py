"""Which training starts first: by arrival, or by what it is expected to gain for what it costs."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from world import World, digest

from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_revision import ExpertRevision
from moe_operator.planner.training_order import expected_gain, in_order
from moe_operator.state import ObservedJob, Role

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def revision(
    expert: str, number: int, *, size: int | None, gain: float | None = None, seconds: float | None = None
) -> ExpertRevision:
    window = {"path": "w", "digest": digest("w"), "clusters": 30, "segments": 100}
    parent = (
        {"revision": f"{expert}-{number - 1}", "path": "a", "digest": digest("a")} if number > 1 else None
    )
    status: dict[str, Any] = {"deviceSeconds": seconds}
    if gain is not None:
        interval = {"value": -gain, "lower": -gain - 0.01, "upper": -gain + 0.01}
        decision = {"role": "window", "holdout": digest("w"), "uses": 1, "alpha": 0.03, "against": "current"}
        decisions = [decision | {"interval": interval, "upper": -gain + 0.01}]
        status["evidence"] = {"report": digest("r"), "delta": 0.005, "noiseFloor": 0, "decisions": decisions}
    spec = {
        "expert": expert,
        "expertUID": f"{expert}-uid",
        "pool": "pool",
        "number": number,
        "cause": "NewData" if number > 1 else "SpecChanged",
        "inputs": {
            "parent": parent,
            "data": {"path": "d", "digest": digest(number)},
            "training": {},
            "seed": 0,
        },
        "inputsDigest": digest(expert, number),
        "anchor": window,
        "trainBytes": size,
        "suiteDigest": digest("suite"),
    }
    return ExpertRevision.model_validate(
        {"metadata": {"name": f"{expert}-{number}"}, "spec": spec, "status": status}
    )


def line(
    expert: str, *, learnt: int, new: int, gain: float | None, seconds: float | None
) -> list[ExpertRevision]:
    """An Expert whose second revision learnt some bytes, and whose third waits for training."""
    second = revision(expert, 2, size=1000 + learnt, gain=gain, seconds=seconds)
    return [revision(expert, 1, size=1000), second, revision(expert, 3, size=1000 + learnt + new)]


def waiting(expert: str, minutes: int) -> ObservedJob:
    created = NOW - timedelta(minutes=minutes)
    return ObservedJob(
        f"{expert}-3-a1", f"{expert}-job", Role.TRAIN, created, True, "Suspended", expert=expert
    )


def order(revisions: list[ExpertRevision], jobs: list[ObservedJob], chosen: str = "Adaptive") -> list[str]:
    spec = {"storage": {"size": "1Gi"}, "budget": {"trainingOrder": chosen}}
    pool = ExpertPool.model_validate({"metadata": {"name": "pool"}, "spec": spec})
    named = {item.metadata.name: item for item in revisions}
    return [job.expert for job in in_order(jobs, pool, named, NOW)]


def test_the_expected_gain_is_the_last_one_per_byte_times_the_new_bytes_over_the_cost() -> None:
    own = line("code", learnt=500, new=200, gain=0.1, seconds=50)
    assert expected_gain(own[2], {item.metadata.name: item for item in own}) == pytest.approx(
        0.1 / 500 * 200 / 50
    )


def test_the_largest_expected_gain_per_device_second_comes_first() -> None:
    revisions = [
        *line("slow", learnt=500, new=500, gain=0.1, seconds=1000),
        *line("small", learnt=500, new=6, gain=0.1, seconds=10),
        *line("good", learnt=500, new=500, gain=0.1, seconds=10),
        *line("worse", learnt=500, new=500, gain=-0.02, seconds=10),
    ]
    jobs = [waiting(name, minutes) for minutes, name in enumerate(["good", "small", "slow", "worse"])]
    assert order(revisions, jobs) == ["good", "small", "slow", "worse"]
    assert order(revisions, jobs, "FirstCome") == ["worse", "slow", "small", "good"]


@pytest.mark.parametrize(
    ("learnt", "new", "gain", "seconds"),
    [(500, 500, None, 10.0), (500, 500, 0.1, None), (0, 500, 0.1, 10.0), (500, 0, 0.1, 10.0)],
)
def test_what_was_not_measured_comes_first_and_among_itself_by_arrival(
    learnt: int, new: int, gain: float | None, seconds: float | None
) -> None:
    revisions = [
        *line("known", learnt=500, new=500, gain=0.1, seconds=10),
        *line("later", learnt=learnt, new=new, gain=gain, seconds=seconds),
        *line("sooner", learnt=learnt, new=new, gain=gain, seconds=seconds),
    ]
    assert order(revisions, [waiting("known", 9), waiting("later", 1), waiting("sooner", 2)]) == [
        "sooner",
        "later",
        "known",
    ]


def test_nothing_measured_at_all_is_the_order_of_arrival() -> None:
    jobs = [waiting(name, minutes) for minutes, name in enumerate("abc")]
    assert order([], jobs) == order([], jobs, "FirstCome") == ["c", "b", "a"]


def test_what_waited_for_a_week_comes_first() -> None:
    revisions = [
        *line("good", learnt=500, new=500, gain=0.1, seconds=10),
        *line("poor", learnt=500, new=500, gain=-0.1, seconds=10),
    ]
    week = 7 * 24 * 60
    assert order(revisions, [waiting("good", 5), waiting("poor", week - 1)]) == ["good", "poor"]
    assert order(revisions, [waiting("good", 5), waiting("poor", week)]) == ["poor", "good"]


@pytest.mark.parametrize(
    ("chosen", "expected"), [("FirstCome", ["code", "law", "prose"]), ("Adaptive", ["code", "prose", "law"])]
)
def test_a_pool_gives_its_training_slots_by_the_order_that_it_asks_for(
    chosen: str, expected: list[str]
) -> None:
    world, names = World(), ("code", "law", "prose")
    world.pool(budget={"trainingJobs": 1, "trainingOrder": chosen})
    for name in names:
        world.trainer.grows[name] = 1000
        world.expert(name, base={"preset": "tiny"})
        world.change(name, data=world.get("Expert", name)["spec"]["data"] | {"refresh": "daily"})
    world.settle()
    for versions in ({"code": 1, "law": 1, "prose": 1}, {"code": 2, "law": 2, "prose": 4}):
        world.data.update(versions)
        world.kubelet.durations["train"] = timedelta(hours=1)
        world.run(until=world.now + timedelta(hours=28))
    assert all(world.revisions(name) == [f"{name}-{number}" for number in (1, 2, 3)] for name in names)
    assert all(world.revision(f"{name}-2").status.device_seconds >= 3600 for name in names)
    begun = {name: world.get("Job", f"{name}-3-a1")["status"]["startTime"] for name in names}
    assert sorted(names, key=lambda name: begun[name]) == expected
