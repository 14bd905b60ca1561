"""The workers: each takes a key, gathers its state, plans, and applies the plan. An error affects only its own key."""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import aiohttp
from pydantic import ValidationError

from moe_operator.cluster.api_client import ApiError
from moe_operator.cluster.apply import Applier, Outdated
from moe_operator.cluster.cache import Cache
from moe_operator.cluster.gather import Answers
from moe_operator.cluster.internal_error import error_plan
from moe_operator.cluster.lease import LeaseLost, LeaseNotRenewed
from moe_operator.cluster.metrics import Metrics
from moe_operator.cluster.ownership import NameTaken
from moe_operator.cluster.queue import LONGEST_DELAY, KeyedQueue
from moe_operator.config import OperatorConfig
from moe_operator.state import Key, Manifest, Plan

log = logging.getLogger(__name__)

State = TypeVar("State")

#: Number of failures in a row after which an object's status shows the error. Fewer may pass by themselves.
SHOWN_AFTER = 5
#: Longest delay, in seconds, after a failure that needs nobody's help: an object has changed meanwhile, the API server
#: did not answer, or the Lease could not be renewed.
LONGEST_WAIT = 5.0
#: Longest delay, in seconds, until it is tried again whether a name that was taken is free. Objects of others are not
#: watched, so only an attempt can tell.
NAME_TAKEN_WAIT = 10.0


@dataclass(frozen=True)
class Subject(Generic[State]):
    """A kind that is reconciled: which pool its objects belong to, what is gathered about one, and what plans it."""

    kind: str
    #: Returns the name of an object's pool. Objects of one pool are reconciled one after the other.
    pool: Callable[[Manifest], str]
    #: Returns what the plan may look at; None if the object is gone. Raises ValidationError if it is not valid.
    gather: Callable[[Key, Cache, Answers], State | None]
    plan: Callable[[State, OperatorConfig, datetime], Plan]

    def reconcile(self, key: Key, cache: Cache, answers: Answers, config: OperatorConfig) -> Plan | None:
        """Return what should be done about an object now, or None if it is gone."""
        state = self.gather(key, cache, answers)
        return self.plan(state, config, datetime.now(UTC)) if state is not None else None


class Reconciler:
    """Reconciles one key after the other."""

    def __init__(
        self,
        *,
        cache: Cache,
        queue: KeyedQueue[Key],
        answers: Answers,
        applier: Applier,
        config: OperatorConfig,
        metrics: Metrics,
        subjects: Iterable[Subject[Any]],
    ) -> None:
        """Take the parts. The planners come with ``subjects``, since this layer does not import them."""
        self._cache = cache
        self._queue = queue
        self._answers = answers
        self._applier = applier
        self._config = config
        self._metrics = metrics
        self._subjects = {subject.kind: subject for subject in subjects}

    async def work(self) -> None:
        """Reconcile keys until cancelled. Raises LeaseLost."""
        while True:
            key = await self._queue.take()
            started = time.monotonic()
            try:
                await self.look_at(key)
            finally:
                self._queue.done(key)
                self._metrics.reconcile_seconds.labels(key.kind).observe(time.monotonic() - started)

    async def look_at(self, key: Key) -> None:
        """Reconcile a key; if it fails, have it tried again later. Raises LeaseLost."""
        try:
            requeue = await self._reconcile(key)
        except LeaseLost:
            raise
        except (Outdated, LeaseNotRenewed, aiohttp.ClientError, TimeoutError) as error:
            log.info("%s is tried again: %s", _name(key), error or type(error).__name__)
            self._queue.fail(key, longest=LONGEST_WAIT)
        except Exception as error:
            await self._failed(key, error)
        else:
            self._queue.succeed(key)
            if requeue is not None:
                self._queue.add_after(key, requeue)

    async def _reconcile(self, key: Key) -> float | None:
        about = self._cache.get(key.kind, key.namespace, key.name)
        if about is None or "deletionTimestamp" in about["metadata"]:
            return None
        plan = self._subjects[key.kind].reconcile(key, self._cache, self._answers, self._config)
        if plan is None:
            return None
        await self._applier.carry_out(plan, about)
        return plan.requeue

    async def _failed(self, key: Key, error: Exception) -> None:
        delay = self._queue.fail(
            key, longest=NAME_TAKEN_WAIT if isinstance(error, NameTaken) else LONGEST_DELAY
        )
        self._metrics.reconcile_errors.labels(key.kind, type(error).__name__).inc()
        expected = isinstance(error, NameTaken | ApiError | ValidationError)
        log.error(
            "%s failed and is tried again in %.2f s: %s",
            _name(key),
            delay,
            error,
            exc_info=None if expected else error,
        )
        about = self._cache.get(key.kind, key.namespace, key.name)
        if about is None or self._queue.failures(key) < SHOWN_AFTER:
            return
        try:
            await self._show(about, error)
        except LeaseLost:
            raise
        except Exception as second:
            log.warning("the error could not be written to the status of %s: %s", _name(key), second)

    async def _show(self, about: Manifest, error: Exception) -> None:
        """Write into the object's own status that it could not be processed, once per error."""
        await self._applier.carry_out(error_plan(about, error, datetime.now(UTC)), about)


def _name(key: Key) -> str:
    return f"{key.kind} {key.namespace}/{key.name}"
