"""Asks running pods for what only they know: the progress of training, and the routing policy that a gateway uses.

Progress is only shown; no decision depends on it. A gateway is asked for its policy only while it is ready and has not
reported the newest one, so the pods of a settled pool are not asked at all.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache

import aiohttp
from pydantic import BaseModel

from moe_formats.format import digest_of
from moe_formats.job_report import Progress
from moe_formats.resources import labels
from moe_operator.cluster.cache import Cache
from moe_operator.cluster.gather import Answers
from moe_operator.cluster.observe import environment_of, job_state, observed_pod
from moe_operator.cluster.resources import label_of
from moe_operator.state import Manifest, Role

log = logging.getLogger(__name__)

#: Seconds between two rounds in which all training Jobs are asked.
PROGRESS_SECONDS = 2.0
#: Seconds between two rounds in which all gateways are asked that have not reported the newest policy.
POLICY_SECONDS = 0.25
#: Seconds after which an answer is no longer waited for.
ANSWER_SECONDS = 2.0
#: Largest answer that is read, in bytes.
LONGEST_ANSWER = 64 * 1024
#: Largest number of pods that are asked at the same time.
AT_ONCE = 32
#: Label of a pod of an Indexed Job: the number of the pod within the Job.
COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"


class Probes:
    """Keeps ``answers`` up to date."""

    def __init__(self, cache: Cache, answers: Answers, on_news: Callable[[Manifest], None]) -> None:
        """Ask the pods in ``cache``; call ``on_news`` with each training Job or gateway pod whose answer has changed."""
        self._cache = cache
        self._answers = answers
        self._on_news = on_news
        self._limit = asyncio.Semaphore(AT_ONCE)
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS))

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def run(self) -> None:
        """Ask until cancelled."""
        await asyncio.gather(
            _every(PROGRESS_SECONDS, self.ask_progress), _every(POLICY_SECONDS, self.ask_policies)
        )

    async def ask_progress(self) -> None:
        """Ask rank 0 of every running training Job for its progress."""
        running = {job["metadata"]["uid"]: job for job in self._cache.all("Job") if _trains(job)}
        for uid in self._answers.progress.keys() - running.keys():
            del self._answers.progress[uid]
        await asyncio.gather(*(self._ask_job(job) for job in running.values()))

    async def ask_policies(self) -> None:
        """Ask every ready gateway pod that has not reported the newest policy of its pool for the one that it uses."""
        pods = [
            pod for pod in self._cache.all("Pod") if _has_role(pod, Role.GATEWAY) and observed_pod(pod).ready
        ]
        for uid in self._answers.policies.keys() - {pod["metadata"]["uid"] for pod in pods}:
            del self._answers.policies[uid]
        await asyncio.gather(*(self._ask_gateway(pod) for pod in pods if self._is_behind(pod)))

    async def _ask_job(self, job: Manifest) -> None:
        metadata = job["metadata"]
        port = environment_of(job["spec"]["template"]).get("MOE_PROGRESS_PORT")
        pod = _rank_zero(self._cache.of_controller("Pod", metadata["uid"]))
        if port is None or pod is None:
            return
        text = await self._get(pod["status"]["podIP"], port, "/progress")
        try:
            progress = Progress.model_validate_json(text or b"")
        except ValueError:
            return
        if self._answers.progress.get(metadata["uid"]) != progress:
            self._answers.progress[metadata["uid"]] = progress
            self._on_news(job)

    async def _ask_gateway(self, pod: Manifest) -> None:
        metadata = pod["metadata"]
        port = self._gateway_port(metadata["namespace"], labels.belongings(pod).pool)
        address = pod["status"].get("podIP")
        if port is None or address is None:
            return
        text = await self._get(address, port, "/policy")
        try:
            digest = _PolicyAnswer.model_validate_json(text or b"").digest
        except ValueError:
            return
        if self._answers.policies.get(metadata["uid"]) != digest:
            self._answers.policies[metadata["uid"]] = digest
            self._on_news(pod)

    def _is_behind(self, pod: Manifest) -> bool:
        metadata = pod["metadata"]
        newest = self._newest_policy(metadata["namespace"], labels.belongings(pod).pool)
        return newest is not None and self._answers.policies.get(metadata["uid"]) != newest

    def _newest_policy(self, namespace: str, pool: str) -> str | None:
        for item in self._cache.of_pool("ConfigMap", namespace, pool):
            if _has_role(item, Role.GATEWAY):
                return next((_digest(text) for text in (item.get("data") or {}).values()), None)
        return None

    def _gateway_port(self, namespace: str, pool: str) -> str | None:
        for item in self._cache.of_pool("Deployment", namespace, pool):
            if _has_role(item, Role.GATEWAY):
                return environment_of(item["spec"]["template"]).get("METRICS_PORT")
        return None

    async def _get(self, address: str, port: str, path: str) -> bytes | None:
        """Return the body of an answer; None if there is none, or if it is an error, a redirect or too long."""
        url = f"http://{f'[{address}]' if ':' in address else address}:{port}{path}"
        try:
            async with self._limit, self._session.get(url, allow_redirects=False) as response:
                text = await response.content.read(LONGEST_ANSWER + 1)
                while not response.content.at_eof() and len(text) <= LONGEST_ANSWER:
                    text += await response.content.read(LONGEST_ANSWER + 1 - len(text))
                return text if response.status == 200 and len(text) <= LONGEST_ANSWER else None
        except (aiohttp.ClientError, TimeoutError) as error:
            log.debug("no answer from %s: %r", url, error)
            return None


class _PolicyAnswer(BaseModel):
    """The part of a gateway's answer to /policy that is read here."""

    digest: str | None = None


async def _every(seconds: float, ask: Callable[[], Awaitable[None]]) -> None:
    while True:
        await ask()
        await asyncio.sleep(seconds)


@lru_cache(maxsize=64)
def _digest(text: str) -> str:
    return digest_of(text.strip())


def _trains(job: Manifest) -> bool:
    return _has_role(job, Role.TRAIN) and job_state(job) == "Running"


def _rank_zero(pods: Iterable[Manifest]) -> Manifest | None:
    """Return the running pod of a Job that has an address and is its first or only one; None if there is none."""
    for pod in pods:
        status, marks = pod.get("status") or {}, pod["metadata"].get("labels") or {}
        running = status.get("phase") == "Running" and status.get("podIP")
        if running and marks.get(COMPLETION_INDEX, "0") == "0":
            return pod
    return None


def _has_role(manifest: Manifest, role: Role) -> bool:
    return label_of(manifest, labels.ROLE) == role
