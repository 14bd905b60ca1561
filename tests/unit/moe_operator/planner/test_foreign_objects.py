"""An object of somebody else that has a name that the operator needs is left exactly as it is, and the owner is told.

The objects of these tests are put there by somebody who may write everything in the namespace but custom resources'
statuses: without labels, with labels that are copied from the operator's own objects, or with another owner.
"""

from datetime import timedelta
from typing import Any

import pytest
from world import POOL, World
from world.scene import NAMESPACE

from moe_formats.resources import labels
from moe_operator.state import Manifest, Role

API_VERSIONS = {"Job": "batch/v1", "Deployment": "apps/v1", "ExpertRevision": labels.API_VERSION}
TEMPLATE = {"metadata": {"labels": {}}, "spec": {"containers": [{"name": "theirs", "image": "theirs:1"}]}}
CONTENT: dict[str, dict[str, Any]] = {
    "ExpertRevision": {"spec": {"expert": "other", "expertUID": "theirs", "inputsDigest": "theirs"}},
    "Job": {"spec": {"suspend": True, "parallelism": 1, "template": TEMPLATE}},
    "Deployment": {"spec": {"replicas": 0, "template": TEMPLATE}},
    "Service": {"spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]}},
    "ConfigMap": {"data": {"theirs": "yes"}},
    "PersistentVolumeClaim": {"spec": {"resources": {"requests": {"storage": "1Gi"}}}},
}
#: Every name of a child of Expert `general` and of its pool that can be known beforehand, with the object that says so.
NAMES = [
    ("ExpertRevision", "general-1", "general"),
    ("Job", "general-1-a1", "general"),
    ("Job", "general-1-e1", "general"),
    ("Deployment", "general-1", "general"),
    ("Service", "general-1", "general"),
    ("ConfigMap", f"{POOL}-routing", POOL),
    ("Deployment", f"{POOL}-gateway", POOL),
    ("Service", f"{POOL}-gateway", POOL),
]
CONTROLLED = {
    "apiVersion": "apps/v1",
    "kind": "StatefulSet",
    "name": "db",
    "uid": "db-uid",
    "controller": True,
}
COPIED = {labels.MANAGED_BY: labels.FIELD_MANAGER, labels.POOL: POOL, labels.EXPERT: "general"}


def foreign(kind: str, name: str, **metadata: Any) -> dict[str, Any]:
    """Return an object of somebody else."""
    return {
        "apiVersion": API_VERSIONS.get(kind, "v1"),
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE, **metadata},
        **CONTENT[kind],
    }


def guises(world: World) -> dict[str, dict[str, Any]]:
    """Return what the metadata of a foreign object may look like."""
    uid = world.get("Expert", "general")["metadata"]["uid"] if world.has("Expert", "general") else "x"
    owner = {"apiVersion": labels.API_VERSION, "kind": "Expert", "name": "general", "uid": uid}
    world.server.add(
        foreign("ConfigMap", "db", uid="db-uid")
    )  # So that the garbage collector finds the owner.
    return {
        "bare": {},
        "labelled": {"labels": COPIED},
        "of another owner": {"labels": COPIED, "ownerReferences": [CONTROLLED]},
        "owned but not controlled": {"labels": COPIED, "ownerReferences": [owner]},
    }


def begun() -> World:
    world = World()
    world.pool()
    world.expert("general")
    return world


def stalled(world: World, name: str) -> tuple[str, str, str]:
    """Return the condition Stalled of an Expert or the pool."""
    return world.pool_condition("Stalled") if name == POOL else world.condition(name, "Stalled")


def taken(world: World, name: str) -> str:
    """Let time pass until an Expert or the pool says that a name is taken, at most 20 minutes; return its message."""
    end = world.now + timedelta(minutes=20)
    while world.now < end:
        world.run(until=world.now + timedelta(seconds=20))
        status, reason, message = stalled(world, name)
        if reason == "NameTaken":
            assert status == "True"
            return message
    raise AssertionError(f"{name} says {stalled(world, name)}")


def same(live: Manifest, before: Manifest) -> bool:
    """Return whether an object is as it was, but for what the cluster's own controllers write into its status."""
    return all(live.get(part) == before.get(part) for part in ("spec", "data")) and (
        {**live["metadata"], "resourceVersion": ""} == {**before["metadata"], "resourceVersion": ""}
    )


@pytest.mark.parametrize("guise", ["bare", "labelled", "of another owner", "owned but not controlled"])
@pytest.mark.parametrize(("kind", "name", "said_by"), NAMES)
def test_a_name_that_is_taken_is_named_and_nothing_is_written(
    kind: str, name: str, said_by: str, guise: str
) -> None:
    world = begun()
    before = world.server.add(foreign(kind, name, **guises(world)[guise]))
    message = taken(world, said_by)
    world.run(until=world.now + timedelta(minutes=1))
    assert taken(world, said_by) == message
    assert same(world.get(kind, name), before)
    for words in (f"{kind} {name}", "Delete that object", f"{said_by} and create it under another name"):
        assert words in message
    if guise == "of another owner":
        assert "StatefulSet db" in message
    world.delete(kind, name)
    world.settle()
    assert world.status("general").phase == "Serving"
    assert world.pool_status().phase == "Ready"
    assert stalled(world, said_by)[0] == "False"


