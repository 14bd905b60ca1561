"""The applier on a real API server: what other people's objects and its own records of who set which field do to it."""

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import Configuration
from kubernetes.config import load_kube_config

from moe_formats.resources import labels
from moe_local.cluster import LocalCluster
from moe_operator.cluster.api_client import ApiClient, ApiError
from moe_operator.cluster.apply import Applier, Outdated
from moe_operator.cluster.cache import Cache
from moe_operator.cluster.connection import Connection
from moe_operator.cluster.ownership import NameTaken
from moe_operator.cluster.resources import CONFIG_MAP, controller_uid, ref_of, resource_of
from moe_operator.state import Manifest, Plan

GOLDEN = Path(__file__).parents[1] / "unit" / "moe_operator" / "builders" / "golden" / "cpu.yaml"
NAMESPACE = "team"
EXPERT = {
    "apiVersion": labels.API_VERSION,
    "kind": "Expert",
    "metadata": {"name": "owner", "namespace": NAMESPACE},
    "spec": {
        "pool": "pool",
        "domain": "owner",
        "base": {"preset": "tiny"},
        "data": {"sources": [{"store": "corpora", "path": "*"}]},
    },
}


def one_of_each_kind() -> dict[str, dict[str, Any]]:
    """Return one manifest of each kind that the operator creates, as the builders make it."""
    documents = yaml.load_all(GOLDEN.read_text(), yaml.CSafeLoader)
    return {item["kind"]: item for item in documents if isinstance(item, dict) and "kind" in item}


KINDS = one_of_each_kind()


@pytest.fixture
async def client(cluster: LocalCluster) -> AsyncIterator[ApiClient]:
    """The operator's own client, as the administrator."""
    configuration = Configuration()
    load_kube_config(str(cluster.kubeconfig), client_configuration=configuration, persist_config=False)
    client = ApiClient(Connection(configuration))
    yield client
    await client.close()


@pytest.fixture
async def expert(client: ApiClient) -> AsyncIterator[Manifest]:
    """An Expert to whom children belong: the garbage collector deletes those of an owner that does not exist."""
    made = await client.create(resource_of("Expert"), EXPERT)
    yield made
    await client.delete(resource_of("Expert"), ref_of(made), made["metadata"]["resourceVersion"])


def child(kind: str, expert: Manifest) -> dict[str, Any]:
    """Return a manifest of a child of the Expert; a claim has no owner."""
    manifest = copy.deepcopy(KINDS[kind])
    manifest["metadata"] |= {"name": "child", "namespace": NAMESPACE}
    if manifest["metadata"].get("ownerReferences"):
        manifest["metadata"]["ownerReferences"] = [reference(expert, controller=True)]
    return manifest


def reference(owner: Manifest, **more: Any) -> dict[str, Any]:
    metadata = owner["metadata"]
    named = {"apiVersion": owner["apiVersion"], "kind": owner["kind"]}
    return {**named, "name": metadata["name"], "uid": metadata["uid"], **more}


async def foreign(client: ApiClient, kind: str, expert: Manifest, guise: str) -> dict[str, Any]:
    """Create an object of somebody else with the child's name, and return it."""
    manifest = child(kind, expert)
    marks = manifest["metadata"]["labels"] | {labels.POOL: "another"}
    controller = {"apiVersion": "v1", "kind": "ConfigMap", "name": "kube-root-ca.crt", "controller": True}
    root = await client.get(CONFIG_MAP, NAMESPACE, "kube-root-ca.crt")
    manifest["metadata"] = {"name": "child", "namespace": NAMESPACE} | {
        "bare": {},
        "labelled": {"labels": marks},
        "owned but not controlled": {"labels": marks, "ownerReferences": [reference(expert)]},
        "of another owner": {
            "labels": marks,
            "ownerReferences": [controller | {"uid": root["metadata"]["uid"]}],
        },
    }[guise]
    if kind == "Deployment":
        manifest["spec"]["replicas"] = 0
    if kind == "Job":  # One without labels of its own gets those of its pods.
        manifest["spec"]["template"]["metadata"]["labels"] = {"app": "theirs"}
    await client.create(resource_of(kind), manifest)
    return await quiet(client, kind)


