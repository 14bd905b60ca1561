"""Rounds over the pods of pools: who is asked and believed about what, restarts, and what is written and read back."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from moe_formats.observations import ExpertCounts, Observations
from moe_operator.builders.observations import packed_observations
from moe_operator.cluster.api_client import ApiError
from moe_operator.cluster.apply import Applier
from moe_operator.cluster.cache import Cache
from moe_operator.cluster.gather import Answers
from moe_operator.cluster.rounds import LONGEST_ANSWER, Rounds
from moe_operator.state import Manifest
from moe_operator.traffic import HOUR, MINUTES, Usage, unpacked

NOON = 1_767_268_800.0  # 2026-01-01T12:00:00Z, twelve hours after the objects of these tests were created
READY = {"phase": "Running", "podIP": "10.0.0.7", "conditions": [{"type": "Ready", "status": "True"}]}


@dataclass
class Pods:
    """Pods that answer as the test says, by name."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def get(self, pod: Manifest, port: int, path: str, *, longest: int) -> bytes | None:
        name = pod["metadata"]["name"]
        self.asked.append(name)
        assert (port, path, longest) == (9090, "/observations", LONGEST_ANSWER)
        answer = self.answers.get(name)
        return answer.to_json().encode() if isinstance(answer, Observations) else answer


def said(boot: str = "a", **experts: dict[str, Any]) -> Observations:
    return Observations(
        boot=boot * 16, experts={name: ExpertCounts(**counts) for name, counts in experts.items()}
    )


class Operator:
    """Rounds with all that they need; ``restarted`` is another process on the same cluster."""

    def __init__(self, cache: Cache, api: Any, pods: Pods, time: list[float]) -> None:
        self.cache, self.api, self.pods, self.time = cache, api, pods, time
        self.answers = Answers()
        self.heard: list[str] = []
        self.rounds = Rounds(
            cache,
            self.answers,
            pods,
            api,
            Applier(api, cache),
            lambda pool: self.heard.append(pool["metadata"]["name"]),
            clock=lambda: time[0],
            ticks=lambda: time[1],
        )

    def restarted(self) -> "Operator":
        return Operator(self.cache, self.api, self.pods, self.time)

    async def after(self, seconds: float) -> None:
        """Let time pass and make a round."""
        self.time[0] += seconds
        self.time[1] += seconds
        await self.rounds.make()

    def counted(self, expert: str = "code") -> Usage:
        traffic = self.answers.traffic["uid-p"].experts[f"uid-{expert}"]
        return traffic.of_day(0, self.time[0] + HOUR)

    def written(self) -> Any:
        return unpacked(packed_observations(self.api.objects["ConfigMap", "ns", "p-observations"]))


@pytest.fixture
def operator(cache, api, make, expert, pool, deploy) -> Operator:
    """A pool with a gateway and two Experts, of which one has two servers."""
    owner = api.add(pool("p"))
    cache.put(owner)
    deploy(
        make("Deployment", "gw", uid="gw", owner=owner, pool="p", role="gateway"),
        "gateway",
        status=READY,
    )
    for name, servers in (("code", ["code-a", "code-b"]), ("law", [])):
        cache.put(one := api.add(expert(name)))
        deploy(
            make("Deployment", f"{name}-1", uid=f"d-{name}", owner=one, pool="p", expert=name, role="server"),
            *servers,
            status=READY,
        )
    return Operator(cache, api, Pods(), [NOON, 0.0])


async def test_what_happened_between_two_rounds_is_added(operator: Operator) -> None:
    operator.pods.answers = {
        "gateway": said(code={"answered": 5}),
        "code-a": said(code={"completion_tokens": 100}),
    }
    await operator.after(0)
    operator.pods.answers = {
        "gateway": said(code={"answered": 8}),
        "code-a": said(code={"completion_tokens": 160}),
    }
    await operator.after(30)
    assert set(operator.pods.asked) == {"gateway", "code-a", "code-b"}
    counted = operator.counted()
    assert (counted.answered, counted.completion_tokens) == (3, 60)
    assert (counted.observed_seconds, counted.replica_seconds) == (30, 60)
    assert (operator.counted("law").observed_seconds, operator.counted("law").replica_seconds) == (30, 0)


