import asyncio

import aiohttp
import pytest

from moe_operator.cluster.api_client import ApiError
from moe_operator.cluster.apply import Applier
from moe_operator.cluster.gather import Answers, gather_expert
from moe_operator.cluster.lease import LeaseLost
from moe_operator.cluster.metrics import Metrics
from moe_operator.cluster.queue import KeyedQueue
from moe_operator.cluster.reconcile import NAME_TAKEN_WAIT, SHOWN_AFTER, Reconciler, Subject
from moe_operator.cluster.resources import ref_of
from moe_operator.config import Images, OperatorConfig
from moe_operator.state import Key, Plan, StatusWrite

#: Seconds after which something that was waited for never comes. It is never the pace of a test.
HANGS = 60

E, F = Key("Expert", "ns", "e"), Key("Expert", "ns", "f")


class Machine:
    """A reconciler whose planner is set by each test; `step` looks at one key."""

    def __init__(self, api, cache):
        self.cache = cache
        self.queue = KeyedQueue(lambda key: key.name)
        self.plan = lambda state: Plan()
        self.metrics = Metrics()
        self.reconciler = Reconciler(
            cache=cache,
            queue=self.queue,
            answers=Answers(),
            applier=Applier(api, cache),
            config=OperatorConfig(images=Images(trainer="t", gateway="g"), profiles={}),
            metrics=self.metrics,
            subjects=[
                Subject("Expert", lambda _: "p", gather_expert, lambda state, config, now: self.plan(state))
            ],
        )

    async def step(self, key):
        await self.reconciler.look_at(key)

    def status(self, name="e"):
        return self.cache.get("Expert", "ns", name).get("status") or {}


@pytest.fixture
def machine(api, cache, expert):
    for name in ("e", "f"):
        cache.put(api.add(expert(name)))
    return Machine(api, cache)


def stalled(status):
    return next((item for item in status.get("conditions", []) if item["type"] == "Stalled"), None)


async def test_a_plan_is_carried_out_and_wakes_again_when_it_says(machine, api):
    manifest = machine.cache.get("Expert", "ns", "e")
    write = StatusWrite(ref_of(manifest), {"phase": "X"}, manifest["metadata"]["resourceVersion"])
    machine.plan = lambda state: Plan(statuses=(write,), requeue=0.01)
    await machine.step(E)
    assert machine.status() == {"phase": "X"}
    assert await asyncio.wait_for(machine.queue.take(), HANGS) == E


async def test_an_error_is_shown_on_the_object_once_it_stays_and_harms_no_other(machine, api):
    def plan(state):
        if state.expert.metadata.name == "e":
            raise ZeroDivisionError("boom")
        return Plan()

    machine.plan = plan
    for _ in range(SHOWN_AFTER - 1):
        await machine.step(E)
    assert machine.status() == {}
    for _ in range(3):
        await machine.step(E)
    condition = stalled(machine.status())
    assert (condition["status"], condition["reason"]) == ("True", "InternalError")
    assert "ZeroDivisionError: boom" in condition["message"]
    assert len([write for write in api.writes if write[0] == "status"]) == 1, "the same error is written once"
    await machine.step(F)
    assert machine.queue.failures(F) == 0
    assert machine.status("f") == {}


async def test_an_object_of_another_version_says_which_field_is_wrong(machine, api, cache, expert):
    cache.put(api.add(expert("e", spec={"seed": "many"})))
    for _ in range(SHOWN_AFTER):
        await machine.step(E)
    assert "spec.seed" in stalled(machine.status())["message"]


def needs(machine, make):
    """Have Expert `e` need a Service, and the planner also write a status: what it would be if the Service were there."""
    service = make("Service", "mine", owner="uid-e", pool="p", expert="e", spec={"a": 1})
    for field in ("uid", "resourceVersion", "creationTimestamp", "generation"):
        del service["metadata"][field]

    def plan(state):
        if state.expert.metadata.name != "e":
            return Plan()
        manifest = machine.cache.get("Expert", "ns", "e")
        status = {"conditions": [{"type": "Ready", "status": "True", "reason": "Ready"}], "phase": "Serving"}
        write = StatusWrite(ref_of(manifest), status, manifest["metadata"]["resourceVersion"])
        return Plan(apply=(service,), statuses=(write,) if machine.status() != status else ())

    machine.plan = plan