async def quiet(client: ApiClient, kind: str) -> dict[str, Any]:
    """Return the object with the child's name, once the controller of its kind has seen it and writes no more."""
    live: dict[str, Any] = {}
    while True:
        await asyncio.sleep(0.15)
        before, live = live, await client.get(resource_of(kind), NAMESPACE, "child")
        if live == before and is_done(live):
            return live


def is_done(live: Manifest) -> bool:
    """Return whether the controller of an object's kind has written all that it will, on a cluster without a node."""
    status = live.get("status", {})
    if live["kind"] == "Job":
        return "conditions" in status
    if live["kind"] == "Deployment":
        reasons = {item["type"]: item["reason"] for item in status.get("conditions", ())}
        return (
            status.get("observedGeneration") == live["metadata"]["generation"]
            and status.get("unavailableReplicas", 0) == live["spec"]["replicas"]
            and (live["spec"]["replicas"] > 0 or reasons.get("Progressing") == "NewReplicaSetAvailable")
        )
    return True


@pytest.fixture(autouse=True)
async def nothing_left(client: ApiClient) -> AsyncIterator[None]:
    """Delete whatever has the child's name afterwards."""
    yield
    for kind in KINDS:
        await removed(client, kind)


async def removed(client: ApiClient, kind: str) -> None:
    """Delete the object with the child's name, and wait until it is gone."""
    resource = resource_of(kind)
    for _ in range(100):
        try:
            live = await client.get(resource, NAMESPACE, "child")
            await client.delete(resource, ref_of(live), live["metadata"]["resourceVersion"])
        except ApiError as error:
            if error.not_found:
                return
            assert error.conflict, error
        await asyncio.sleep(0.05)
    raise AssertionError(f"{kind} child is still there")


def plan_of(manifest: Manifest) -> Plan:
    """Return a plan that asks for an object in the way in which the planners ask for its kind."""
    kept = manifest["kind"] in ("Deployment", "Service", "ConfigMap")
    return Plan(apply=(manifest,)) if kept else Plan(create=(manifest,))


@pytest.mark.parametrize("guise", ["bare", "labelled", "owned but not controlled", "of another owner"])
@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_an_object_of_somebody_else_keeps_every_byte(
    client: ApiClient, expert: Manifest, kind: str, guise: str
) -> None:
    before = await foreign(client, kind, expert, guise)
    applier, plan = Applier(client, Cache()), plan_of(child(kind, expert))
    for _ in range(2):
        with pytest.raises(NameTaken, match=f"{kind} child already exists and was created by somebody else"):
            await applier.carry_out(plan, expert)
    assert await client.get(resource_of(kind), NAMESPACE, "child") == before
    await removed(client, kind)
    await applier.carry_out(plan, expert)
    live = await client.get(resource_of(kind), NAMESPACE, "child")
    assert controller_uid(live) == ("" if kind == "PersistentVolumeClaim" else expert["metadata"]["uid"])


class Swapping(ApiClient):
    """Has an object of somebody else take a child's name just before the next change of it, once."""

    swap: Callable[[], Awaitable[None]] | None = None

    async def _request(self, method: str, path: str, *args: Any, **options: Any) -> dict[str, Any]:
        if method in ("PATCH", "DELETE") and self.swap is not None:
            swap, self.swap = self.swap, None
            await swap()
        return await super()._request(method, path, *args, **options)


