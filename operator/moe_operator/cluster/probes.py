"""Asks running pods for what only they know: the progress of training, and the routing policy that a gateway uses.

Progress is only shown; no decision depends on it. A gateway is asked for its policy only while it is ready and has not
reported the newest one, so the pods of a settled pool are not asked at all.

Only pods are asked that belong to a Job or a gateway of ours (see kinship.py), and only at the ports that builders give
them.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from pydantic import BaseModel

from moe_formats.format import digest_of
from moe_formats.job_report import Progress
from moe_operator.builders.gateway import POLICY_KEY
from moe_operator.builders.pod import METRICS_PORT, PROGRESS_PORT
from moe_operator.cluster.asking import PodClient, every
from moe_operator.cluster.cache import Cache
from moe_operator.cluster.confine import confined
from moe_operator.cluster.gather import Answers
from moe_operator.cluster.job_pods import index_of, job_pods
from moe_operator.cluster.kinship import gateway_of, has_role, pods_of_deployment
from moe_operator.cluster.observe import job_state, observed_pod
from moe_operator.state import Manifest, Role

#: Seconds between two rounds in which all training Jobs are asked.
PROGRESS_SECONDS = 2.0
#: Seconds between two rounds in which all gateways are asked that have not reported the newest policy.
POLICY_SECONDS = 0.25


class Ports(NamedTuple):
    """The ports at which pods are asked."""

    progress: int = PROGRESS_PORT
    policy: int = METRICS_PORT


#: The ports that builders give to pods.
BUILT = Ports()


class Probes:
    """Keeps ``answers`` up to date."""

    def __init__(
        self,
        cache: Cache,
        answers: Answers,
        pods: PodClient,
        on_news: Callable[[Manifest], None],
        *,
        ports: Ports = BUILT,
    ) -> None:
        """Ask the pods in ``cache``; call ``on_news`` with each training Job or gateway pod whose answer has changed."""
        self._cache = cache
        self._answers = answers
        self._on_news = on_news
        self._ports = ports
        self._pods = pods

    async def run(self) -> None:
        """Ask until cancelled."""
        await asyncio.gather(
            every(PROGRESS_SECONDS, self.ask_progress), every(POLICY_SECONDS, self.ask_policies)
        )

    async def ask_progress(self) -> None:
        """Ask rank 0 of every running training Job for its progress."""
        running = {job["metadata"]["uid"]: job for job in self._running_jobs()}
        for uid in self._answers.progress.keys() - running.keys():
            del self._answers.progress[uid]
        await asyncio.gather(*(self._ask_job(job) for job in running.values()))

    async def ask_policies(self) -> None:
        """Ask every ready gateway pod that has not reported the newest policy of its pool for the one that it uses."""
        ready: set[str] = set()
        behind: list[Manifest] = []
        for pool in self._cache.all("ExpertPool"):
            with confined(pool, "finding its gateways"):
                pods = self._ready_gateways(pool)
                newest = self._newest_policy(pool)
                ready |= {pod["metadata"]["uid"] for pod in pods}
                behind += [pod for pod in pods if newest is not None and newest != self._reported(pod)]
        for uid in self._answers.policies.keys() - ready:
            del self._answers.policies[uid]
        await asyncio.gather(*(self._ask_gateway(pod) for pod in behind))

    def _running_jobs(self) -> Iterator[Manifest]:
        for expert in self._cache.all("Expert"):
            metadata = expert["metadata"]
            for job in self._cache.of_controller("Job", metadata["namespace"], metadata["uid"]):
                if has_role(job, Role.TRAIN) and job_state(job) == "Running":
                    yield job

    def _ready_gateways(self, pool: Manifest) -> list[Manifest]:
        deployment = gateway_of(self._cache, pool["metadata"]["namespace"], pool["metadata"]["uid"])
        pods = pods_of_deployment(self._cache, deployment) if deployment is not None else []
        return [pod for pod in pods if observed_pod(pod).ready]

    def _newest_policy(self, pool: Manifest) -> str | None:
        metadata = pool["metadata"]
        for item in self._cache.of_controller("ConfigMap", metadata["namespace"], metadata["uid"]):
            text = (item.get("data") or {}).get(POLICY_KEY)
            if text is not None and has_role(item, Role.GATEWAY):
                return _digest(text)
        return None

    def _reported(self, pod: Manifest) -> str | None:
        return self._answers.policies.get(pod["metadata"]["uid"])

    async def _ask_job(self, job: Manifest) -> None:
        with confined(job, "asking for its progress"):
            namespace, uid = job["metadata"]["namespace"], job["metadata"]["uid"]
            pod = _rank_zero(job_pods(job, self._cache.of_controller("Pod", namespace, uid)).pods)
            if pod is None:
                return
            text = await self._pods.get(pod, self._ports.progress, "/progress")
            try:
                progress = Progress.model_validate_json(text or b"")
            except ValueError:
                return
            if self._answers.progress.get(uid) != progress:
                self._answers.progress[uid] = progress
                self._on_news(job)

    async def _ask_gateway(self, pod: Manifest) -> None:
        with confined(pod, "asking for its policy"):
            text = await self._pods.get(pod, self._ports.policy, "/policy")
            try:
                digest = _PolicyAnswer.model_validate_json(text or b"").digest
            except ValueError:
                return
            if self._reported(pod) != digest:
                self._answers.policies[pod["metadata"]["uid"]] = digest
                self._on_news(pod)


class _PolicyAnswer(BaseModel):
    """The part of a gateway's answer to /policy that is read here."""

    digest: str | None = None


@lru_cache(maxsize=64)
def _digest(text: str) -> str:
    return digest_of(text.strip())


def _rank_zero(pods: Iterable[Manifest]) -> Manifest | None:
    """Return the running pod of a Job that is its first or only one; None if there is none, or if several claim to be."""
    first = [
        pod for pod in pods if index_of(pod) == 0 and (pod.get("status") or {}).get("phase") == "Running"
    ]
    return first[0] if len(first) == 1 else None
