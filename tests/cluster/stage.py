"""What a test of the cluster works with: a namespace with data, and words to apply, wait and look."""

import hashlib
import json
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from small_trainer.behaviour import RELEASED

from moe_local.cluster import LocalCluster

Json = dict[str, Any]

PATHS = {
    "ExpertPool": ("moe-operator.dev/v1alpha1", "expertpools"),
    "Expert": ("moe-operator.dev/v1alpha1", "experts"),
    "ExpertRevision": ("moe-operator.dev/v1alpha1", "expertrevisions"),
    "ExpertProposal": ("moe-operator.dev/v1alpha1", "expertproposals"),
    "Job": ("batch/v1", "jobs"),
    "Deployment": ("apps/v1", "deployments"),
    "Pod": ("v1", "pods"),
    "Service": ("v1", "services"),
    "ConfigMap": ("v1", "configmaps"),
    "Event": ("v1", "events"),
    "PersistentVolumeClaim": ("v1", "persistentvolumeclaims"),
    "Lease": ("coordination.k8s.io/v1", "leases"),
}

#: Seconds after which a test gives up. A whole Expert takes about eight on two quiet cores, but cores are not always quiet.
PATIENCE = 240.0


class Refused(Exception):
    """The API server refused an object; the text is its message."""


class Stage:
    """One namespace of a cluster, with a claim `corpora` to read data from."""

    def __init__(self, cluster: LocalCluster, namespace: str) -> None:
        """Make the namespace, where Pod Security is enforced at its strictest, and the claim."""
        self.cluster = cluster
        self.namespace = namespace
        self.api = cluster.api()
        enforce = {"pod-security.kubernetes.io/enforce": "restricted"}
        manifest = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": namespace, "labels": enforce},
        }
        self.api.apply(f"/api/v1/namespaces/{namespace}", manifest)
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        self.apply("PersistentVolumeClaim", "corpora", claim)
        self.data = self.volume("corpora")

    # -- objects

    def path(self, kind: str, name: str = "") -> str:
        """Return the URL path of an object or of a collection."""
        api_version, plural = PATHS[kind]
        root = "/api" if api_version == "v1" else "/apis"
        return f"{root}/{api_version}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    def apply(self, kind: str, name: str, spec: Mapping[str, Any]) -> None:
        """Server-side apply, as a person would; raises Refused."""
        manifest = {"apiVersion": PATHS[kind][0], "kind": kind, "metadata": {"name": name}, "spec": spec}
        query = "?fieldManager=person&force=true"
        self._request("PATCH", self.path(kind, name) + query, manifest, "application/apply-patch+yaml")

    def create(self, kind: str, manifest: Mapping[str, Any]) -> None:
        """Create an object as it is given; raises Refused."""
        self._request("POST", self.path(kind), manifest)

    def patch(self, kind: str, name: str, change: Mapping[str, Any]) -> None:
        """Merge a change into an object, as `kubectl edit` would; raises Refused."""
        self._request("PATCH", self.path(kind, name), change, "application/merge-patch+json")

    def delete(self, kind: str, name: str) -> None:
        """Delete an object; what it owns follows."""
        self._request("DELETE", self.path(kind, name), {"propagationPolicy": "Background"})

    def evict(self, start: str) -> None:
        """Evict the pods whose names start with some letters, as `kubectl drain` does."""
        for name in self.names("Pod", start):
            eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
            self._request("POST", f"{self.path('Pod', name)}/eviction", eviction)

    def get(self, kind: str, name: str) -> Json | None:
        """Return an object, or None."""
        return self.api.get(self.path(kind, name))

    def all(self, kind: str) -> list[Json]:
        """Return all objects of a kind."""
        listing = self.api.get(self.path(kind))
        return list(listing["items"]) if listing else []

    def names(self, kind: str, start: str = "") -> list[str]:
        """Return the names of all objects of a kind that start with some letters."""
        return sorted(
            item["metadata"]["name"] for item in self.all(kind) if item["metadata"]["name"].startswith(start)
        )

    # -- what users make

    def pool(self, name: str = "pool", **spec: Any) -> None:
        """Apply a pool that holds out enough of the little text there is."""
        storage, evaluation = {"size": "1Gi"}, {"holdout": 0.3}
        self.apply("ExpertPool", name, {"storage": storage, "evaluation": evaluation, **spec})

    def expert(self, name: str, *, pool: str = "pool", folder: str = "", **spec: Any) -> None:
        """Apply an Expert from a preset that learns from the files of its own name, or of another folder."""
        source = {"store": "corpora", "path": f"{folder or name}/*.txt"}
        given = {
            "pool": pool,
            "domain": name,
            "base": {"preset": "tiny"},
            "data": {"sources": [source]},
            **spec,
        }
        self.apply("Expert", name, {key: value for key, value in given.items() if value is not None})

    def write(self, folder: str, documents: int = 150, *, seed: int = 0, words: int = 120) -> None:
        """Write documents of so many made-up words that only this folder's language has."""
        for number in range(documents):
            path = self.data / folder / f"{seed}-{number}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text(made_up_text(folder, f"{seed}/{number}", words))

    def release(self) -> None:
        """Let every training of the pool go on that waits half way (Behaviour.HELD)."""
        (self.volume("pool-store") / RELEASED).touch()

    # -- waiting and looking

    def wait(self, what: str, condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        """Return the first true value of a condition; fails with how everything is where there is none."""
        deadline = time.monotonic() + seconds
        while True:
            if value := condition():
                return value
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds:.0f} s for {what}\n{self.describe()}")
            time.sleep(0.1)

    def condition(self, name: str, type_: str, kind: str = "Expert") -> Json:
        """Return a condition of an object; empty if it has none."""
        live = self.get(kind, name) or {}
        conditions = live.get("status", {}).get("conditions", [])
        return next((item for item in conditions if item["type"] == type_), {})

    def wait_for(
        self, name: str, type_: str, status: str = "True", *, reason: str = "", **options: Any
    ) -> Json:
        """Wait until an object's condition has a status, and a reason where one is given; return it."""

        def holds() -> Json | None:
            found = self.condition(name, type_, options.get("kind", "Expert"))
            good = found.get("status") == status and reason in ("", found.get("reason"))
            return found if good else None

        seconds = options.get("seconds", PATIENCE)
        return self.wait(f"{name}: {type_}={status} {reason}", holds, seconds)

    def wait_ready(self, name: str, seconds: float = PATIENCE) -> Json:
        """Wait until an Expert serves what its newest spec asks for; return it."""

        def ready() -> Json | None:
            live = self.get("Expert", name) or {}
            conditions = live.get("status", {}).get("conditions", [])
            found = next((item for item in conditions if item["type"] == "Ready"), None)
            current = found is not None and found["observedGeneration"] == live["metadata"]["generation"]
            return live if current and found["status"] == "True" else None

        return self.wait(f"{name} to be ready", ready, seconds)

    def status(self, name: str, kind: str = "Expert") -> Json:
        """Return an object's status."""
        return (self.get(kind, name) or {}).get("status", {})

    def volume(self, claim: str) -> Path:
        """Return the folder behind a claim, once it is bound."""

        def bound() -> str | None:
            return (self.get("PersistentVolumeClaim", claim) or {}).get("spec", {}).get("volumeName")

        name = self.wait(f"claim {claim} to be bound", bound)
        volume = self.api.get(f"/api/v1/persistentvolumes/{name}")
        assert volume is not None
        return Path(volume["spec"]["local"]["path"])

    def clear(self) -> None:
        """Delete proposals, Experts and pools; the cluster's garbage collector takes what they own."""
        for kind in ("ExpertProposal", "Expert", "ExpertPool"):
            for name in self.names(kind):
                self.delete(kind, name)

    def describe(self) -> str:
        """Return how the Experts, pools, Jobs and pods of the namespace are, for a failure's text."""
        lines = []
        for kind in ("ExpertPool", "Expert", "ExpertRevision", "ExpertProposal", "Job", "Pod"):
            for item in self.all(kind):
                status = item.get("status", {})
                said = {
                    condition["type"]: condition.get("message", "")
                    for condition in status.get("conditions", [])
                }
                ready = said.get("Ready") or said.get("Failed") or said.get("PodScheduled") or ""
                name = item["metadata"]["name"]
                lines.append(
                    f"{kind} {name}: {status.get('phase', '')} {status.get('reason', '')} {ready[:300]}"
                )
        log = self.cluster.kubectl(
            "logs", "-n", "moe-system", "deploy/moe-operator", "--tail=15", check=False
        )
        return "\n".join([*lines, "operator:", log.stdout])

    def _request(self, verb: str, path: str, body: Mapping[str, Any], kind: str = "application/json") -> None:
        status, text = self.api.request(verb, path, body, content_type=kind)
        if status >= 300:
            raise Refused(json.loads(text).get("message", text))


def made_up_text(language: str, seed: str, words: int = 120) -> str:
    """Return a text of words that are made of a language's own dozen syllables."""
    letters = random.Random(hashlib.sha256(language.encode()).digest())
    syllables = ["".join(letters.choices("abcdefghijklmnopqrstuvwxyz", k=3)) for _ in range(12)]
    dice = random.Random(f"{language}/{seed}")
    return " ".join("".join(dice.choices(syllables, k=dice.randint(1, 3))) for _ in range(words)) + "\n"
