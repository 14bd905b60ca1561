"""What a pod is given and what it tells: environment, volumes, logs, messages, refusals."""

from __future__ import annotations

import ssl
import time
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

import pytest

from .conftest import IMAGE, Space, condition, container, container_status, pod, wait_for

CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "store"},
    "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
}


def test_an_indexed_job_shares_a_claim_and_every_pod_knows_its_peers(space: Space) -> None:
    script = """
echo "index $JOB_COMPLETION_INDEX on $(hostname)"
touch "/moe/store/$JOB_COMPLETION_INDEX"
until [ -e /moe/store/0 ] && [ -e /moe/store/1 ]; do sleep 0.05; done
until python3 -c 'import socket; print("peer", socket.gethostbyname("gang-1.gang"))'; do sleep 0.05; done
touch "/moe/store/known-$JOB_COMPLETION_INDEX"  # a pod that has ended has no name: the other must have looked it up
until [ -e /moe/store/known-0 ] && [ -e /moe/store/known-1 ]; do sleep 0.05; done
echo "done $JOB_COMPLETION_INDEX" > /dev/termination-log
"""
    template = pod(
        "x", script, spec={"subdomain": "gang"}, volumeMounts=[{"name": "s", "mountPath": "/moe/store"}]
    )
    template["spec"]["volumes"] = [{"name": "s", "persistentVolumeClaim": {"claimName": "store"}}]
    template["spec"]["restartPolicy"] = "Never"
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "gang"},
        "spec": {
            "completions": 2,
            "parallelism": 2,
            "completionMode": "Indexed",
            "backoffLimit": 0,
            "template": {"metadata": {}, "spec": template["spec"]},
        },
    }
    selector = {"batch.kubernetes.io/job-name": "gang"}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "gang"},
        "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": selector},
    }
    space.apply(CLAIM, service, job)
    wait_for("the job is complete", lambda: condition(space.get("jobs", "gang") or {}, "Complete"))
    messages = {container_status(p)["state"]["terminated"]["message"].strip() for p in space.pods()}
    assert messages == {"done 0", "done 1"}
    second = next(
        p for p in space.pods() if p["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] == "1"
    )
    for found in space.pods():
        log = space.logs(found["metadata"]["name"])
        assert f"on {found['spec']['hostname']}" in log
        assert f"peer {second['status']['podIP']}" in log
    assert not Path("/moe").exists()


def test_a_claims_folder_goes_with_the_claim(space: Space) -> None:
    space.apply(CLAIM)
    name = wait_for(
        "the claim is bound",
        lambda: (space.get("persistentvolumeclaims", "store") or {})["spec"].get("volumeName"),
    )
    folder = space.cluster.folder.path / "agent" / "volumes" / name
    assert folder.is_dir()
    space.kubectl("delete", "pvc", "store", "--wait=false")
    wait_for("the volume is gone", lambda: space.api.get(f"/api/v1/persistentvolumes/{name}") is None)
    assert not folder.exists()


def test_a_pod_starts_when_the_secret_it_waits_for_comes(space: Space) -> None:
    env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}}]
    mounts = [{"name": "k", "mountPath": "/keys"}]
    volumes = [{"name": "k", "secret": {"secretName": "keys"}}]
    space.run(
        "waits", "cat /keys/token; echo; echo $TOKEN", env=env, volumeMounts=mounts, spec={"volumes": volumes}
    )

    space.wait_waiting("waits", "CreateContainerConfigError", 'secret "keys" not found')
    space.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"token": "s3"}}
    )
    space.wait_phase("waits", "Succeeded")
    assert space.logs("waits") == "s3\ns3\n"


def test_a_mounted_config_map_follows_its_object(space: Space) -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"colour": "red"}}
    space.apply(config)
    script = "until grep -q blue /config/colour; do sleep 0.02; done; touch /config/x || echo read-only"
    volumes = [{"name": "c", "configMap": {"name": "c"}}]
    space.run(
        "reads", script, volumeMounts=[{"name": "c", "mountPath": "/config"}], spec={"volumes": volumes}
    )
    space.wait_ready("reads")
    space.kubectl("patch", "configmap", "c", "-p", '{"data":{"colour":"blue"}}')
    changed = time.monotonic()
    space.wait_phase("reads", "Succeeded")
    # With the event, and not with the next round of a kubelet, for which it waits up to a minute.
    assert time.monotonic() - changed < 30
    assert "read-only" in space.logs("reads")