async def test_a_server_is_believed_only_about_its_own_expert_and_nobody_about_strangers(
    operator: Operator,
) -> None:
    await operator.after(0)
    everything = said(code={"answered": 1}, law={"answered": 1}, stranger={"answered": 1})
    operator.pods.answers = {"gateway": said(), "code-a": said()}
    await operator.after(30)
    operator.pods.answers = {"gateway": everything, "code-a": everything}
    await operator.after(30)
    assert (operator.counted("code").answered, operator.counted("law").answered) == (2, 1)
    assert operator.answers.traffic["uid-p"].experts.keys() == {"uid-code", "uid-law"}


async def test_two_gateways_that_restart_in_turn_count_nothing_twice(operator: Operator, cache, make) -> None:
    replica_set = next(item for item in cache.all("ReplicaSet") if item["metadata"]["name"] == "gw-7d9f")
    cache.put(make("Pod", "second", owner=replica_set, status=READY))
    sent = {"gateway": 0, "second": 0}
    boots = {"gateway": 0, "second": 0}
    await operator.after(0)
    operator.pods.answers = {name: said("0", code={}) for name in sent}
    await operator.after(30)
    total = 0
    for step in range(1, 20):
        for name in sent:
            if step % 4 == (1 if name == "gateway" else 3):
                boots[name], sent[name] = boots[name] + 1, 0
            sent[name] += step
            total += step
            operator.pods.answers[name] = said(f"{boots[name]:x}", code={"answered": sent[name]})
        await operator.after(30)
    assert operator.counted().answered == total


async def test_a_pod_that_does_not_answer_once_is_counted_in_the_next_round(operator: Operator) -> None:
    operator.pods.answers = {"gateway": said(code={"answered": 5})}
    await operator.after(0)
    operator.pods.answers = {"gateway": None}
    await operator.after(30)
    operator.pods.answers = {"gateway": said(code={"answered": 9})}
    await operator.after(30)
    assert operator.counted().answered == 4


@pytest.mark.parametrize(
    "answer",
    [
        b"no json",
        b"{}",
        b'{"boot":"x"}',
        b'{"boot":"aaaaaaaaaaaaaaaa","experts":{"code":{"answered":NaN}}}',
        b'{"boot":"aaaaaaaaaaaaaaaa","experts":{"code":{"inFlightSeconds":NaN}}}',
        b'{"boot":"aaaaaaaaaaaaaaaa","experts":{"code":{"answered":-1}}}',
        b'{"boot":"aaaaaaaaaaaaaaaa","experts":{"code":{"answered":1e300}}}',
        b'{"boot":"aaaaaaaaaaaaaaaa","experts":{"../x":{"answered":1}}}',
        json.dumps({"boot": "a" * 16, "experts": {f"e{number}": {} for number in range(1000)}}).encode(),
        said(code={"answered": 4}),  # backwards
        said(code={"answered": 10**14}),  # more than can be
    ],
)
async def test_an_endpoint_that_lies_changes_nothing(operator: Operator, answer: Any) -> None:
    operator.pods.answers = {"gateway": said(code={"answered": 5})}
    await operator.after(0)
    operator.pods.answers = {"gateway": answer}
    await operator.after(30)
    assert operator.counted().requests == 0
    operator.pods.answers = {"code-a": said(code={"completion_tokens": 5})}
    await operator.after(30)


async def test_a_bucket_with_requests_is_written_once_and_one_without_every_hour(operator: Operator) -> None:
    await operator.after(0)
    written = []
    for bucket in range(30):
        for _ in range(10):
            if bucket in (0, 1, 4):
                operator.pods.answers = {"gateway": said("b", code={"answered": operator.time[1]})}
            await operator.after(30)
        verbs = [verb for verb, *_ in operator.api.writes if verb != "fields"]
        written.append(len(verbs))
        assert operator.heard == ["p"] * (bucket + 1)
    # Twelve buckets are an hour.
    times = [bucket for bucket, count in enumerate(written) if count > ([0, *written][bucket])]
    assert times == [0, 1, 4, 16, 28]


