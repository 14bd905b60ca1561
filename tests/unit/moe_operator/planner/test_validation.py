"""What cannot work as it is written stalls with a message that names the field, the value and what there is."""

from typing import Any

import pytest
from world import World

from moe_formats.resources.reasons import Reason

DIGEST = "sha256:" + "0" * 64


def finding(**spec: Any) -> tuple[str, str] | None:
    """Return reason and message of what stalls an Expert, once nothing more may come in the same apply."""
    world = World()
    world.pool(**spec.pop("pool_spec", {}))
    world.expert("general")
    world.tick(1)
    world.expert("code", **spec)
    world.tick(10)
    return stalled(world, "code")


def stalled(world: World, expert: str) -> tuple[str, str] | None:
    world.reconcile("Expert", expert)
    status, reason, message = world.condition(expert, "Stalled")
    return (reason, message) if status == "True" else None


def test_a_sound_expert_has_no_finding() -> None:
    assert finding() is None


def test_sequences_as_long_as_the_pools_segments_take_are_sound() -> None:
    assert finding(training={"contextTokens": 384}) is None
    long = {"evaluation": {"segmentBytes": 3968}}
    assert finding(training={"contextTokens": 4096}, pool_spec=long) is None


@pytest.mark.parametrize(
    ("spec", "reason", "parts"),
    [
        ({"data": {"sources": [{"store": "corpus", "path": "x"}]}}, "UnknownStore", ["'corpus'", "corpora"]),
        (
            {"targets": {"accuracy": {"evaluator": "sums", "min": 0.9}}},
            "UnknownEvaluator",
            ["'sums'", "first-pool has: none"],
        ),
        (
            {
                "promotion": {"evaluators": ["sums"]},
                "pool_spec": {
                    "evaluation": {
                        "evaluators": [
                            {"name": "sums", "measure": "exactMatch", "store": "secret", "path": "sums.jsonl"}
                        ]
                    }
                },
            },
            "UnknownStore",
            ["'sums'", "'secret'", "corpora"],
        ),
        (
            {
                "promotion": {"evaluators": ["tests"]},
                "pool_spec": {
                    "evaluation": {
                        "evaluators": [
                            {
                                "name": "tests",
                                "measure": "container",
                                "grader": "pytset",
                                "store": "corpora",
                                "path": "tests.jsonl",
                            }
                        ]
                    }
                },
            },
            "UnknownGrader",
            ["spec.evaluation.evaluators", "'tests'", "'pytset'", "may use: none"],
        ),
        ({"training": {"resources": {"profile": "tpu"}}}, "UnknownProfile", ["'tpu'", "cpu, nvidia"]),
        ({"serving": {"profile": "tpu"}}, "UnknownProfile", ["spec.serving.profile"]),
        ({"base": {"preset": "huge"}}, "UnknownPreset", ["'huge'", "tiny"]),
        (
            {"base": {"store": "hub", "path": "m", "digest": DIGEST}},
            "UnknownStore",
            ["spec.base.store", "'hub'"],
        ),
        (
            {"base": {"store": "corpora", "path": "../m", "digest": DIGEST}},
            "PathNotAllowed",
            ["spec.base.path"],
        ),
        (
            {"training": {"contextTokens": 383}},
            "ContextTooShort",
            [
                "spec.training.contextTokens is 383",
                "segmentBytes is 256",
                "Set it to 384 or more, or leave it out",
            ],
        ),
        (
            {"base": {"preset": "tiny"}, "pool_spec": {"evaluation": {"segmentBytes": 3968}}},
            "ContextTooShort",
            ["spec.base.preset is 'tiny', which sees 384 tokens", "segmentBytes is 3968", "take 4096 tokens"],
        ),
        (
            {"training": {"contextTokens": 4095}, "pool_spec": {"evaluation": {"segmentBytes": 3968}}},
            "ContextTooShort",
            [
                "spec.training.contextTokens is 4095",
                "Set it to 4096 or more",
                "in a pool with segmentBytes 256",
            ],
        ),
        ({"base": {"expert": "nobody"}}, "BaseNotFound", ["'nobody'", "general"]),
        ({"base": {"expert": "code"}}, "BaseCycle", ["code -> code"]),
        ({"revision": "code-7"}, "UnknownRevision", ["'code-7'", "none"]),
        ({"pool": "second"}, "WaitingForPool", ["'second'", "default"]),
        ({"pool_spec": {"budget": {"replicas": 1}}}, "ExceedsBudget", ["spec.budget.replicas is 1"]),
    ],
)
def test_findings_say_what_why_and_what_there_is(spec: dict[str, Any], reason: str, parts: list[str]) -> None:
    found = finding(**spec)
    assert found is not None
    assert found[0] == reason
    for part in parts:
        assert part in found[1]


def test_a_base_may_come_a_little_later_in_the_same_apply() -> None:
    world = World()
    world.pool()
    world.expert("code")
    assert world.reconcile("Expert", "code").create == ()
    assert world.condition("code", "Stalled")[0] == "False"
    assert world.condition("code", "BaseModelReady")[1] == "WaitingForBase"
    world.tick(11)
    world.reconcile("Expert", "code")
    assert world.condition("code", "Stalled")[:2] == ("True", "BaseNotFound")
    world.expert("general")
    world.settle()
    assert world.status("code").phase == "Serving"


def test_a_store_of_other_namespaces_is_unknown() -> None:
    world = World()
    stores = {"corpora": world.config.stores["corpora"].model_copy(update={"namespaces": ("elsewhere",)})}
    world.config = world.config.model_copy(update={"stores": stores})
    world.pool()
    world.expert("general")
    found = stalled(world, "general")
    assert found is not None
    assert found[0] == "UnknownStore"


def test_a_longer_cycle_is_spelled_out() -> None:
    world = World()
    world.pool()
    for name, base in (("a", "b"), ("b", "c"), ("c", "a")):
        world.expert(name, base={"expert": base})
    found = stalled(world, "a")
    assert found is not None
    assert "a -> b -> c -> a" in found[1]


def test_an_expert_that_branched_already_outlives_its_base() -> None:
    world = World()
    world.pool()
    world.expert("general")
    world.expert("code")
    world.settle()
    world.delete("Expert", "general")
    world.change("code", seed=1)
    world.settle()
    assert world.status("code").serving.revision == "code-2"


def test_an_expert_with_the_name_of_its_pool_is_refused() -> None:
    world = World()
    world.pool()
    world.expert("first-pool", domain="code", base={"preset": "tiny"})
    world.settle()
    assert world.condition("first-pool", "Stalled")[1] == "NameConflict"


def test_twins_are_found_and_mixtures_are_none() -> None:
    world = World()
    world.pool()
    world.expert("general")
    world.expert("mixture", base={"preset": "tiny"}, domain=None)
    world.expert("code")
    world.expert("coding", domain="code")
    world.settle()
    warned = [event for event in world.all("Event") if event["reason"] == Reason.TWIN_DOMAIN]
    assert {event["involvedObject"]["name"] for event in warned} == {"code", "coding"}
    assert any("also that of coding" in event["message"] for event in warned)