def test_a_pod_sees_its_own_files_and_leaves_none_on_the_machine(space: Space) -> None:
    script = """
echo mine > /tmp/mine; echo $HOME $TMPDIR
cat /pod/labels; echo
cat /inner
ls /var/run/secrets/kubernetes.io/serviceaccount
ls "$CERTIFICATES" 2>/dev/null | wc -l
env | cut -d= -f1 | sort | tr '\\n' ' '
"""
    volumes = [
        {
            "name": "pod",
            "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]},
        },
        {"name": "c", "configMap": {"name": "c"}},
    ]
    mounts = [{"name": "pod", "mountPath": "/pod"}, {"name": "c", "mountPath": "/inner", "subPath": "deep"}]
    space.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"deep": "down\n"}}
    )
    certificates = {"name": "CERTIFICATES", "value": str(space.cluster.folder.certificates)}
    space.run(
        "sees",
        script,
        labels={"app": "x"},
        spec={"volumes": volumes},
        volumeMounts=mounts,
        env=[certificates],
    )
    space.wait_phase("sees", "Succeeded")
    lines = space.logs("sees").splitlines()
    assert lines[0] == "/tmp /tmp"
    assert lines[1:3] == ['app="x"', "down"]
    assert lines[3:6] == ["ca.crt", "namespace", "token"]
    assert lines[6] == "0"
    kubernetes = {f"KUBERNETES_SERVICE_{name}" for name in ("HOST", "PORT", "PORT_HTTPS")}
    assert (
        set(lines[7].split())
        == {"CERTIFICATES", "HOME", "HOSTNAME", "LANG", "PATH", "PWD", "TMPDIR"} | kubernetes
    )
    assert not Path("/tmp/mine").exists()
    assert not any(Path(path).exists() for path in ("/pod", "/inner", "/var/run/secrets/kubernetes.io"))


def test_a_pod_reaches_the_api_server_as_its_service_account(space: Space) -> None:
    script = """import json, os, ssl, urllib.request
folder = "/var/run/secrets/kubernetes.io/serviceaccount"
url = "https://%(KUBERNETES_SERVICE_HOST)s:%(KUBERNETES_SERVICE_PORT)s" % os.environ
request = urllib.request.Request(
    url + "/apis/authentication.k8s.io/v1/selfsubjectreviews",
    data=json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).encode(),
    headers={"Authorization": "Bearer " + open(folder + "/token").read(), "Content-Type": "application/json"},
)
context = ssl.create_default_context(cafile=folder + "/ca.crt")
print(json.load(urllib.request.urlopen(request, context=context))["status"]["userInfo"]["username"])
"""
    space.run("asks", script)
    space.wait_phase("asks", "Succeeded")
    assert space.logs("asks").strip() == f"system:serviceaccount:{space.name}:default"


def test_logs_are_followed_to_their_end(space: Space) -> None:
    space.run("speaks", "for i in 1 2 3 4 5; do echo line $i; sleep 0.2; done; printf last")
    space.wait_phase("speaks", "Running")
    assert space.logs("speaks", "-f") == "line 1\nline 2\nline 3\nline 4\nline 5\nlast\n"
    assert space.logs("speaks", "--tail=1") == "last\n"
    assert space.logs("speaks", "--limit-bytes=6") == "line 1"
    stamped = space.logs("speaks", "--timestamps", "--tail=1")
    assert stamped.endswith("Z last\n")


def test_the_last_words_of_a_failure_come_from_the_log_where_the_pod_says_so(space: Space) -> None:
    space.run("fails", "echo no such data; exit 3", terminationMessagePolicy="FallbackToLogsOnError")
    ended = container_status(space.wait_phase("fails", "Failed"))["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (3, "Error", "no such data")


def test_a_command_that_does_not_exist_is_named(space: Space) -> None:
    found = container("")
    found["command"] = ["no-such-program"]
    space.apply(pod("lost", "", spec={"containers": [found]}))
    ended = container_status(space.wait_phase("lost", "Failed"))["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
    assert "no-such-program: no such command in the image" in ended["message"]


@pytest.mark.parametrize(
    ("spec", "reason", "message"),
    [
        (
            {"containers": [{"name": "m", "image": "elsewhere/x:1", "command": ["true"]}]},
            "ErrImageNeverPull",
            IMAGE,
        ),
        (
            {"volumes": [{"name": "h", "hostPath": {"path": "/etc"}}]},
            "CreateContainerConfigError",
            "of kind hostPath, which this node does not mount",
        ),
    ],
)
def test_what_the_node_does_not_do_is_refused_in_words(
    space: Space, spec: dict[str, object], reason: str, message: str
) -> None:
    space.apply(pod("refused", "true", spec=spec))

    space.wait_waiting("refused", reason, message)


def test_a_pod_that_does_not_fit_is_refused_by_the_node_too(space: Space) -> None:
    asked = {"requests": {"cpu": "1000"}}
    space.apply(pod("greedy", "true", spec={"nodeName": "local"}, resources=asked))
    found = space.wait_phase("greedy", "Failed")
    assert found["status"]["reason"] == "OutOfcpu"


def test_the_log_port_answers_nobody_without_the_api_servers_certificate(space: Space) -> None:
    node = space.api.get("/api/v1/nodes/local") or {}
    port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    with pytest.raises((ssl.SSLError, ConnectionError, HTTPException)):
        connection = HTTPSConnection("127.0.0.1", port, timeout=30, context=trusting)
        connection.request("GET", "/healthz")
        connection.getresponse()
