"""The nodes: pods are scheduled, start, get ready or end; gateways read their policy again when it changes.

Each step of a pod takes its time and comes due; a pod at rest has none.
"""

import copy
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Literal

from moe_formats.job_config import EvaluateJob
from moe_formats.resources import labels
from moe_formats.routing_policy import parse_routing_policy
from moe_operator.cluster.job_pods import COMPLETION_INDEX, TRACKING
from moe_operator.state import Manifest
from world import pod_status
from world.api_server import ApiServer, Key
from world.manifests import claims_of, holds, job_config, role, workload
from world.trainer import Ending, Trainer

#: Until the container of a Job runs: at once, which spares every test a step that decides nothing.
STARTING = timedelta(0)
#: Until a server or a gateway is ready.
LOADING = timedelta(seconds=0.5)
#: How long the container of a Job runs, where nothing else is said of its role.
RUNNING = timedelta(seconds=0.5)
#: Until a pod that is deleted is gone.
GRACE = timedelta(seconds=0.5)

Step = Literal["schedule", "wait", "reject", "start", "end", "turn", "stop", "go"]


class Kubelet:
    """All nodes at once."""

    def __init__(self) -> None:
        #: Pods of these Jobs cannot be scheduled.
        self.unschedulable: set[str] = set()
        #: Containers of these Jobs are not started: reason and message of the kubelet.
        self.waiting: dict[str, tuple[str, str]] = {}
        #: Nodes refuse the pods of these Jobs that were scheduled to them.
        self.rejected: set[str] = set()
        #: Pods of these Deployments do not answer, or no longer.
        self.unready: set[str] = set()
        #: Pods of these Jobs go on when they are deleted: their node cannot be reached.
        self.lingering: set[str] = set()
        #: Gateway pods that do not take up a new policy.
        self.deaf: set[str] = set()
        #: How long Jobs of a role run; others take RUNNING.
        self.durations: dict[str, timedelta] = {}
        #: Uid of each ready gateway pod to the digest of the policy that it serves by.
        self.policies: dict[str, str | None] = {}
        self._due: dict[Key, tuple[Step, datetime]] = {}

    def fork(self) -> "Kubelet":
        """Return nodes that go their own way from here."""
        other = copy.copy(self)
        for name, value in vars(self).items():
            setattr(other, name, copy.copy(value))
        return other

    def hurry(self) -> None:
        """Have every step that is under way take its time anew, for example after ``durations`` were changed."""
        self._due.clear()

    def next_due(self) -> datetime | None:
        """Return when the next pod takes a step, or None while no pod will by itself."""
        return min((due for _, due in self._due.values()), default=None)

    def act(self, server: ApiServer, trainer: Trainer, now: datetime) -> bool:
        """Have all pods take the steps that are due; return whether anything changed."""
        before, pods = server.version, [key for key in server.objects if key[0] == "Pod"]
        due: dict[Key, tuple[Step, datetime]] = {}
        for key in pods:
            step = self._next_step(server.objects[key], server)
            if step is None:
                continue
            known = self._due.get(key)
            date = known[1] if known and known[0] == step else now + self._takes(step, server.objects[key])
            if now < date:
                due[key] = (step, date)
            else:
                self._take(step, server, trainer, key)
        self._due = due
        moved = self._read_policies(server, pods)
        return moved or server.version != before

    def _next_step(self, pod: Manifest, server: ApiServer) -> Step | None:
        owner = pod["metadata"]["ownerReferences"][0]
        phase = (pod.get("status") or {}).get("phase")
        if "deletionTimestamp" in pod["metadata"]:
            if workload(pod) in self.lingering:
                return None
            if not _is_awaited(pod, server):
                return "go"
            return "stop" if phase not in ("Succeeded", "Failed") else None
        if phase in ("Succeeded", "Failed"):
            return None
        if owner["kind"] != "Job":
            return "turn" if holds(pod, "Ready") == (workload(pod) in self.unready) else None
        if phase == "Running":
            return "end"
        if owner["name"] in self.unschedulable or _lacks_a_claim(pod, server):
            return "schedule" if phase is None else None
        if owner["name"] in self.waiting:
            return "wait" if not holds(pod, "PodScheduled") else None
        if owner["name"] in self.rejected:
            return "reject"
        return "start"

    def _takes(self, step: Step, pod: Manifest) -> timedelta:
        if step == "end":
            return min(self._runs(pod), _deadline(pod))
        return {"go": GRACE, "stop": GRACE, "turn": LOADING}.get(step, STARTING)

    def _runs(self, pod: Manifest) -> timedelta:
        """Return how long the container of a Job's pod takes, if nobody stops it."""
        return self.durations.get(role(pod), RUNNING)

    def _take(self, step: Step, server: ApiServer, trainer: Trainer, key: Key) -> None:
        pod = server.objects[key]
        if step == "go":
            server.delete(key)
        elif step == "schedule":
            lacking = _lacks_a_claim(pod, server)
            message = (
                "pod has unbound immediate PersistentVolumeClaims" if lacking else "0/1 nodes are available"
            )
            server.write_status(key, pod_status.unschedulable(message))
        elif step == "wait":
            server.write_status(key, pod_status.waiting(pod, *self.waiting[workload(pod)]))
        elif step == "reject":
            server.write_status(key, pod_status.rejected())
        elif step == "stop":
            stopped = Ending(143, disrupted=holds(pod, "DisruptionTarget"))
            server.write_status(key, pod_status.ended(pod, stopped))
        elif step == "end" and self._runs(pod) > _deadline(pod):
            server.write_status(key, pod_status.too_late(pod))
        elif step == "end":
            server.write_status(key, pod_status.ended(pod, self._ending(server, trainer, pod)))
        else:
            ready = workload(pod) not in self.unready
            server.write_status(key, pod_status.running(pod, ready=ready))

    def _ending(self, server: ApiServer, trainer: Trainer, pod: Manifest) -> Ending:
        """Return how a pod ends; of a gang, the first process reports for all."""
        namespace, name = pod["metadata"]["namespace"], workload(pod)

        def evaluated(revision: str) -> EvaluateJob:
            asked = job_config(server.get("Job", namespace, f"{revision}-e1"))
            assert isinstance(asked, EvaluateJob)
            return asked

        ending = trainer.run(name, job_config(server.get("Job", namespace, name)), evaluated)
        first = pod["metadata"]["labels"].get(COMPLETION_INDEX, "0") == "0"
        return ending if first else Ending(ending.exit_code, disrupted=ending.disrupted)

    def _read_policies(self, server: ApiServer, pods: list[Key]) -> bool:
        """Have every ready gateway serve by the policy that it is mounted; return whether one had another."""
        found: dict[str, str | None] = {}
        for key in pods:
            pod = server.objects.get(key)
            if pod is not None and role(pod) == "gateway" and holds(pod, "Ready"):
                uid = pod["metadata"]["uid"]
                deaf = key[2] in self.deaf and uid in self.policies
                found[uid] = self.policies[uid] if deaf else _policy(server, key[1], pod)
        moved = found != self.policies
        self.policies = found
        return moved