@pytest.mark.parametrize("guise", ["bare", "labelled"])
def test_foreign_objects_stay_when_the_expert_and_the_pool_go(guise: str) -> None:
    world = begun()
    marks = guises(world)[guise]
    # One of the Expert's, of which the first is met, and all of the pool's and the server's behind it.
    before = {(kind, name): world.server.add(foreign(kind, name, **marks)) for kind, name, _ in NAMES[3:]}
    taken(world, "general")
    world.delete("Expert", "general")
    world.delete("ExpertPool", POOL)
    world.run(until=world.now + timedelta(minutes=5))
    for (kind, name), manifest in before.items():
        assert same(world.get(kind, name), manifest)


@pytest.mark.parametrize(
    ("kind", "name", "role"),
    [
        ("Deployment", "general-7", Role.SERVER),
        ("Job", f"{POOL}-distill-00000000", Role.DISTILL),
        ("Job", "general-7-a1", Role.TRAIN),
        ("Job", "general-snapshot-00000000", Role.SNAPSHOT),
    ],
)
def test_labels_alone_have_nothing_deleted_or_started(kind: str, name: str, role: Role) -> None:
    """What a pool does about the Jobs and servers that it finds by label, it does about its own only."""
    world = begun()
    marks = {**COPIED, labels.ROLE: role.value, labels.REVISION: "general-7"}
    before = world.server.add(foreign(kind, name, labels=marks))
    world.settle()
    assert same(world.get(kind, name), before)
    assert world.status("general").phase == "Serving", "and it takes up nobody's turn"


def test_the_service_of_a_server_that_is_finished_goes_only_if_it_is_ours() -> None:
    world = begun()
    world.settle()
    world.change("general", seed=7)
    while world.status("general").serving.revision != "general-2":
        world.run(until=world.now + timedelta(seconds=0.5))
    assert world.has("Deployment", "general-1"), "requests may still be on their way to it"
    world.delete("Service", "general-1")
    before = world.server.add(foreign("Service", "general-1"))
    world.settle()
    assert not world.has("Deployment", "general-1")
    assert same(world.get("Service", "general-1"), before)


def test_what_serves_goes_on_while_the_next_one_has_no_name() -> None:
    world = begun()
    world.settle()
    world.server.add(foreign("Service", "general-2"))
    world.change("general", seed=7)
    taken(world, "general")
    assert world.condition("general", "Ready")[0] == "True"
    assert world.status("general").phase == "Starting"
    assert [entry.revision for entry in world.policy().experts] == ["general-1"]  # type: ignore[union-attr]


def test_a_pool_without_a_gateway_still_starts_jobs() -> None:
    world = begun()
    world.server.add(foreign("Service", f"{POOL}-gateway"))
    taken(world, POOL)
    world.expert("code")
    world.run(until=world.now + timedelta(minutes=5))
    taken(world, POOL)
    assert "code-1" in world.revisions("code")
    assert world.revision("code-1").status.artefact is not None


def test_no_gang_starts_whose_pods_would_meet_at_a_foreign_service() -> None:
    world = World()
    world.pool()
    world.expert("general", training={"resources": {"nodes": 2}})
    while not world.has("Job", "general-1-a1"):
        world.run(until=world.now + timedelta(seconds=0.5))
    world.delete("Job", "general-1-a1")
    world.delete("Service", "general-gang")
    before = world.server.add(foreign("Service", "general-gang"))
    assert "Service general-gang already exists" in taken(world, "general")
    world.run(until=world.now + timedelta(minutes=1))
    assert not world.has("Job", "general-1-a2")
    assert same(world.get("Service", "general-gang"), before)
    world.delete("Service", "general-gang")
    world.settle()
    assert world.get("Job", "general-1-a2")["spec"]["parallelism"] == 2
    assert world.status("general").phase == "Serving"


def test_a_pool_that_is_created_again_finds_its_claim() -> None:
    world = begun()
    world.settle()
    claim = world.get("PersistentVolumeClaim", f"{POOL}-store")
    world.delete("Expert", "general")
    world.delete("ExpertPool", POOL)
    world.settle()
    world.pool()
    world.expert("general")
    world.settle()
    assert world.get("PersistentVolumeClaim", f"{POOL}-store") == claim
    assert world.status("general").phase == "Serving"


def orphan(world: World, kind: str, name: str) -> None:
    """Delete an object as `kubectl delete --cascade=orphan` does: what it owned stays, without an owner."""
    uid = world.get(kind, name)["metadata"]["uid"]
    for key, item in list(world.server.objects.items()):
        if any(owner["uid"] == uid for owner in item["metadata"].get("ownerReferences") or []):
            world.server.merge(key, {"metadata": {"ownerReferences": None}})
    world.delete(kind, name)


@pytest.mark.parametrize("owner", ["general", POOL])
def test_what_an_orphaning_deletion_left_over_is_listed_all_at_once(owner: str) -> None:
    world = begun()
    world.settle()
    kind = "ExpertPool" if owner == POOL else "Expert"
    orphan(world, kind, owner)
    begin = world.pool if owner == POOL else lambda: world.expert(owner)
    begin()
    message = taken(world, owner)
    assert f"left over from an earlier {kind} {owner} that was deleted with --cascade=orphan" in message
    command = message[message.index("`kubectl delete") :].split("`")[1]
    _, _, *listed = command.split()
    for item in listed:
        called, _, name = item.partition("/")
        kinds = {found.lower(): found for found, _, _ in world.server.objects}
        world.delete(kinds[called.partition(".")[0]], name)
    world.settle()
    world.run(until=world.now + timedelta(minutes=1))
    world.settle()
    assert world.status("general").phase == "Serving"
    assert world.pool_status().phase == "Ready"
