"""The objects of a pool: what users apply by hand, and what a test reads."""

from typing import Any

from moe_formats.resources import labels
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_proposal import ExpertProposal
from moe_formats.resources.expert_revision import ExpertRevision
from moe_formats.resources.reasons import Reason
from moe_formats.routing_policy import RoutingPolicy, parse_routing_policy
from moe_operator.state import Manifest
from world.api_server import ApiServer
from world.manifests import label, role

POOL = "first-pool"
NAMESPACE = "default"


class Scene:
    """One pool in one namespace, on an API server."""

    server: ApiServer

    # -- what users and other hands do

    def pool(self, **spec: Any) -> None:
        """Create or change the pool."""
        self.put("ExpertPool", POOL, {"storage": {"size": "1Gi"}, **spec})

    def expert(self, name: str, **spec: Any) -> None:
        """Create or change an Expert; `base` and `data` have sensible defaults."""
        given = {
            "pool": POOL,
            "data": {"sources": [{"store": "corpora", "path": f"{name}/*.txt"}]},
            "base": {"preset": "tiny"} if name == "general" else {"expert": "general"},
        }
        if name != "general":
            given["domain"] = spec.pop("domain", name)
        self.put("Expert", name, {**given, **spec})

    def propose(self, name: str, expert: str, act: str, **spec: Any) -> None:
        """Create a proposal, as a person does."""
        self.put("ExpertProposal", name, {"pool": POOL, "expert": expert, "act": act, **spec})

    def approve(self, name: str, decision: str = "Approved", evidence: str | None = None) -> None:
        """Decide about a proposal, quoting its evidence."""
        quoted = evidence or self.proposal(name).status.evidence.digest
        approval = {"decision": decision, "evidence": quoted}
        self.edit("ExpertProposal", name, {"spec": {"approval": approval}})

    def undo(self, name: str) -> None:
        """Ask for what a proposal did to be undone."""
        self.edit("ExpertProposal", name, {"spec": {"undo": True}})

    def claim(self, name: str, use: str | None = None) -> None:
        """Create a claim of somebody's own, or change how it is labelled: for ``use``, or for none."""
        if not self.has("PersistentVolumeClaim", name):
            metadata = {"name": name, "namespace": NAMESPACE}
            self.server.add({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata})
        live = self.get("PersistentVolumeClaim", name)
        marks = {**(live["metadata"].get("labels") or {}), labels.USE: use}
        kept = {key: value for key, value in marks.items() if value is not None}
        self.server.add({**live, "metadata": {**live["metadata"], "labels": kept}})

    def change(self, name: str, **spec: Any) -> None:
        """Change fields of an Expert's spec."""
        self.put("Expert", name, {**self.get("Expert", name)["spec"], **spec})

    def put(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        """Apply a custom resource as a user would."""
        live = self.server.objects.get((kind, NAMESPACE, name))
        if live is None:
            metadata = {"name": name, "namespace": NAMESPACE}
            api_version = labels.API_VERSION
            self.server.add({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec})
        elif live["spec"] != spec:
            self.server.add({**live, "spec": spec})

    def edit(self, kind: str, name: str, change: dict[str, Any]) -> None:
        """Merge a change into any object, as somebody by hand would; lists are replaced as a whole."""
        self.server.merge((kind, NAMESPACE, name), change)

    def delete(self, kind: str, name: str) -> None:
        """Delete an object; what it owns goes with it as time passes."""
        self.server.delete((kind, NAMESPACE, name))

    def take(self, job: str, *, evict: bool = True) -> None:
        """Delete the pods of a Job: by eviction, which a condition tells, or as `kubectl delete pod` does."""
        for pod in self.all("Pod"):
            if pod["metadata"]["ownerReferences"][0]["name"] == job:
                told = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
                conditions = [*(pod["status"].get("conditions") or []), *([told] if evict else [])]
                ending = {"deletionTimestamp": "2026-11-21T12:00:00Z"}
                self.edit(
                    "Pod",
                    pod["metadata"]["name"],
                    {"metadata": ending, "status": {"conditions": conditions}},
                )

    # -- what there is

    def get(self, kind: str, name: str) -> Manifest:
        """Return an object; raises ApiError (404) if there is none."""
        return self.server.get(kind, NAMESPACE, name)

    def has(self, kind: str, name: str) -> bool:
        """Say whether there is an object."""
        return (kind, NAMESPACE, name) in self.server.objects

    def all(self, kind: str, **marks: str) -> list[Manifest]:
        """Return the objects of a kind by name; ``role`` and ``expert`` choose by label."""
        found = [item for (found, _, _), item in sorted(self.server.objects.items()) if found == kind]
        if "role" in marks:
            found = [item for item in found if role(item) == marks["role"]]
        if "expert" in marks:
            found = [item for item in found if label(item, labels.EXPERT) == marks["expert"]]
        return found

    def servers(self) -> dict[str, int]:
        """Return the served revisions with the replicas that are asked for."""
        return {
            item["metadata"]["name"]: item["spec"]["replicas"]
            for item in self.all("Deployment", role="server")
        }

    def policy(self) -> RoutingPolicy | None:
        """Return the policy in the ConfigMap."""
        if not self.has("ConfigMap", f"{POOL}-routing"):
            return None
        return parse_routing_policy(self.get("ConfigMap", f"{POOL}-routing")["data"]["policy.json"])

    def pool_status(self) -> Any:
        """Return the parsed status of the pool."""
        return ExpertPool.model_validate(self.get("ExpertPool", POOL)).status

    def status(self, name: str) -> Any:
        """Return the parsed status of an Expert."""
        return Expert.model_validate(self.get("Expert", name)).status

    def revision(self, name: str) -> ExpertRevision:
        """Return a revision."""
        return ExpertRevision.model_validate(self.get("ExpertRevision", name))

    def revisions(self, expert: str) -> list[str]:
        """Return the names of an Expert's revisions."""
        found = [item for item in self.all("ExpertRevision") if item["spec"]["expert"] == expert]
        return [item["metadata"]["name"] for item in found]

    def proposal(self, name: str) -> Any:
        """Return a parsed proposal."""
        return ExpertProposal.model_validate(self.get("ExpertProposal", name))

    def proposals(self) -> dict[str, str]:
        """Return the phase of every proposal, by name."""
        return {
            item["metadata"]["name"]: (item.get("status") or {}).get("phase", "")
            for item in self.all("ExpertProposal")
        }

    def condition(self, expert: str, type_: str) -> tuple[str, str, str]:
        """Return status, reason and message of a condition of an Expert."""
        return _condition(self.status(expert), type_)

    def pool_condition(self, type_: str) -> tuple[str, str, str]:
        """Return status, reason and message of a condition of the pool."""
        return _condition(self.pool_status(), type_)

    def reasons(self, owner: str) -> list[Reason]:
        """Return the reasons of the Events about an object, one as often as it was sent."""
        return [
            Reason(event["reason"])
            for event in self.all("Event")
            if event["involvedObject"]["name"] == owner
            for _ in range(event["count"])
        ]

    def end_state(self) -> dict[str, Any]:
        """Return what a run ends in, without what depends on the way there: times, uids, versions."""
        experts = {
            item["metadata"]["name"]: Expert.model_validate(item).status for item in self.all("Expert")
        }
        revisions = [ExpertRevision.model_validate(item) for item in self.all("ExpertRevision")]
        policy = self.policy()
        return {
            "experts": {
                name: (
                    status.phase,
                    status.reason,
                    status.current_revision,
                    status.latest_revision,
                    status.base_revision,
                    status.serving,
                    status.score,
                    status.targets,
                    [(item.type, item.status, item.reason) for item in status.conditions],
                )
                for name, status in experts.items()
            },
            "revisions": {
                item.metadata.name: (item.spec.cause, item.status.phase, item.status.artefact)
                for item in revisions
            },
            "policy": policy.model_dump(exclude={"table": {"digest"}}) if policy else None,
            "servers": self.servers(),
            "proposals": {
                name: (item.status.phase, item.status.reason, item.status.revision, item.status.effect)
                for name in self.proposals()
                for item in [self.proposal(name)]
            },
        }


def _condition(status: Any, type_: str) -> tuple[str, str, str]:
    found = next(item for item in status.conditions if item.type == type_)
    return found.status, found.reason, found.message