@pytest.mark.parametrize("change", ["hand over", "apply", "label", "resume", "scale", "delete"])
async def test_no_change_meets_an_object_that_was_swapped_in(
    client: ApiClient, expert: Manifest, change: str
) -> None:
    kind = {"label": "Job", "resume": "Job"}.get(change, "Deployment")
    cache, manifest = Cache(), child(kind, expert)
    swapping = Swapping(client._connection)
    applier = Applier(swapping, cache)
    try:
        await applier.carry_out(plan_of(manifest), expert)
        if change == "apply":
            await quiet(client, kind)
            edited = copy.deepcopy(manifest)
            edited["metadata"]["labels"]["first"] = "handed-over"
            await applier.carry_out(plan_of(edited), expert)
        live = await quiet(client, kind)
        cache.put(live)
        ref, there = ref_of(live), {}

        async def swap() -> None:
            await removed(client, kind)
            there.update(await foreign(client, kind, expert, "bare"))

        swapping.swap = swap
        manifest["metadata"]["labels"]["new"] = "yes"
        plan = {
            "resume": Plan(resume=(ref,)),
            "scale": Plan(scale=((ref, 3),)),
            "delete": Plan(delete=(ref,)),
        }.get(change, plan_of(manifest))
        if change == "delete":
            await applier.carry_out(plan, expert)
        else:
            with pytest.raises(Outdated):
                await applier.carry_out(plan, expert)
        assert swapping.swap is None, "the request was sent"
        assert await client.get(resource_of(kind), NAMESPACE, "child") == there
        assert cache.get(kind, NAMESPACE, "child") is None
    finally:
        await swapping.close()


async def test_a_field_that_the_create_has_set_goes_when_it_is_left_out(
    client: ApiClient, expert: Manifest
) -> None:
    cache, manifest = Cache(), child("Service", expert)
    applier = Applier(client, cache)
    more = copy.deepcopy(manifest)
    more["metadata"]["annotations"] = {"left": "out"}
    more["spec"]["selector"]["left"] = "out"
    await applier.carry_out(plan_of(more), expert)
    live = await client.get(resource_of("Service"), NAMESPACE, "child")
    assert live["spec"]["selector"]["left"] == "out"
    manifest["metadata"]["labels"]["new"] = (
        "yes"  # What is only left out is no difference that asks for a change.
    )
    await applier.carry_out(plan_of(manifest), expert)
    live = await client.get(resource_of("Service"), NAMESPACE, "child")
    assert "left" not in live["metadata"].get("annotations", {})
    assert live["spec"]["selector"] == manifest["spec"]["selector"]
    assert live["metadata"]["labels"] == manifest["metadata"]["labels"]


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("Service", {"spec": {"selector": {"added": "by-hand"}}}),
        ("ConfigMap", {"data": {"added": "by-hand"}, "binaryData": {"more": "eA=="}}),
        ("Deployment", {"spec": {"template": {"spec": {"nodeSelector": {"added": "by-hand"}}}}}),
    ],
)
async def test_what_somebody_adds_to_a_selector_or_to_data_is_taken_out(
    cluster: LocalCluster, client: ApiClient, expert: Manifest, kind: str, change: dict[str, Any]
) -> None:
    cache, manifest = Cache(), child(kind, expert)
    if kind == "Deployment":
        manifest["spec"]["replicas"] = 0
    applier = Applier(client, cache)

    def without(fields: Manifest) -> dict[str, Any]:
        return {name: fields.get(name) for name in change if fields.get(name)}

    await applier.carry_out(plan_of(manifest), expert)
    before = await quiet(client, kind)
    target, text = f"{kind}/child", json.dumps(change)
    cluster.kubectl("patch", target, "-n", NAMESPACE, "--type=merge", "-p", text)
    edited = await quiet(client, kind)
    assert without(edited) != without(before)
    cache.put(edited)
    await applier.carry_out(plan_of(manifest), expert)
    live = await quiet(client, kind)
    assert without(live) == without(before)
    cache.put(live)
    await applier.carry_out(plan_of(manifest), expert)
    again = await client.get(resource_of(kind), NAMESPACE, "child")
    assert again["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"]
