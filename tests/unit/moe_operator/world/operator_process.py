"""One life of the operator: cache, queue, gather, planners and applier, joined as main.py joins them.

Only what waits is left out: connections, watches, probes and timers. The world tells it of changes, rings for
it, and asks the gateways for it. What it knows is lost with it; the next one lists everything again.
"""

from collections.abc import Hashable, Mapping
from datetime import datetime, timedelta
from typing import Any

from moe_operator.cluster.apply import Applier
from moe_operator.cluster.cache import Cache
from moe_operator.cluster.gather import Answers
from moe_operator.cluster.internal_error import error_plan
from moe_operator.cluster.kinship import remember_former_jobs
from moe_operator.cluster.ownership import NameTaken
from moe_operator.cluster.queue import FIRST_DELAY, KeyedQueue
from moe_operator.cluster.reconcile import NAME_TAKEN_WAIT, SHOWN_AFTER
from moe_operator.cluster.resources import WATCHED
from moe_operator.cluster.triggers import concerned
from moe_operator.config import OperatorConfig
from moe_operator.state import Key, Manifest, Plan
from moe_operator.subjects import SUBJECTS
from world.client import Client, finish
from world.invariants import check_need

_SUBJECTS = {subject.kind: subject for subject in SUBJECTS}
_POOL_OF = {subject.kind: subject.pool for subject in SUBJECTS}


class OperatorProcess:
    """What is between two kills."""

    def __init__(self, client: Client, config: OperatorConfig, policies: Mapping[str, str | None]) -> None:
        """List everything, ask the gateways (``policies`` is what they say), and queue every key."""
        self.cache, self.answers = Cache(), Answers(policies=dict(policies))
        self.queue: KeyedQueue[Key] = KeyedQueue(self._lane_of)
        self.client, self._server, self._config = client, client.server, config
        self._applier = Applier(client, self.cache)  # type: ignore[arg-type]
        self._due: dict[Key, datetime] = {}
        #: How often in a row a name was taken that the plan of a key needs.
        self._taken: dict[Key, int] = {}
        self._news: list[tuple[Manifest, bool]] = []
        for resource in WATCHED:
            for item in finish(client.list(resource)).items:
                self.cache.put(item)
        remember_former_jobs(self.cache)
        self.cache.listen(self._changed)
        self._server.watch(lambda manifest, gone: self._news.append((manifest, gone)))
        for key in self.keys():
            self.queue.add(key)

    def keys(self) -> list[Key]:
        """Return what there is to reconcile."""
        return [
            Key(kind, item["metadata"]["namespace"], item["metadata"]["name"])
            for kind in _SUBJECTS
            for item in sorted(self.cache.all(kind), key=lambda item: str(item["metadata"]["name"]))
        ]

    def hear(self) -> None:
        """Take the watch events that have come meanwhile."""
        news, self._news = self._news, []
        for manifest, gone in news:
            if gone:
                metadata = manifest["metadata"]
                name = manifest["kind"], metadata["namespace"], metadata["name"]
                self.cache.remove(*name, metadata["uid"], int(metadata["resourceVersion"]))
            else:
                self.cache.put(manifest)

    def ask(self, policies: Mapping[str, str | None]) -> None:
        """Take what gateways say they serve by, by the uid of their pod; an answer that is news concerns their pool."""
        before, self.answers.policies = self.answers.policies, dict(policies)
        if before == policies:
            return
        for pod in list(self.cache.all("Pod")):
            uid = pod["metadata"]["uid"]
            if before.get(uid) != policies.get(uid):
                for key in concerned(pod, pod, self.cache, _POOL_OF).first:
                    self.queue.add(key)

    def next_due(self) -> datetime | None:
        """Return when the next key comes due by itself."""
        return min(self._due.values(), default=None)

    def take(self, now: datetime) -> Key | None:
        """Return the key whose turn it is, or None while nothing waits; the caller must give it back by ``done``."""
        self.hear()
        for key in [key for key, date in self._due.items() if date <= now]:
            del self._due[key]
            self.queue.add(key)
        return finish(self.queue.take()) if len(self.queue) else None

    def done(self, key: Key) -> None:
        """Free the lane of a key."""
        self.queue.done(key)

    def reconcile(self, key: Key, now: datetime) -> Plan:
        """Gather, plan and carry out, as a Reconciler does; what fails is not hidden, but for a name that is taken."""
        self.hear()
        about = self.cache.get(key.kind, key.namespace, key.name)
        if about is None:
            return Plan()
        plan = self.plan(key, now)
        check_need(plan, self._server)
        try:
            finish(self._applier.carry_out(plan, about))
        except NameTaken as error:
            self._taken[key] = self._taken.get(key, 0) + 1
            if self._taken[key] >= SHOWN_AFTER:
                about = self.cache.get(key.kind, key.namespace, key.name)
                finish(self._applier.carry_out(error_plan(about, error, now), about))
            delay = min(FIRST_DELAY * 2.0 ** self._taken[key], NAME_TAKEN_WAIT)
            self._ring(key, now + timedelta(seconds=delay))
        else:
            self._taken.pop(key, None)
            if plan.requeue is not None:
                self._ring(key, now + timedelta(seconds=plan.requeue))
        return plan

    def plan(self, key: Key, now: datetime) -> Plan:
        """Return what should be done about a key."""
        state = self.gather(key)
        return _SUBJECTS[key.kind].plan(state, self._config, now) if state is not None else Plan()

    def gather(self, key: Key) -> Any:
        """Return what is known of a key, or None if there is no such object."""
        self.hear()
        return _SUBJECTS[key.kind].gather(key, self.cache, self.answers)

    def _ring(self, key: Key, date: datetime) -> None:
        """Have a key looked at later; of several times the earliest holds."""
        self._due[key] = min(date, self._due.get(key, date))

    def _changed(self, old: Manifest | None, new: Manifest | None) -> None:
        first, then = concerned(old, new, self.cache, _POOL_OF)
        for key in sorted(first, key=_order):
            self.queue.add(key, ahead=True)
        for key in sorted(then, key=_order):
            self.queue.add(key)

    def _lane_of(self, key: Key) -> Hashable:
        manifest = self.cache.get(key.kind, key.namespace, key.name)
        return (key.namespace, _POOL_OF[key.kind](manifest) if manifest is not None else key.name)


def _order(key: Key) -> tuple[str, str]:
    return key.kind, key.name
