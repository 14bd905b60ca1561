"""Objects of somebody else that have the names that an Expert and its pool need: nothing touches them, and each is named.

They are copies of what another Expert and its pool have, under the names of an Expert and a pool that do not exist yet.
Half of them bear the operator's labels.
"""

import json
import time
from collections.abc import Callable, Iterator

import pytest
from stage import PATHS, Json, Stage

#: Kind and name of each object, the one that it is a copy of, and who meets it; in the order in which they are met.
FOREIGN = [
    ("ExpertRevision", "second-1", "first-1", "second"),
    ("Job", "second-1-a1", "first-1-a1", "second"),
    ("Job", "second-1-e1", "first-1-e1", "second"),
    ("Deployment", "second-1", "first-1", "second"),
    ("Service", "second-1", "first-1", "second"),
    ("ConfigMap", "late-routing", "pool-routing", "late"),
    ("Deployment", "late-gateway", "pool-gateway", "late"),
    ("Service", "late-gateway", "pool-gateway", "late"),
]
LABELLED = {"Job", "Deployment", "ConfigMap"}
OWNERS = {"second": "Expert", "third": "Expert", "late": "ExpertPool"}


@pytest.fixture(scope="module")
def stage(new_stage: Callable[[str], Stage]) -> Iterator[Stage]:
    """An Expert that serves, whose objects are copied."""
    stage = new_stage("foreign")
    stage.write("first")
    stage.pool()
    stage.expert("first", serving={"temperature": 0.5})
    stage.wait_ready("first")
    yield stage
    stage.clear()


def put(stage: Stage, kind: str, name: str, original: str) -> Json:
    """Create a copy of an object under another name; return it once the cluster's controllers are done with it."""
    live = stage.get(kind, original)
    assert live is not None, f"{kind} {original}"
    text = json.dumps(live["metadata"].get("labels", {}))
    marks = json.loads(text.replace("first", "second").replace('"pool"', '"late"'))
    copied = {key: value for key, value in live.items() if key in ("spec", "data")}
    if kind == "Deployment":
        copied["spec"] |= {"replicas": 0}
    if kind == "Job":
        copied["spec"] = {"suspend": True, "template": {"spec": live["spec"]["template"]["spec"]}}
    if kind == "PersistentVolumeClaim":
        del copied["spec"]["volumeName"]
    if kind == "Service":
        copied["spec"] = {"clusterIP": "None", **{key: live["spec"][key] for key in ("selector", "ports")}}
    metadata = {"name": name, "labels": marks if kind in LABELLED else {}}
    stage.create(kind, {"apiVersion": PATHS[kind][0], "kind": kind, "metadata": metadata, **copied})
    found = stage.get(kind, name)
    while True:
        time.sleep(0.2)
        before, found = found, stage.get(kind, name)
        if found is not None and found == before and _is_seen(found):
            return found


def _is_seen(live: Json) -> bool:
    """Return whether the controller of an object's kind has written all that it will: none of them runs a pod."""
    status = live.get("status", {})
    if live["kind"] == "Deployment":
        reasons = {item["type"]: item["reason"] for item in status.get("conditions", ())}
        return reasons.get("Progressing") == "NewReplicaSetAvailable"
    first = {"Job": "conditions", "PersistentVolumeClaim": "capacity"}
    return live["kind"] not in first or first[live["kind"]] in status


def met(stage: Stage, owner: str, kind: str, name: str) -> str:
    """Wait until an Expert or a pool says that an object is in its way; have it looked at again meanwhile, as an edit would."""

    def says() -> str:
        nudge = {"metadata": {"annotations": {"nudge": str(time.monotonic())}}}
        stage.patch(OWNERS[owner], owner, nudge)
        stalled = stage.condition(owner, "Stalled", OWNERS[owner])
        message = str(stalled.get("message", ""))
        return message if message.startswith(f"{kind} {name} already exists") else ""

    message = str(stage.wait(f"{owner} to meet {kind} {name}", says))
    assert stage.condition(owner, "Stalled", OWNERS[owner])["reason"] == "NameTaken"
    return message


def test_each_is_left_alone_and_named_and_everything_goes_on_without_it(stage: Stage) -> None:
    there = {(kind, name): put(stage, kind, name, original) for kind, name, original, _ in FOREIGN}
    claim = put(stage, "PersistentVolumeClaim", "late-store", "pool-store")
    stage.pool("late")
    stage.expert("second", pool="late", folder="first")
    for kind_, name in (("ExpertPool", "late"), ("Expert", "second")):
        refused = stage.wait_for(name, "Ready", "False", reason="ClaimNotAllowed", kind=kind_)
        assert "'late-store'" in refused["message"]
    assert stage.get("PersistentVolumeClaim", "late-store") == claim
    stage.delete("PersistentVolumeClaim", "late-store")
    for kind, name, _, owner in FOREIGN:
        message = met(stage, owner, kind, name)
        assert f"{OWNERS[owner]} {owner} needs the name" in message
        assert "Delete that object" in message
        for (found, called), before in there.items():
            assert stage.get(found, called) == before, f"{found} {called}"
        stage.delete(kind, name)
        del there[kind, name]
    assert stage.wait_ready("second")["status"]["serving"]["revision"] == "second-1"
    stage.wait_for("late", "Stalled", "False", kind="ExpertPool")
    events = {item["reason"] for item in stage.all("Event") if item["involvedObject"]["name"] == "second"}
    assert "NameTaken" in events


def test_they_stay_when_the_expert_and_its_pool_are_deleted(stage: Stage) -> None:
    """The last of them are met only when a server is made; the garbage collector deletes what the Expert owns."""
    foreign = [
        (kind, name.replace("second", "third").replace("late", "gone")) for kind, name, *_ in FOREIGN[3:]
    ]
    originals = [original for _, _, original, _ in FOREIGN[3:]]
    there = {
        (kind, name): put(stage, kind, name, original)
        for (kind, name), original in zip(foreign, originals, strict=True)
    }
    stage.pool("gone")
    stage.expert("third", pool="gone", folder="first")
    met(stage, "third", "Deployment", "third-1")
    stage.delete("Expert", "third")
    stage.delete("ExpertPool", "gone")
    stage.wait("the revision to go", lambda: stage.get("ExpertRevision", "third-1") is None)
    stage.wait("the Jobs to go", lambda: not stage.names("Job", "third-"))
    for (kind, name), before in there.items():
        assert stage.get(kind, name) == before, f"{kind} {name}"
    assert stage.get("PersistentVolumeClaim", "gone-store"), "a pool's weights outlive it"


def test_what_a_server_was_created_with_goes_when_the_spec_leaves_it_out(stage: Stage) -> None:
    """It was set by a create, and the API server lets an apply remove only what an apply has set."""
    annotation = "moe-operator.dev/temperature"

    def annotations() -> Json:
        return dict((stage.get("Deployment", "first-1") or {}).get("metadata", {}).get("annotations", {}))

    assert annotations()[annotation] == "0.5"
    stage.patch("Expert", "first", {"spec": {"serving": {"temperature": None}}})
    stage.wait("the annotation to go", lambda: annotations() and annotation not in annotations())
    stage.wait_ready("first")
