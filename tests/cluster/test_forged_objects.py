"""Objects that a person with the role `edit` makes up: none stops the operator, and none is believed."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from stage import Json, Refused, Stage

from moe_formats.job_report import Failure
from moe_formats.resources import labels

IMAGE = "moe-operator/trainer:test"
LIE = Failure(reason="LossNotFinite", message="made up").to_json()
SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def create(stage: Stage, kind: str, name: str, marks: dict[str, str], **parts: Any) -> None:
    """Create an object with any metadata, as `kubectl create` would."""
    metadata = {
        "name": name,
        "labels": {labels.MANAGED_BY: labels.FIELD_MANAGER, **marks},
        **parts.pop("metadata", {}),
    }
    api_version = stage.path(kind).split("/namespaces")[0].removeprefix("/apis/").removeprefix("/api/")
    manifest = {"apiVersion": api_version, "kind": kind, "metadata": metadata, **parts}
    stage._request("POST", stage.path(kind), manifest, "application/json")


def pod_spec(stage: Stage, *command: str) -> Json:
    """Return the spec of a pod that a person with `edit` may create in a namespace with the standard `restricted`."""
    container = {"name": "main", "image": IMAGE, "command": list(command), "securityContext": SECURITY}
    return {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]}


@pytest.fixture
def stage(new_stage: Callable[[str], Stage]) -> Iterator[Stage]:
    """A namespace in which nothing is left behind that still runs."""
    stage = new_stage("forged")
    yield stage
    stage.clear()
    for name in stage.names("Pod"):
        with contextlib.suppress(Refused):
            stage.delete("Pod", name)


ROLES = ("train", "snapshot", "evaluate", "server", "gateway", "x" * 63)


def test_labelled_objects_of_anybody_stop_nothing_and_count_for_nothing(stage: Stage):
    for number, role in enumerate(ROLES):
        for what, marks in {
            "poolless": {labels.ROLE: role},
            "of-pool": {
                labels.ROLE: role,
                labels.POOL: "pool",
                labels.EXPERT: "code",
                labels.REVISION: "code-1",
            },
        }.items():
            create(stage, "ConfigMap", f"{what}-{number}", marks, data={"policy.json": "{"})
            create(stage, "Pod", f"{what}-{number}", marks, spec=pod_spec(stage, "sleep", "1000"))
    stage.write("code")
    stage.pool()
    stage.expert("code")
    expert = stage.wait_ready("code")
    assert expert["status"]["currentRevision"] == "code-1"
    stage.expert("code", runID="second")
    stage.wait(
        "a second revision to serve", lambda: stage.status("code")["serving"].get("revision") == "code-2"
    )


def test_a_pod_that_names_our_job_as_its_controller_is_not_believed(stage: Stage):
    stage.write("code")
    stage.pool()
    stage.expert("code")
    job = stage.wait("the training Job", lambda: stage.get("Job", "code-1-a1"))
    uid = job["metadata"]["uid"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "code-1-a1", "uid": uid, "controller": True}
    script = f"import sys; open('/dev/termination-log', 'w').write('''{LIE}'''); sys.exit(64)"
    spec = pod_spec(stage, "python", "-c", script)
    metadata = {"ownerReferences": [owner]}
    create(stage, "Pod", "code-1-a1-forgd", {labels.ROLE: "train"}, metadata=metadata, spec=spec)
    stage.wait_ready("code")
    revision = stage.status("code-1", "ExpertRevision")
    assert revision["verdict"]["outcome"] == "Promoted"
    assert revision["attempts"] == 1
