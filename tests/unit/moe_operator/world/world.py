"""World: a scene with a clock, a cluster that acts, and an operator that can be killed."""

import copy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from moe_operator.config import Images, OperatorConfig, Profile, Store
from moe_operator.state import Key, Plan
from moe_operator.subjects import SUBJECTS
from world import controllers
from world.api_server import ApiServer
from world.api_server import Key as ObjectKey
from world.client import Client
from world.invariants import Broken, check_deletion, check_doubles
from world.kubelet import Kubelet
from world.operator_process import OperatorProcess
from world.scene import NAMESPACE, Scene
from world.trainer import Trainer

T = TypeVar("T")

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)

#: Dates further off than this are not waited for when a world settles.
FAR = timedelta(minutes=30)

CONFIG = OperatorConfig(
    images=Images(trainer="moe-operator/trainer:0.1.0", gateway="moe-operator/gateway:0.1.0"),
    profiles={
        "cpu": Profile(requests={"cpu": "1", "memory": "1Gi"}),
        "nvidia": Profile(
            device="nvidia.com/gpu", tolerations=({"key": "nvidia.com/gpu", "operator": "Exists"},)
        ),
    },
    stores={"corpora": Store(claim="corpora")},
)


class Killed(Exception):
    """The operator is killed before a write."""


class World(Scene):
    """A pool's cluster, a clock, and one operator after the other."""

    def __init__(self, config: OperatorConfig = CONFIG) -> None:
        self.now = START
        self.server = ApiServer(self._clock)
        self.kubelet, self.trainer = Kubelet(), Trainer()
        #: Writes of the operator so far, its Events left out.
        self.writes = 0
        #: Names of the Jobs and revisions that the operator created, in order.
        self.created: list[str] = []
        #: Numbers of writes after which the operator is killed; each is used up once.
        self.kills: list[int] = []
        #: Where set: a fork after every write, each of them what a kill at that point leaves behind.
        self.history: list[World] | None = None
        self._config = config
        self._operator: OperatorProcess | None = None
        #: The version of the objects that the cluster acted on last.
        self._acted = -1
        #: Called after every plan.
        self._look: Callable[[], None] | None = None

    def fork(self) -> "World":
        """Return a world that goes its own way from here, with an operator that has just started."""
        other = copy.copy(self)
        other.server = self.server.fork(other._clock)
        other.kubelet, other.trainer = self.kubelet.fork(), self.trainer.fork()
        other.created, other.kills, other.history = list(self.created), [], None
        other._operator = other._look = None
        return other

    @property
    def config(self) -> OperatorConfig:
        """What the operator is started with; another one starts another operator."""
        return self._config

    @config.setter
    def config(self, config: OperatorConfig) -> None:
        self._config, self._operator = config, None

    @property
    def data(self) -> dict[str, int]:
        """What the sources of an Expert hold: another version is other data."""
        return self.trainer.data

    # -- what the operator does

    @property
    def operator(self) -> OperatorProcess:
        """The operator that runs, or one that is started now."""
        if self._operator is None:
            self._operator = OperatorProcess(_KillableClient(self), self.config, self.kubelet.policies)
        return self._operator

    def expert_state(self, name: str) -> Any:
        """Return what is gathered of an Expert."""
        return self.operator.gather(Key("Expert", NAMESPACE, name))

    def subjects(self) -> list[tuple[str, str]]:
        """Return what there is to reconcile."""
        kinds = {subject.kind for subject in SUBJECTS}
        return sorted((kind, name) for kind, _, name in self.server.objects if kind in kinds)

    def plan(self, kind: str, name: str) -> Plan:
        """Return the plan of one key."""
        return self.operator.plan(Key(kind, NAMESPACE, name), self.now)

    def reconcile(self, kind: str, name: str) -> Plan | None:
        """Plan one key and carry the plan out; None if the operator is killed in it, and another one starts."""
        try:
            return self.operator.reconcile(Key(kind, NAMESPACE, name), self.now)
        except Killed:
            self._operator = None
            return None
        finally:
            if self._look is not None:
                self._look()

    def reconcile_all(self) -> None:
        """Reconcile every key once, whether or not anything concerns it."""
        for key in self.subjects():
            self.reconcile(*key)

    # -- time

    def tick(self, seconds: float = 0.5) -> bool:
        """Let time pass and the cluster go on, but not the operator; return whether anything moved."""
        self.now += timedelta(seconds=seconds)
        before, self._acted = self.server.version, -1
        while self._cluster_acts():
            pass
        return self.server.version != before

    def settle(self) -> None:
        """Let everything happen, until nothing is left but far dates."""
        self.run(far=FAR, limit=3000)

    def course(self, read: Callable[["World"], T]) -> list[T]:
        """Settle, and return what ``read`` returned after each plan, without repetitions: how it came to the end."""
        seen: list[T] = []

        def look() -> None:
            value = read(self)
            if not seen or seen[-1] != value:
                seen.append(value)

        self._look = look
        self.settle()
        self._look = None
        return seen

    def run(
        self, until: datetime | None = None, *, far: timedelta | None = None, limit: int = 20_000
    ) -> None:
        """Let everything happen that comes due until a date, or until what comes next is ``far`` off.

        The clock jumps from one due date to the next: of a pod, or of a key that asked to be looked at again.
        A key is reconciled when a change concerns it or it is due, as the operator's queue has it.
        """
        self._acted = -1
        for _ in range(limit):
            busy = self._operator_acts()
            if self._cluster_acts() or busy:
                continue
            due = self._next_due()
            end = until if until is not None else self.now + (far or FAR)
            if due is None or due >= end:
                self.now = until if until is not None else self.now
                return
            self.now = max(self.now, due)
        raise Broken(f"not settled after {limit} steps")

    def _clock(self) -> datetime:
        return self.now

    def _operator_acts(self) -> bool:
        """Have the operator look at the key whose turn it is; return whether there was one."""
        operator = self.operator
        key = operator.take(self.now)
        if key is not None:
            self.reconcile(key.kind, key.name)
            operator.done(key)
        return key is not None

    def _cluster_acts(self) -> bool:
        """Have controllers and nodes do what is due, if anything may be; return whether anything changed."""
        due = self.kubelet.next_due()
        if self.server.version == self._acted and (due is None or due > self.now):
            return False
        self._acted = self.server.version
        moved = controllers.act(self.server, self.now)
        moved |= self.kubelet.act(self.server, self.trainer, self.now)
        self.operator.ask(self.kubelet.policies)
        return moved

    def _next_due(self) -> datetime | None:
        dates = (self.operator.next_due(), self.kubelet.next_due())
        return min((date for date in dates if date is not None), default=None)


class _KillableClient(Client):
    """The operator's client: counts its writes, checks the invariants at each, and is where it is killed."""

    def __init__(self, world: World) -> None:
        super().__init__(world.server)
        self._world = world

    def before_write(self, verb: str, key: ObjectKey) -> None:
        world = self._world
        if world.kills and world.writes >= world.kills[0]:
            world.kills.pop(0)
            raise Killed
        if verb == "delete":
            check_deletion(key, world.server, world.kubelet.policies.values())

    def after_write(self, verb: str, key: ObjectKey) -> None:
        world = self._world
        kind, _, name = key
        if kind == "Event":
            return
        world.writes += 1
        if verb == "create" and kind in ("Job", "ExpertRevision"):
            world.created.append(name)
        check_doubles(world.server)
        if world.history is not None:
            world.history.append(world.fork())
