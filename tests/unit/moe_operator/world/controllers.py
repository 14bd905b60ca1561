"""What the cluster's own controllers do: each looks at all objects and writes what is missing."""

import zlib
from collections.abc import Callable
from datetime import datetime
from typing import Any

from moe_operator.cluster.job_pods import COMPLETION_INDEX, CONTROLLER_UID, JOB_NAME, TRACKING
from moe_operator.cluster.resources import controller_uid
from moe_operator.state import Manifest
from world.api_server import ApiServer, Key
from world.manifests import claims_of, holds, is_finished, label


def act(server: ApiServer, now: datetime) -> bool:
    """Have every controller act once; return whether anything changed."""
    before, pods = server.version, _pods(server)
    for key, manifest in list(server.objects.items()):
        control = CONTROLLERS.get(key[0])
        if control is not None:
            control(server, key, manifest, pods.get(manifest["metadata"]["uid"], []), now)
    _collect_garbage(server, now)
    return server.version != before


def _control_job(server: ApiServer, key: Key, job: Manifest, pods: list[Manifest], now: datetime) -> None:
    """Start the pods of a Job, and say when they are all done or one of them failed."""
    uid, spec = job["metadata"]["uid"], job["spec"]
    pods = [pod for pod in pods if label(pod, CONTROLLER_UID) == uid]
    if is_finished(job):
        for pod in pods:
            _stop_tracking(server, pod)
        return
    if spec["suspend"]:
        for pod in pods:
            _stop_tracking(server, pod)
            _terminate(server, server.objects["Pod", key[1], pod["metadata"]["name"]], now)
        _say(server, key, {"conditions": [_condition("Suspended", now)]})
        return
    for index in range(spec["parallelism"] if not pods and not server.quota_used_up else 0):
        server.add(_job_pod(job, index))
    phases = [(pod.get("status") or {}).get("phase") for pod in pods if _is_tracked(pod)]
    began = {"startTime": job.get("status", {}).get("startTime") or _text(now)}
    status: dict[str, Any] = {"active": spec["parallelism"], **began}
    if phases and set(phases) == {"Succeeded"}:
        ended = [_condition(type_, now) for type_ in ("SuccessCriteriaMet", "Complete")]
        status = {**began, "succeeded": len(phases), "completionTime": _text(now), "conditions": ended}
        if spec["completionMode"] == "Indexed":
            status["completedIndexes"] = f"0-{len(phases) - 1}"
    elif "Failed" in phases:
        reason = _failure(job, pods)
        ended = [_condition(type_, now, *reason) for type_ in ("FailureTarget", "Failed")]
        status = {**began, "failed": phases.count("Failed"), "conditions": ended}
    elif job.get("status", {}).get("active"):
        return
    _say(server, key, status)


def _job_pod(job: Manifest, index: int) -> dict[str, Any]:
    """Return a pod with what the Job controller gives to it."""
    name, indexed = job["metadata"]["name"], job["spec"]["completionMode"] == "Indexed"
    marks = {JOB_NAME: name, CONTROLLER_UID: job["metadata"]["uid"]}
    if indexed:
        marks[COMPLETION_INDEX] = str(index)
    pod = _pod(job, f"{name}-{index}-x7k2p" if indexed else f"{name}-x7k2p", marks)
    pod["metadata"]["finalizers"] = [TRACKING]
    return pod


def _is_tracked(pod: Manifest) -> bool:
    return TRACKING in (pod["metadata"].get("finalizers") or [])


def _stop_tracking(server: ApiServer, pod: Manifest) -> None:
    """Take the finalizer from a pod that the Job's status has counted."""
    if _is_tracked(pod):
        metadata = pod["metadata"]
        server.merge(("Pod", metadata["namespace"], metadata["name"]), {"metadata": {"finalizers": None}})


def _failure(job: Manifest, pods: list[Manifest]) -> tuple[str, str]:
    """Return reason and message of the Failed condition: by the pod failure policy, or too many failures."""
    codes = {
        code
        for rule in job["spec"]["podFailurePolicy"]["rules"]
        for code in rule.get("onExitCodes", {}).get("values", ())
    }
    conditions = {
        condition["type"]
        for rule in job["spec"]["podFailurePolicy"]["rules"]
        if rule["action"] == "FailJob"
        for condition in rule.get("onPodConditions", ())
    }
    for pod in pods:
        for type_ in sorted(conditions):
            if holds(pod, type_) and (pod.get("status") or {}).get("phase") == "Failed":
                name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
                return (
                    "PodFailurePolicy",
                    f"Pod {name} has condition {type_} matching FailJob rule at index 1",
                )
        for container in (pod.get("status") or {}).get("containerStatuses", ()):
            code = container["state"].get("terminated", {}).get("exitCode")
            if code in codes:
                message = f"Container {container['name']} for pod failed with exit code {code} matching FailJob rule"
                return "PodFailurePolicy", message
    return "BackoffLimitExceeded", "Job has reached the specified backoff limit"


