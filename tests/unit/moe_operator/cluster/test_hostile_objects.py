"""Objects with any field missing or absurd, fed to the operator's own loops: nothing but the object's own key may fail."""

import copy
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from kubernetes.client import Configuration
from world import CONFIG, World
from world.client import Client

from moe_formats.resources import labels
from moe_operator.cluster.connection import Connection
from moe_operator.cluster.resources import WATCHED, resource_of
from moe_operator.main import Operator
from moe_operator.state import Key, Plan, Role
from moe_operator.subjects import SUBJECTS

Path = tuple[str | int, ...]

REMOVED = object()
ABSURD = (None, -1, 10**30, "", "x\0[{", [], [None, 7, {}, [[]]], {"x": [{}]})
#: Parts of manifests that the operator compares with what it wants, but never reads one by one.
COMPARED = {
    ("spec", name)
    for name in ("podFailurePolicy", "inputs", "suite", "containers", "volumes", "securityContext")
}
COMPARED.add(("spec", "template", "spec"))


def walk(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of every field; of a list, only those of its first item."""
    if path:
        yield path
    if path in COMPARED:
        return
    for name in (
        value if isinstance(value, dict) else range(min(len(value), 1)) if isinstance(value, list) else ()
    ):
        yield from walk(value[name], (*path, name))


def replaced(manifest: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """Return a copy of an object with another value at a path."""
    result = copy.deepcopy(manifest)
    inner: Any = result
    for part in path[:-1]:
        inner = inner[part]
    if value is REMOVED:
        del inner[path[-1]]
    else:
        inner[path[-1]] = copy.deepcopy(value)
    return result


@pytest.fixture(scope="module")
def world() -> World:
    """Two pools in one namespace, with Experts that serve, and one Expert that is being trained."""
    world = World()
    world.pool(routing={"strategy": "Distilled"})
    world.expert("general")
    world.expert("code")
    world.settle()
    world.change("code", base={"expert": "general", "follow": "Propose"})
    world.change("general", seed=2)
    world.settle()
    world.put("ExpertPool", "other", {"storage": {"size": "1Gi"}})
    world.expert("stranger", pool="other", base={"preset": "tiny"})
    world.settle()
    world.kubelet.durations["train"] = timedelta(hours=2)
    world.expert("busy")
    world.run(until=world.now + timedelta(minutes=5))
    return world


class Loops:
    """The operator's own parts, as main.py joins them, in front of the API server in memory."""

    def __init__(self, world: World) -> None:
        self.operator = Operator(CONFIG, Connection(Configuration(host="http://127.0.0.1:1")))
        self.operator.lister._api = Client(world.server)  # type: ignore[assignment]
        self._now = world.now
        self._version = world.server.version

    async def start(self) -> None:
        """Fill the cache and ask pods, as the operator does when it starts."""
        await self.operator._start()

    async def feed(self, manifest: dict[str, Any], kind: str) -> None:
        """Have the watch bring an object, if its version can be read as a newer one, and run the other loops."""
        operator, resource = self.operator, resource_of(kind)
        self._version += 1
        metadata = manifest.get("metadata")
        if isinstance(metadata, dict) and str(metadata.get("resourceVersion")).isdecimal():
            metadata["resourceVersion"] = str(self._version)
        operator._observe(resource, copy.deepcopy(manifest), False)
        await operator.probes.ask_progress()
        await operator.probes.ask_policies()
        operator._refresh_metrics()

    def forget(self, kind: str, namespace: str, name: str) -> None:
        """Have the watch say that an object is gone."""
        live = self.operator.cache.get(kind, namespace, name)
        assert live is not None
        self.operator._observe(resource_of(kind), dict(live), True)

    def plans(self) -> dict[Key, Plan | Exception]:
        """Return the plan of every key, or why there is none."""
        found: dict[Key, Plan | Exception] = {}
        for subject in SUBJECTS:
            for item in list(self.operator.cache.all(subject.kind)):
                key = Key(subject.kind, item["metadata"]["namespace"], item["metadata"]["name"])
                try:
                    state = subject.gather(key, self.operator.cache, self.operator.answers)
                    found[key] = subject.plan(state, CONFIG, self._now) if state else Plan()
                except Exception as error:
                    found[key] = error
        return found


def unreachable(*_: Any, **__: Any) -> None:
    raise aiohttp.ClientConnectionError


@pytest.fixture
async def loops(world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(aiohttp.ClientSession, "get", unreachable)
    loops = Loops(world)
    await loops.start()
    yield loops
    await loops.operator.aclose()


OTHERS = {Key("ExpertPool", "default", "other"), Key("Expert", "default", "stranger")}


def samples(world: World, kind: str) -> list[dict[str, Any]]:
    """Return an object of a kind per role, all of them of the first pool."""
    found = {}
    for item in world.all(kind):
        said = item["metadata"].get("labels") or {}
        if "stranger" in str(item) or item["metadata"]["name"].startswith("other"):
            continue
        found[said.get(labels.ROLE)] = item
    return list(found.values())


def own_key(manifest: dict[str, Any], kind: str) -> Key:
    """Return the key of the object that an object belongs to, which may fail because of it."""
    said = labels.belongings({"apiVersion": manifest["apiVersion"], **manifest})
    if kind in ("Expert", "ExpertPool", "ExpertProposal"):
        return Key(kind, "default", manifest["metadata"]["name"])
    return Key("Expert", "default", said.expert) if said.expert else Key("ExpertPool", "default", said.pool)


def places(loops: Loops, kind: str) -> set[tuple[str, str]]:
    return {
        (item["metadata"]["namespace"], item["metadata"]["name"]) for item in loops.operator.cache.all(kind)
    }


@pytest.mark.parametrize("kind", [resource.kind for resource in WATCHED])
async def test_an_object_with_any_field_missing_or_absurd_spoils_no_other_key(
    kind: str, world: World, loops: Loops
) -> None:
    before, there = loops.plans(), places(loops, kind)
    assert not [plan for plan in before.values() if isinstance(plan, Exception)]
    found = samples(world, kind)
    assert found, f"the world has no {kind}"
    for sample in found:
        own = own_key(sample, kind)
        for number, path in enumerate(walk(sample)):
            # Each field is removed, and takes one of the absurd values: its neighbours take others.
            for value in (REMOVED, ABSURD[number % len(ABSURD)]):
                await loops.feed(replaced(sample, path, value), kind)
                what = f"{kind} {sample['metadata']['name']} with {'.'.join(map(str, path))} = {value!r:.40}"
                after = loops.plans()
                spoilt = {key: plan for key, plan in after.items() if isinstance(plan, Exception)}
                assert spoilt.keys() <= {own}, f"{what} spoils {spoilt}"
                assert {key: after.get(key) for key in OTHERS} == {key: before[key] for key in OTHERS}, what
                for namespace, name in places(loops, kind) - there:
                    loops.forget(kind, namespace, name)
                await loops.feed(copy.deepcopy(sample), kind)
    after = loops.plans()
    assert not [plan for plan in after.values() if isinstance(plan, Exception)]
    assert {key: plan.create for key, plan in after.items()} == {
        key: plan.create for key, plan in before.items()
    }


async def test_objects_with_nothing_but_a_label_keep_no_operator_from_starting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = world.fork()
    for resource in WATCHED:
        for number, role in enumerate(["", "x" * 63, *Role]):
            marks = {labels.MANAGED_BY: labels.FIELD_MANAGER, labels.ROLE: role}
            metadata = {"name": f"bare-{number}", "namespace": "default", "labels": marks}
            world.server.add(
                {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
            )
    monkeypatch.setattr(aiohttp.ClientSession, "get", unreachable)
    loops = Loops(world)
    await loops.start()
    assert loops.operator.liveness.ready
    assert len(loops.operator.queue) > len(OTHERS)
    after = loops.plans()
    bare = {key for key, plan in after.items() if isinstance(plan, Exception)}
    assert {key.name.partition("-")[0] for key in bare} == {"bare"}, "each fails for itself"
    assert after.keys() >= OTHERS
    await loops.operator.aclose()
