"""Asks the gateways and servers of every pool what they counted, and keeps it in ``Answers.traffic``.

A round is made every half minute. What was observed is written to the pool's ConfigMap every five minutes in which there
were requests, every hour otherwise, and when the operator stops. It is read back before the pool is asked for the first
time. Only pods are asked whose chain of owners leads to the pool or to one of its Experts (kinship.py). A server is
believed only about the Expert that it serves, a gateway about the Experts of its pool.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp
from pydantic import ValidationError

from moe_formats.observations import Observations
from moe_formats.resources.expert_pool import ExpertPool
from moe_operator.builders.observations import build_observations, observations_name, packed_observations
from moe_operator.builders.pod import METRICS_PORT
from moe_operator.cluster.api_client import ApiClient, ApiError
from moe_operator.cluster.apply import Applier, Outdated
from moe_operator.cluster.asking import PodClient, every
from moe_operator.cluster.cache import Cache
from moe_operator.cluster.confine import confined, warn_once
from moe_operator.cluster.counting import Round, happened
from moe_operator.cluster.gather import Answers
from moe_operator.cluster.kinship import gateway_of, has_role, pods_of_deployment
from moe_operator.cluster.lease import LeaseNotRenewed
from moe_operator.cluster.observe import observed_pod
from moe_operator.cluster.ownership import NameTaken
from moe_operator.cluster.resources import CONFIG_MAP, controller_uid
from moe_operator.state import Manifest, Plan, Role
from moe_operator.traffic import HOUR, MINUTES, PoolTraffic, Usage, unpacked

log = logging.getLogger(__name__)

#: Seconds between two rounds.
ROUND_SECONDS = 30.0
#: Largest answer that is read, in bytes: 256 Experts have about 100 KB.
LONGEST_ANSWER = 256 * 1024
#: What may go wrong when a pool's ConfigMap is read or written, after which it is tried again in the next round.
_TRY_AGAIN = (ApiError, NameTaken, Outdated, LeaseNotRenewed, aiohttp.ClientError, TimeoutError)


@dataclass(frozen=True, slots=True)
class _Source:
    """A pod to ask, and what it is believed about: uids of Experts by name."""

    pod: Manifest
    experts: Mapping[str, str]
    #: Uid of the Expert that it serves; empty for a gateway.
    serves: str = ""


class Rounds:
    """Keeps the traffic of all pools up to date."""

    def __init__(
        self,
        cache: Cache,
        answers: Answers,
        pods: PodClient,
        api: ApiClient,
        applier: Applier,
        on_news: Callable[[Manifest], None],
        *,
        port: int = METRICS_PORT,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask the pods in ``cache`` at ``port``; call ``on_news`` with each pool after the round that ends a bucket."""
        self._cache = cache
        self._answers = answers
        self._pods = pods
        self._api = api
        self._applier = applier
        self._on_news = on_news
        self._port = port
        self._clock = clock
        self._ticks = ticks  # never runs backwards, unlike the clock
        self._asked: dict[str, float] = {}  # when a pool was asked last, in ticks, by uid
        self._bucket: dict[str, int] = {}  # the bucket that a pool was asked in last
        self._written: dict[str, float] = {}  # when a pool was written last, in ticks
        self._news: set[str] = set()  # pools with requests that are not written yet

    async def run(self) -> None:
        """Make rounds until cancelled."""
        await every(ROUND_SECONDS, self.make)

    async def make(self) -> None:
        """Make one round: ask the pods of all pools, and write what a finished bucket of five minutes holds."""
        pools = list(self._cache.all("ExpertPool"))
        uids = {pool["metadata"]["uid"] for pool in pools}
        self._news &= uids
        for known in (self._answers.traffic, self._asked, self._bucket, self._written):
            for uid in known.keys() - uids:
                del known[uid]
        await asyncio.gather(*(self._look_at(pool) for pool in pools))

    async def finish(self) -> None:
        """Make a last round and write everything, as the operator does before it stops."""
        await self.make()
        pools = [pool for pool in self._cache.all("ExpertPool") if pool["metadata"]["uid"] in self._asked]
        await asyncio.gather(*(self._write(pool) for pool in pools))

    async def _look_at(self, pool: Manifest) -> None:
        with confined(pool, "asking what its pods counted"):
            uid = pool["metadata"]["uid"]
            sources = list(self._sources(pool))
            if uid not in self._answers.traffic:
                if not sources:
                    return  # Nothing to ask yet, and perhaps nothing for ever.
                traffic = await self._read(pool)
                if traffic is None:
                    return
                self._answers.traffic[uid] = traffic
            await self._ask(self._answers.traffic[uid], uid, sources)
            bucket = int(self._clock() // MINUTES)
            if self._bucket.setdefault(uid, bucket) != bucket:
                self._bucket[uid] = bucket
                self._on_news(pool)
                if uid in self._news or self._ticks() - self._written.setdefault(uid, self._ticks()) >= HOUR:
                    await self._write(pool)

    async def _ask(self, traffic: PoolTraffic, uid: str, sources: list[_Source]) -> None:
        """Ask pods, and add what happened since they were asked before."""
        answers = await asyncio.gather(*(self._answer(source.pod) for source in sources))
        now, ticks = self._clock(), self._ticks()
        elapsed = ticks - self._asked[uid] if uid in self._asked else max(0.0, now - traffic.asked)
        before = datetime.fromtimestamp(traffic.asked, UTC) if traffic.asked else None
        asked = Round(time=now, elapsed=elapsed if traffic.asked else 0.0, before=before)
        for expert, usage in _presence(sources, asked):
            traffic.add(expert, now, usage)
        given: dict[str, Observations] = {}
        for source, answer in zip(sources, answers, strict=True):
            pod = source.pod["metadata"]["uid"]
            last = traffic.answers.get(pod)
            if answer is None:
                if last is not None:
                    given[pod] = last
                continue
            given[pod] = answer
            for name, usage in happened(last, answer, observed_pod(source.pod).created, asked).items():
                if name in source.experts:
                    traffic.add(source.experts[name], now, usage)
                    if any(usage.sums()):
                        self._news.add(uid)
        traffic.answers, traffic.asked = given, now
        self._asked[uid] = ticks
        traffic.keep({expert for source in sources for expert in source.experts.values()} or traffic.experts)

    async def _answer(self, pod: Manifest) -> Observations | None:
        text = await self._pods.get(pod, self._port, "/observations", longest=LONGEST_ANSWER)
        if text is None:
            return None
        try:
            return Observations.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            warn_once(
                pod, f"its /observations cannot be used: {'.'.join(map(str, first['loc']))}: {first['msg']}"
            )
            return None

    def _sources(self, pool: Manifest) -> Iterator[_Source]:
        """Yield the ready gateways of a pool, and the ready servers of its Experts."""
        namespace, name = pool["metadata"]["namespace"], pool["metadata"]["name"]
        experts = {
            expert["metadata"]["name"]: expert["metadata"]["uid"]
            for expert in self._cache.of_pool("Expert", namespace, name)
        }
        gateway = gateway_of(self._cache, namespace, pool["metadata"]["uid"])
        for pod in pods_of_deployment(self._cache, gateway) if gateway is not None else []:
            if observed_pod(pod).ready:
                yield _Source(pod, experts)
        for expert, uid in experts.items():
            for deployment in self._cache.of_controller("Deployment", namespace, uid):
                if has_role(deployment, Role.SERVER):
                    for pod in pods_of_deployment(self._cache, deployment):
                        if observed_pod(pod).ready:
                            yield _Source(pod, {expert: uid}, serves=uid)

    async def _read(self, pool: Manifest) -> PoolTraffic | None:
        """Return what was written about a pool, or nothing yet; None if the API server does not answer."""
        metadata = pool["metadata"]
        try:
            found = await self._api.get(
                CONFIG_MAP, metadata["namespace"], observations_name(metadata["name"])
            )
        except ApiError as error:
            return PoolTraffic() if error.not_found else None
        except (aiohttp.ClientError, TimeoutError):
            return None
        if controller_uid(found) != metadata["uid"]:
            return PoolTraffic()
        try:
            return await asyncio.to_thread(unpacked, packed_observations(found))
        except ValueError as error:
            warn_once(found, f"its observations cannot be used and begin anew: {error}")
            return PoolTraffic()

    async def _write(self, pool: Manifest) -> None:
        uid = pool["metadata"]["uid"]
        traffic = self._answers.traffic.get(uid)
        if traffic is None:
            return
        with confined(pool, "writing its observations"):
            model = self._cache.model(pool, ExpertPool)
            packed = await asyncio.to_thread(traffic.packed)
            try:
                manifest = build_observations(pool=model, packed=packed)
                await self._applier.carry_out(Plan(apply=(manifest,)), pool)
                self._news.discard(uid)
                self._written[uid] = self._ticks()
            except _TRY_AGAIN as error:
                log.info("what was observed of %s is written later: %s", pool["metadata"]["name"], error)


def _presence(sources: list[_Source], asked: Round) -> Iterator[tuple[str, Usage]]:
    """Yield for each Expert of a pool that it was observed, and for how long its servers were there."""
    experts = {uid for source in sources for uid in source.experts.values()}
    for uid in experts:
        servers = sum(source.serves == uid for source in sources)
        yield uid, Usage(observed_seconds=asked.observed, replica_seconds=servers * asked.observed)