def _lacks_a_claim(pod: Manifest, server: ApiServer) -> bool:
    """Return whether a claim that a pod mounts is there and not bound."""
    claims = (
        server.objects.get(("PersistentVolumeClaim", pod["metadata"]["namespace"], name))
        for name in claims_of(pod)
    )
    return any(
        claim is not None and (claim.get("status") or {}).get("phase") == "Pending" for claim in claims
    )


def _is_awaited(pod: Manifest, server: ApiServer) -> bool:
    """Return whether the Job controller has yet to count a pod: it stays until then, as its finalizer asks."""
    owner = pod["metadata"]["ownerReferences"][0]
    tracked = TRACKING in (pod["metadata"].get("finalizers") or ())
    return tracked and ("Job", pod["metadata"]["namespace"], owner["name"]) in server.objects


def _deadline(pod: Manifest) -> timedelta:
    seconds = pod["spec"].get("activeDeadlineSeconds")
    return timedelta(seconds=seconds) if seconds is not None else timedelta.max


def _policy(server: ApiServer, namespace: str, pod: Manifest) -> str | None:
    name = f"{pod['metadata']['labels'][labels.POOL]}-routing"
    manifest = server.objects.get(("ConfigMap", namespace, name))
    return _digest(manifest["data"]["policy.json"]) if manifest is not None else None


@lru_cache(maxsize=64)
def _digest(policy: str) -> str:
    return parse_routing_policy(policy).digest()