def _control_deployment(
    server: ApiServer, key: Key, deployment: Manifest, pods: list[Manifest], now: datetime
) -> None:
    """Keep as many pods of the newest template as asked; older ones go once those are ready."""
    template, wanted = deployment["spec"]["template"]["spec"], deployment["spec"]["replicas"]
    replica_set = _replica_set(server, deployment)
    pods = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    new = [pod for pod in pods if pod["spec"] == template]
    old = [pod for pod in pods if pod["spec"] != template]
    missing = wanted - len(new)
    for _ in range(missing if not server.quota_used_up else 0):
        new.append(server.add(_pod(replica_set, f"{replica_set['metadata']['name']}-{server.version}", {})))
    ready = [pod for pod in new[:wanted] if holds(pod, "Ready")]
    for pod in [*new[wanted:], *(old if len(ready) == wanted else [])]:
        _terminate(server, pod, now)
    counts = {
        "replicas": min(len(new), wanted) + (len(old) if len(ready) < wanted else 0),
        "updatedReplicas": min(len(new), wanted),
        "readyReplicas": len(ready) + sum(holds(pod, "Ready") for pod in old if len(ready) < wanted),
    }
    generation = {"observedGeneration": deployment["metadata"]["generation"]}
    if missing > 0 and server.quota_used_up:
        generation["conditions"] = [
            _condition("ReplicaFailure", now, "FailedCreate", "exceeded quota: pods=0")
        ]
    _say(server, key, {**generation, **{name: count for name, count in counts.items() if count}})


def _replica_set(server: ApiServer, deployment: Manifest) -> Manifest:
    """Return the ReplicaSet of a Deployment's template, created if it is missing."""
    metadata, template = deployment["metadata"], deployment["spec"]["template"]
    name = f"{metadata['name']}-{zlib.crc32(repr(template).encode()):08x}"
    live = server.objects.get(("ReplicaSet", metadata["namespace"], name))
    if live is not None:
        return live
    own = {"name": name, "namespace": metadata["namespace"], "labels": template["metadata"]["labels"]}
    return server.add(
        {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {**own, "ownerReferences": [_controlled_by(deployment)]},
            "spec": {"template": template},
        }
    )


def _control_claim(server: ApiServer, key: Key, claim: Manifest, pods: list[Manifest], now: datetime) -> None:
    """Bind a claim: at once, when a pod uses it, or never, as the storage of the cluster has it."""
    mounting = (pod for (kind, where, _), pod in server.objects.items() if (kind, where) == ("Pod", key[1]))
    used = any(claim["metadata"]["name"] in claims_of(pod) for pod in mounting)
    bound = server.storage == "Immediate" or (server.storage == "WaitForFirstConsumer" and used)
    before = (claim.get("status") or {}).get("phase")
    _say(server, key, {"phase": "Bound" if bound or before == "Bound" else "Pending"})


Control = Callable[[ApiServer, Key, Manifest, list[Manifest], datetime], None]
CONTROLLERS: dict[str, Control] = {
    "Job": _control_job,
    "Deployment": _control_deployment,
    "PersistentVolumeClaim": _control_claim,
}


def _collect_garbage(server: ApiServer, now: datetime) -> None:
    """Delete what belonged to objects that are gone; pods get the time to end."""
    alive = {manifest["metadata"]["uid"] for manifest in server.objects.values()}
    for key, manifest in list(server.objects.items()):
        owners = manifest["metadata"].get("ownerReferences") or []
        if owners and not any(owner["uid"] in alive for owner in owners):
            if key[0] == "Pod":
                _terminate(server, manifest, now)
            else:
                server.delete(key)


def _terminate(server: ApiServer, pod: Manifest, now: datetime) -> None:
    """Begin to end a pod; the kubelet does the rest."""
    metadata = pod["metadata"]
    if "deletionTimestamp" not in metadata:
        key = ("Pod", metadata["namespace"], metadata["name"])
        server.merge(key, {"metadata": {"deletionTimestamp": _text(now)}})


def _pods(server: ApiServer) -> dict[str, list[Manifest]]:
    """Return the pods by the uid of their Job or Deployment."""
    found: dict[str, list[Manifest]] = {}
    deployment_of = {
        item["metadata"]["uid"]: item["metadata"]["ownerReferences"][0]["uid"]
        for (kind, _, _), item in server.objects.items()
        if kind == "ReplicaSet"
    }
    for (kind, _, _), pod in server.objects.items():
        if kind == "Pod" and (uid := controller_uid(pod)):
            found.setdefault(deployment_of.get(uid, uid), []).append(pod)
    return found


def _pod(owner: Manifest, name: str, marks: dict[str, str]) -> dict[str, Any]:
    template, metadata = owner["spec"]["template"], owner["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": {**template["metadata"]["labels"], **marks},
            "ownerReferences": [_controlled_by(owner)],
        },
        "spec": template["spec"],
    }


def _controlled_by(owner: Manifest) -> dict[str, Any]:
    """Return the reference to a controlling owner."""
    reference = {name: owner[name] for name in ("apiVersion", "kind")}
    return reference | {
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }


def _say(server: ApiServer, key: Key, status: dict[str, Any]) -> None:
    """Write a status, unless the object says the same already; times alone are no news."""
    if _timeless(server.objects[key].get("status") or {}) != _timeless(status):
        server.write_status(key, status)


def _timeless(status: Manifest) -> dict[str, Any]:
    conditions = [
        {name: value for name, value in item.items() if name != "lastTransitionTime"}
        for item in status.get("conditions") or []
    ]
    return {**status, "startTime": None, "conditions": conditions}


def _condition(type_: str, now: datetime, reason: str = "", message: str = "") -> dict[str, Any]:
    known = {"reason": reason, "message": message} if reason else {}
    return {"type": type_, "status": "True", "lastTransitionTime": _text(now), **known}


def _text(now: datetime) -> str:
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")