async def test_a_name_that_is_taken_is_shown_once_and_passes_by_itself(machine, api, make):
    needs(machine, make)
    api.add({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "mine", "namespace": "ns"}})
    for _ in range(SHOWN_AFTER + 5):
        await machine.step(E)
    condition = stalled(machine.status())
    assert (condition["status"], condition["reason"]) == ("True", "NameTaken")
    assert "Service mine already exists and was created by somebody else" in condition["message"]
    assert machine.status()["phase"] == "Stalled"
    assert [write[:2] for write in api.writes if write[0] != "create"] == [("status", "Expert")]
    events = [item for (kind, *_), item in api.objects.items() if kind == "Event"]
    assert [(item["reason"], item["type"]) for item in events] == [("NameTaken", "Warning")]
    assert machine.queue.fail(E, longest=NAME_TAKEN_WAIT) == NAME_TAKEN_WAIT, "so often it is tried at most"
    await machine.step(F)
    assert machine.status("f") == {}, "no other object is affected"
    api.server.delete(("Service", "ns", "mine"))
    await machine.step(E)
    assert machine.status()["phase"] == "Serving"
    assert machine.queue.failures(E) == 0


async def test_what_serves_stays_ready_while_a_name_is_taken(machine, api, make):
    needs(machine, make)
    await machine.step(E)
    assert machine.status()["phase"] == "Serving"
    api.server.delete(("Service", "ns", "mine"))
    machine.cache.remove("Service", "ns", "mine", "")
    api.add({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "mine", "namespace": "ns"}})
    for _ in range(SHOWN_AFTER):
        await machine.step(E)
    ready = next(item for item in machine.status()["conditions"] if item["type"] == "Ready")
    assert ready["status"] == "True"
    assert (machine.status()["phase"], machine.status()["reason"]) == ("Serving", "NameTaken")
    assert stalled(machine.status())["reason"] == "NameTaken"


async def test_a_lost_connection_is_not_shown_and_is_tried_again_soon(machine):
    def plan(state):
        raise aiohttp.ClientConnectionError("away")

    machine.plan = plan
    for _ in range(20):
        await machine.step(E)
    assert machine.status() == {}
    assert machine.queue.fail(E, longest=5) == 5


async def test_success_forgets_failures(machine):
    machine.plan = lambda state: 1 / 0
    await machine.step(E)
    machine.plan = lambda state: Plan()
    await machine.step(E)
    assert machine.queue.failures(E) == 0


async def test_losing_the_lease_ends_the_worker(machine):
    def plan(state):
        raise LeaseLost("gone")

    machine.plan = plan
    machine.queue.add(E)
    with pytest.raises(LeaseLost):
        await asyncio.wait_for(machine.reconciler.work(), HANGS)


async def test_what_is_gone_or_going_is_left_alone(machine, api, cache, expert):
    machine.plan = lambda state: pytest.fail("must not be planned")
    cache.put(api.add(expert("e", deleted="2026-01-01T00:00:00Z")))
    await machine.step(E)
    await machine.step(Key("Expert", "ns", "nobody"))
    assert api.writes == []


async def test_a_key_that_failed_frees_its_lane(machine):
    machine.plan = lambda state: 1 / 0
    machine.queue.add(E)
    worker = asyncio.create_task(machine.reconciler.work())
    async with asyncio.timeout(2):
        while machine.queue.failures(E) < 2:
            await asyncio.sleep(0.01)
    worker.cancel()
    assert machine.queue.failures(E) >= 2, (
        "it was handed out again, which a lane in use would not have allowed"
    )


async def test_what_the_api_server_refuses_is_no_internal_error(machine):
    def plan(state):
        raise ApiError(403, "Forbidden", "exceeded quota: jobs, requested: count/jobs.batch=1")

    machine.plan = plan
    for _ in range(SHOWN_AFTER):
        await machine.step(E)
    condition = stalled(machine.status())
    assert (condition["status"], condition["reason"]) == ("True", "RequestRefused")
    assert "exceeded quota: jobs" in condition["message"]
