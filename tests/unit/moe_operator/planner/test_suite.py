"""Which domains' anchors a revision is measured on, and whose first snapshot is waited for."""

from datetime import timedelta

import pytest
from world import World

from moe_operator.planner import suite


def domains(world: World, revision: str) -> list[str | None]:
    return [item.domain for item in world.revision(revision).spec.suite]


def test_of_many_domains_one_draw_picks_those_that_every_expert_is_measured_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(suite, "MAX_SUITE", 4)
    world = World()
    world.pool(budget={"trainingJobs": 32})
    names = [f"domain-{number}" for number in range(7)]
    for name in names:
        world.expert(name, base={"preset": "tiny"})
    world.settle()
    suites = {name: domains(world, f"{name}-1") for name in names}
    for name, drawn in suites.items():
        assert len(drawn) == len(set(drawn)) == 4
        assert drawn[0] == name, "the own anchor comes first"
        assert drawn[1:] == sorted(drawn[1:], key=str)
    others = {name: set(drawn[1:]) for name, drawn in suites.items()}
    chosen = set.union(*others.values())
    assert len(chosen) == 4, "the same few stand for all, and one more for those that are among them"
    assert all(found <= chosen for found in others.values())


def test_a_domain_of_several_experts_stands_in_a_suite_once() -> None:
    world = World()
    world.pool()
    world.expert("general")
    for name in ("code", "coding"):
        world.expert(name, domain="code")
    world.expert("law")
    world.settle()
    assert domains(world, "general-1") == [None, "code", "law"]
    assert domains(world, "law-1") == ["law", "code"]


@pytest.mark.parametrize(
    ("what", "waited_for"),
    [
        ("nothing", True),
        ("it is paused", False),
        ("its data are missing", False),
        ("its pod has no room", False),
    ],
)
def test_a_first_snapshot_is_waited_for_while_it_is_coming(what: str, waited_for: bool) -> None:
    world = World()
    world.pool(budget={"trainingJobs": 8})
    world.expert("general")
    world.expert("law", **({"paused": True} if what == "it is paused" else {}))
    if what == "its data are missing":
        world.change("law", data={"sources": [{"store": "nowhere", "path": "x"}]})
    job = f"law-{next(iter(world.plan('Expert', 'law').create), {'metadata': {'name': '-'}})['metadata']['name']}"
    if what == "its pod has no room":
        world.kubelet.unschedulable.add(job.removeprefix("law-"))
    world.kubelet.durations["snapshot"] = timedelta(minutes=10)
    world.run(until=world.now + timedelta(minutes=15))
    assert (world.revisions("general") == []) is waited_for
