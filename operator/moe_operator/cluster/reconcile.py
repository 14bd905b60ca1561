"""Workers: take a key, gather, plan, carry out. An error is that key's own."""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import aiohttp
from pydantic import ValidationError

from moe_operator.cluster.api_client import ApiError
from moe_operator.cluster.apply import Applier, NameTaken, Outdated
from moe_operator.cluster.cache import Cache
from moe_operator.cluster.gather import Answers
from moe_operator.cluster.internal_error import error_status
from moe_operator.cluster.lease import LeaseLost, LeaseNotRenewed
from moe_operator.cluster.metrics import Metrics
from moe_operator.cluster.queue import KeyedQueue
from moe_operator.cluster.resources import ref_of
from moe_operator.config import OperatorConfig
from moe_operator.state import Key, Manifest, Plan, StatusWrite

log = logging.getLogger(__name__)

State = TypeVar("State")

#: Failures of a key before its object says so: what passes by itself is not shown.
SHOWN_AFTER = 5
#: The longest delay, in seconds, of a key whose only trouble is that the world has moved on or away.
LONGEST_WAIT = 5.0


@dataclass(frozen=True)
class Subject(Generic[State]):
    """A kind that is reconciled: in which lane of the queue, what is gathered about it, and what plans it."""

    kind: str
    #: The name of the pool whose decisions an object takes part in: they are made one after the other.
    pool: Callable[[Manifest], str]
    #: None where the object is gone; raises ValidationError where it is not valid.
    gather: Callable[[Key, Cache, Answers], State | None]
    plan: Callable[[State, OperatorConfig, datetime], Plan]

    def reconcile(self, key: Key, cache: Cache, answers: Answers, config: OperatorConfig) -> Plan | None:
        """Return what should be done about an object now, or None if it is gone."""
        state = self.gather(key, cache, answers)
        return self.plan(state, config, datetime.now(UTC)) if state is not None else None


class Reconciler:
    """Brings one key after the other to where its spec wants it."""

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
        """Put the parts together; the subjects bring their planners, since this layer does not know them."""
        self._cache = cache
        self._queue = queue
        self._answers = answers
        self._applier = applier
        self._config = config
        self._metrics = metrics
        self._subjects = {subject.kind: subject for subject in subjects}

    async def work(self) -> None:
        """Take keys for ever; raises LeaseLost."""
        while True:
            key = await self._queue.take()
            started = time.monotonic()
            try:
                await self.look_at(key)
            finally:
                self._queue.done(key)
                self._metrics.reconcile_seconds.labels(key.kind).observe(time.monotonic() - started)

    async def look_at(self, key: Key) -> None:
        """Reconcile a key; whatever fails is tried again later."""
        try:
            requeue = await self._reconcile(key)
        except LeaseLost:
            raise
        except (Outdated, LeaseNotRenewed, aiohttp.ClientError, TimeoutError) as error:
            log.info("%s is looked at again: %s", _name(key), error or type(error).__name__)
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
        delay = self._queue.fail(key)
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
            log.warning("the error could not be shown on %s: %s", _name(key), second)

    async def _show(self, about: Manifest, error: Exception) -> None:
        """Say on the object itself that it could not be processed, once per error."""
        status = error_status(about, error, datetime.now(UTC))
        if status is not None:
            write = StatusWrite(ref_of(about), status, about["metadata"]["resourceVersion"])
            await self._applier.carry_out(Plan(statuses=(write,)), about)


def _name(key: Key) -> str:
    return f"{key.kind} {key.namespace}/{key.name}"
