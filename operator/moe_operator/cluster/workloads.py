"""Reads what Kueue says about the Jobs in its queue: why a Job waits. It is only shown; no decision depends on it.

Kueue makes one Workload per Job, which the Job controls. Workloads are listed, not watched, and only in namespaces where a Job
of ours waits in a queue. Where Kueue is missing or its Workloads may not be read, the status names the object to look at.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp

from moe_formats.resources import labels
from moe_operator.cluster.api_client import ApiClient, ApiError
from moe_operator.cluster.cache import Cache
from moe_operator.cluster.gather import Answers
from moe_operator.cluster.kinship import owners_of
from moe_operator.cluster.observe import job_state
from moe_operator.cluster.reduced import reduced
from moe_operator.cluster.resources import WORKLOADS, controller_uid, label_of
from moe_operator.cluster.sound import sound
from moe_operator.state import Manifest

log = logging.getLogger(__name__)

#: Seconds between two readings.
ASK_SECONDS = 5.0
#: Longest reason that is taken over, in characters.
LONGEST_REASON = 500


class Workloads:
    """Keeps ``answers.waits`` up to date."""

    def __init__(
        self, api: ApiClient, cache: Cache, answers: Answers, on_news: Callable[[Manifest], None]
    ) -> None:
        """Read by ``api`` about the Jobs in ``cache``; call ``on_news`` with each Job for which the reason has changed."""
        self._api = api
        self._cache = cache
        self._answers = answers
        self._on_news = on_news
        self._said = ""

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            await asyncio.sleep(ASK_SECONDS)
            try:
                await self.ask()
            except Exception:  # Whatever this round met, the next one must still be made.
                log.exception("reading the Workloads of Kueue failed and is tried again")

    async def ask(self) -> None:
        """Read once why the Jobs wait that are in a queue and suspended."""
        waiting = {job["metadata"]["uid"]: job for job in self._cache.all("Job") if self._waits(job)}
        for uid in self._answers.waits.keys() - waiting.keys():
            del self._answers.waits[uid]
        for namespace in sorted({job["metadata"]["namespace"] for job in waiting.values()}):
            for uid, reason in (await self._reasons(namespace)).items():
                if uid in waiting and self._answers.waits.get(uid) != reason:
                    self._answers.waits[uid] = reason
                    self._on_news(waiting[uid])

    def _waits(self, job: Manifest) -> bool:
        ours = next(owners_of(self._cache, job), None) is not None
        return ours and bool(label_of(job, labels.QUEUE)) and job_state(job) == "Suspended"

    async def _reasons(self, namespace: str) -> dict[str, str]:
        """Return the reasons of a namespace by uid of the Job; none if they cannot be read."""
        problem = ""
        for resource in WORKLOADS:
            try:
                items = (await self._api.list(resource, namespace, keep=_kept)).items
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                problem = str(error)
                if isinstance(error, ApiError) and error.not_found:
                    continue  # Another version of Kueue serves another version of the kind.
                break
            return {item["job"]: item["reason"] for item in items if item["job"]}
        if problem != self._said:
            log.warning("the Workloads of Kueue in namespace %s cannot be read: %s", namespace, problem)
            self._said = problem
        return {}


def _kept(item: Mapping[str, Any]) -> dict[str, Any]:
    workload = reduced(sound(item))
    return {"job": controller_uid(workload), "reason": why_it_waits(workload)}


def why_it_waits(workload: Manifest) -> str:
    """Return why a Workload of Kueue is not admitted, as the end of a sentence; empty if it is, or if nothing is said."""
    said = {item["type"]: item for item in (workload.get("status") or {}).get("conditions") or []}
    evicted = _holds(said, "Evicted")
    if _holds(said, "Finished") or (_holds(said, "Admitted") and not evicted):
        return ""
    parts = []
    if evicted:
        parts.append(f"it was evicted ({said['Evicted'].get('reason', '')}): {_message(said['Evicted'])}")
    if (workload.get("spec") or {}).get("active") is False:
        parts.append("its Workload was deactivated: set spec.active of the Workload to true")
    elif not _holds(said, "QuotaReserved"):
        parts.append(_message(said.get("QuotaReserved", {})))
    elif not evicted:
        parts.append("quota is reserved, and admission checks are not finished")
    return "; ".join(part for part in parts if part)[:LONGEST_REASON]


def _holds(said: Mapping[str, Manifest], type_: str) -> bool:
    return said.get(type_, {}).get("status") == "True"


def _message(condition: Manifest) -> str:
    return str(condition.get("message", "")).strip().rstrip(".")