async def test_an_operator_that_stops_and_starts_goes_on_where_it_stopped(operator: Operator) -> None:
    operator.pods.answers = {"gateway": said(code={"answered": 5})}
    await operator.after(0)
    operator.pods.answers = {"gateway": said(code={"answered": 8})}
    operator.time[0] += 10
    operator.time[1] += 10
    await operator.rounds.finish()
    assert operator.written().experts["uid-code"].of_day(0, NOON + HOUR).answered == 3
    again = operator.restarted()
    again.pods.answers = {"gateway": said(code={"answered": 20})}
    await again.after(60)
    assert again.counted().answered == 3 + 12
    assert again.counted().observed_seconds == 10 + 60


async def test_an_operator_that_is_killed_loses_what_was_not_written_and_counts_nothing_twice(
    operator: Operator,
) -> None:
    operator.pods.answers = {"gateway": said(code={"answered": 5})}
    await operator.after(0)
    await operator.rounds.finish()
    for answered in (10, 20):
        operator.pods.answers = {"gateway": said(code={"answered": answered})}
        await operator.after(30)
    again = operator.restarted()  # killed: what it added since is in the pods' counts all the same
    await again.after(30)
    assert again.counted().answered == 15


async def test_a_pool_of_which_nothing_can_be_read_back_is_not_asked_until_it_can(operator: Operator) -> None:
    operator.pods.answers = {"gateway": said(code={"answered": 5})}
    operator.api.fail_next = ApiError(500, "InternalError", "no")
    await operator.after(0)
    assert operator.answers.traffic == {}
    await operator.after(30)
    assert operator.counted().answered == 0


async def test_observations_that_cannot_be_used_begin_anew(operator: Operator, make, pool) -> None:
    foreign = make(
        "ConfigMap", "p-observations", owner=operator.api.objects["ExpertPool", "ns", "p"], pool="p"
    )
    operator.api.add(foreign | {"binaryData": {"traffic": "anVuaw=="}})
    operator.pods.answers = {"gateway": said(code={"answered": 5})}
    await operator.after(0)
    assert operator.counted().answered == 0


async def test_observations_of_somebody_else_are_neither_read_nor_overwritten(
    operator: Operator, make
) -> None:
    await operator.after(0)
    await operator.rounds.finish()
    stolen = operator.api.objects["ConfigMap", "ns", "p-observations"]
    operator.api.server.objects.clear()
    foreign = {**stolen, "metadata": {**stolen["metadata"], "ownerReferences": []}}
    operator.api.add(foreign)
    operator.cache.remove("ConfigMap", "ns", "p-observations", stolen["metadata"]["uid"])
    again = operator.restarted()
    await again.after(0)
    assert again.counted().observed_seconds == 0
    before = len(operator.api.writes)
    await again.rounds.finish()
    assert [verb for verb, *_ in operator.api.writes[before:]] == ["create"]  # refused: the name is taken


async def test_a_pool_that_is_gone_is_forgotten_and_one_without_pods_is_not_written(
    operator: Operator, pool
) -> None:
    operator.cache.put(pool("empty"))
    await operator.after(0)
    await operator.after(600)
    assert operator.answers.traffic.keys() == {"uid-p"} and operator.heard == ["p"]
    operator.cache.remove("ExpertPool", "ns", "p", "uid-p")
    await operator.after(30)
    assert operator.answers.traffic == {}


async def test_a_clock_that_jumps_does_not_make_more_time_observed(operator: Operator) -> None:
    await operator.after(0)
    for jump in (HOUR, -HOUR, 7 * MINUTES):
        operator.time[0] += jump
        await operator.after(30)
    assert operator.counted().observed_seconds == 90
