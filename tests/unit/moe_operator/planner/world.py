"""A world in memory: objects as an API server would hold them, Jobs that finish, servers that get ready.

It applies Plans write by write, so that a test can kill the operator between any two of them, and it
checks the invariants at every write. The trainer is played from the Jobs' own manifests: configs are parsed
out of the environment, and headlines go back as a pod would leave them.
"""

import copy
import hashlib
import json
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from moe_formats.job_config import (
    DistillJob,
    EvaluateJob,
    GradeJob,
    SnapshotJob,
    TasksRef,
    TrainJob,
    parse_job_config,
)
from moe_formats.job_report import (
    Accuracy,
    Decision,
    DistillHeadline,
    EvaluateHeadline,
    Failure,
    Interval,
    SnapshotHeadline,
    TaskSet,
    TrainHeadline,
    Ungraded,
    Window,
)
from moe_formats.resources import labels
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_revision import ExpertRevision
from moe_formats.routing_policy import RoutingPolicy, parse_routing_policy
from moe_operator.config import Images, OperatorConfig, Profile, Store
from moe_operator.planner import plan_expert, plan_pool
from moe_operator.state import (
    Event,
    ExpertState,
    ObjectRef,
    ObservedGateway,
    ObservedJob,
    ObservedPod,
    ObservedServer,
    Plan,
    PoolState,
    Role,
    StatusWrite,
)
from moe_operator.subset import is_subset

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
POOL = "first-pool"
NAMESPACE = "default"

CONFIG = OperatorConfig(
    images=Images(trainer="moe-operator/trainer:0.1.0", gateway="moe-operator/gateway:0.1.0"),
    profiles={
        "cpu": Profile(requests={"cpu": "1", "memory": "1Gi"}),
        "nvidia": Profile(
            device="nvidia.com/gpu", tolerations=({"key": "nvidia.com/gpu", "operator": "Exists"},)
        ),
    },
    stores={"corpora": Store(claim="corpora")},
)


def digest(*parts: object) -> str:
    """Return a digest of anything."""
    return "sha256:" + hashlib.sha256(repr(parts).encode()).hexdigest()


class Broken(AssertionError):
    """An invariant does not hold."""


class World:
    """Objects, a clock, and what is true of the data and of the models trained on it."""

    def __init__(self, config: OperatorConfig = CONFIG) -> None:
        self.config = config
        self.now = START
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.pods: dict[str, ObservedPod] = {}
        self.ready: dict[str, int] = {}
        self.reported: dict[str, str | None] = {}
        self.events: list[tuple[str, Event]] = []
        self.writes = 0
        self.created: list[str] = []
        #: Numbers of writes after which the operator is killed; each is used up once.
        self.kills: list[int] = []
        #: Where set: a fork after every write, each of them what a kill at that point leaves behind.
        self.history: list[World] | None = None
        #: What the sources of an Expert hold: another version is other data.
        self.data: dict[str, int] = {}
        self.clusters = 30
        #: What the evaluators find of a revision: its accuracy less that of what it is compared with.
        self.accuracy_gained: dict[str, float] = {}
        #: Evaluators whose answers a grader judges.
        self.graded: set[str] = set()
        #: Data versions that are junk: they win their own window and lose on the anchor.
        self.junk: set[int] = set()
        #: Job name to how it ends instead of well: a Failure, an exit code, "disrupted" or "unreadable".
        self.fate: dict[str, Any] = {}
        #: Pods of these Jobs cannot be scheduled.
        self.unschedulable: set[str] = set()
        self._parsed: dict[tuple[str, str, str], Any] = {}
        self._uids = 0
        self._version = 0

    def fork(self) -> "World":
        """Return a world that goes its own way from here; an operator that starts in it knows nothing else."""
        other = copy.copy(self)
        other.objects = copy.deepcopy(self.objects)
        other._parsed, other.history, other.kills = {}, None, []
        for name in ("pods", "ready", "reported", "data", "fate", "accuracy_gained"):
            setattr(other, name, dict(getattr(self, name)))
        for name in ("events", "created"):
            setattr(other, name, list(getattr(self, name)))
        other.junk, other.unschedulable, other.graded = (
            set(self.junk),
            set(self.unschedulable),
            set(self.graded),
        )
        return other

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

    def change(self, name: str, **spec: Any) -> None:
        """Change fields of an Expert's spec."""
        self.put("Expert", name, {**self.objects["Expert", name]["spec"], **spec})

    def put(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        """Apply a custom resource as a user would."""
        live = self.objects.get((kind, name))
        if live is None:
            self._add(kind, {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})
        elif live["spec"] != spec:
            live["spec"] = spec
            live["metadata"]["generation"] += 1
            self._touch(live)

    def delete(self, kind: str, name: str) -> None:
        """Delete an object and all that it owns."""
        gone = self.objects.pop((kind, name))
        uid = gone["metadata"]["uid"]
        self.pods.pop(name, None)
        if kind == "Deployment":
            self.ready.pop(name, None)
        for (child_kind, child), manifest in list(self.objects.items()):
            if any(owner["uid"] == uid for owner in manifest["metadata"].get("ownerReferences", [])):
                self.delete(child_kind, child)

    # -- what the operator sees

    def expert_state(self, name: str) -> ExpertState:
        """Return what gather would."""
        expert = self._model(Expert, "Expert", name)
        pool = (
            self._model(ExpertPool, "ExpertPool", expert.spec.pool)
            if self._has("ExpertPool", expert.spec.pool)
            else None
        )
        own = {
            (kind, key): manifest
            for (kind, key), manifest in self.objects.items()
            if any(o["uid"] == expert.metadata.uid for o in manifest["metadata"].get("ownerReferences", []))
        }
        revisions = self._models(ExpertRevision, "ExpertRevision")
        peers = {n: e for n, e in self._models(Expert, "Expert").items() if e.spec.pool == expert.spec.pool}
        base = peers.get(expert.spec.base.expert or "")
        jobs = self.jobs()
        return ExpertState(
            expert=expert,
            pool=pool,
            peers=peers,
            revisions=tuple(
                sorted(
                    (r for r in revisions.values() if r.spec.expert_uid == expert.metadata.uid),
                    key=lambda r: r.spec.number,
                )
            ),
            base_revision=revisions.get(base.status.current_revision or "") if base else None,
            jobs=tuple(job for job in jobs if ("Job", job.name) in own),
            servers=tuple(server for server in self.servers().values() if ("Deployment", server.name) in own),
            live=own,
        )

    def pool_state(self) -> PoolState:
        """Return what gather would."""
        claim = self.objects.get(("PersistentVolumeClaim", f"{POOL}-store"))
        return PoolState(
            pool=self._model(ExpertPool, "ExpertPool", POOL),
            experts=self._models(Expert, "Expert"),
            revisions=self._models(ExpertRevision, "ExpertRevision"),
            servers=self.servers(),
            jobs=self.jobs(),
            live=dict(self.objects),
            claim_phase="Bound" if claim else None,
            gateway=self._gateway(),
        )

    def jobs(self) -> tuple[ObservedJob, ...]:
        """Return every Job as it is observed."""
        return tuple(self._job(m) for (kind, _), m in sorted(self.objects.items()) if kind == "Job")

    def servers(self) -> dict[str, ObservedServer]:
        """Return the server Deployments by revision."""
        found = {}
        for (kind, name), manifest in self.objects.items():
            if kind == "Deployment" and manifest["metadata"]["labels"][labels.ROLE] == "server":
                found[name] = ObservedServer(
                    name=name,
                    uid=manifest["metadata"]["uid"],
                    revision=manifest["metadata"]["labels"][labels.REVISION],
                    desired_replicas=manifest["spec"].get("replicas", 1),
                    ready_replicas=self.ready.get(name, 0),
                )
        return found

    def policy(self) -> RoutingPolicy | None:
        """Return the policy in the ConfigMap."""
        manifest = self.objects.get(("ConfigMap", f"{POOL}-routing"))
        return parse_routing_policy(manifest["data"]["policy.json"]) if manifest else None

    def status(self, name: str) -> Any:
        """Return the parsed status of an Expert."""
        return self._model(Expert, "Expert", name).status

    def revision(self, name: str) -> ExpertRevision:
        """Return a revision."""
        return self._model(ExpertRevision, "ExpertRevision", name)

    def revisions(self, expert: str) -> list[str]:
        """Return the names of an Expert's revisions."""
        return sorted(
            n for n, r in self._models(ExpertRevision, "ExpertRevision").items() if r.spec.expert == expert
        )

    def condition(self, expert: str, type_: str) -> tuple[str, str, str]:
        """Return status, reason and message of a condition."""
        found = next(item for item in self.status(expert).conditions if item.type == type_)
        return found.status, found.reason, found.message

    # -- what the operator does

    def reconcile(self, kind: str, name: str) -> Plan:
        """Plan one key and apply the plan, up to the next kill."""
        plan = self.plan(kind, name)
        self.apply(name, plan)
        return plan

    def plan(self, kind: str, name: str) -> Plan:
        """Plan one key."""
        if kind == "ExpertPool":
            return plan_pool(self.pool_state(), self.config, self.now)
        return plan_expert(self.expert_state(name), self.config, self.now)

    def apply(self, owner: str, plan: Plan) -> None:
        """Apply a plan write by write; a kill drops the rest of it, and what comes next looks at everything."""
        for write in self._writes(plan):
            if self.kills and self.writes >= self.kills[0]:
                self.kills.pop(0)
                self._version += 1
                return
            self.writes += 1
            self._do(write)
            self.check()
            if self.history is not None:
                self.history.append(self.fork())
        self.events += [(owner, event) for event in plan.events]

    def subjects(self) -> list[tuple[str, str]]:
        """Return what there is to reconcile."""
        return [key for key in sorted(self.objects) if key[0] in ("Expert", "ExpertPool")]

    def settle(self, *, rounds: int = 2000) -> int:
        """Reconcile what changed or asked to be looked at again, until nothing is left but far dates.

        As the real queue does: a key is planned when any object changed, or when its requeue is due. Time
        jumps to the next due date when nothing moves, and not beyond half an hour.
        """
        due: dict[tuple[str, str], datetime] = {}
        seen = -1
        for count in range(rounds):
            changed, seen = seen != self._version, self._version
            for key in self.subjects():
                if self._has(*key) and (changed or self.now >= due.get(key, self.now + timedelta(days=1))):
                    plan = self.reconcile(*key)
                    due.pop(key, None)
                    if plan.requeue is not None:
                        due[key] = self.now + timedelta(seconds=plan.requeue)
            if self.tick() or seen != self._version:
                continue
            soon = [date for date in due.values() if date < self.now + timedelta(minutes=30)]
            if not soon:
                return count
            self.now = max(self.now, min(soon))
        raise Broken(f"not settled after {rounds} rounds")

    # -- what goes on in the cluster

    def tick(self, seconds: float = 0.5) -> bool:
        """Let time pass: pods start and end, servers and gateways get ready. Return whether anything moved."""
        self.now += timedelta(seconds=seconds)
        moved = False
        for (kind, name), manifest in list(self.objects.items()):
            if (
                kind == "Job"
                and not manifest["spec"]["suspend"]
                and "state" not in manifest.get("status", {})
            ):
                moved |= self._run(name, manifest)
            if kind == "Deployment":
                moved |= self._start_servers(name, manifest)
        self._version += moved
        return moved

    def _start_servers(self, name: str, manifest: dict[str, Any]) -> bool:
        wanted = manifest["spec"].get("replicas", 1)
        moved = self.ready.get(name, 0) != wanted
        self.ready[name] = wanted
        if manifest["metadata"]["labels"][labels.ROLE] == "gateway":
            policy = self.policy()
            reported = {f"{name}-{number}": policy.digest() if policy else None for number in range(wanted)}
            moved |= reported != self.reported
            self.reported = reported
        return moved

    def _run(self, name: str, manifest: dict[str, Any]) -> bool:
        """A pod starts in one tick and ends in the next."""
        pod = self.pods.get(name)
        if pod is None:
            waiting = ("Unschedulable", "0/1 nodes are available") if name in self.unschedulable else None
            phase = "Pending" if waiting else "Running"
            self.pods[name] = ObservedPod(
                f"{name}-x", self._uid(), phase, not waiting, self.now, waiting=waiting
            )
            return True
        if pod.waiting is not None:
            if name in self.unschedulable:
                return False
            self.pods.pop(name)
            return True
        fate = self.fate.get(name)
        job = parse_job_config(self._config_of(manifest))
        result = fate if isinstance(fate, Failure) else self._result(job)
        code = {"disrupted": 137, "unreadable": 0, "grader": 3}.get(
            fate, fate if isinstance(fate, int) else 0
        )
        if isinstance(fate, Failure):
            code = 1 if fate.retryable else 64
        headline = result if fate is None or isinstance(fate, Failure) else None
        manifest["status"] = {
            "state": "Succeeded" if code == 0 else "Failed",
            "headline": headline,
            "finished": self.now.isoformat(),
        }
        self.pods[name] = ObservedPod(
            f"{name}-x",
            pod.uid,
            "Succeeded" if code == 0 else "Failed",
            False,
            pod.created,
            exit_code=code,
            disrupted=fate == "disrupted",
            message="last words" if isinstance(fate, int) or fate == "grader" else "",
            container="grader-0-pytest" if fate == "grader" else "",
        )
        self._touch(manifest)
        return True

    def _result(self, job: SnapshotJob | TrainJob | EvaluateJob | GradeJob | DistillJob) -> Any:
        if isinstance(job, SnapshotJob):
            return self._snapshot(job)
        if isinstance(job, TrainJob):
            return TrainHeadline(
                report=digest("report", job.inputs_digest),
                path=f"pools/{job.expert.uid}/a{job.attempt}",
                digest=digest("artefact", job.inputs_digest),
                steps=100,
                tokens=1000,
                final_loss=1.5,
                parameters=1000,
            )
        if isinstance(job, EvaluateJob):
            return self._evaluation(job, self.graded)
        if isinstance(job, GradeJob):
            return self._evaluation(self._evaluated(job.revision))
        return DistillHeadline(
            report=digest("distill"),
            path="tables/x/table.json",
            digest=digest("table", job.content_digest()),
            routed_bits_per_byte=2.1,
            oracle_bits_per_byte=2.0,
            random_bits_per_byte=3.0,
            accuracy=0.9,
        )

    def _snapshot(self, job: SnapshotJob) -> SnapshotHeadline:
        version = self.data.get(job.expert.name, 0)

        def window(number: int) -> Window:
            return Window(
                path=f"holdouts/{job.expert.name}-{number}",
                digest=digest("window", job.expert.uid, number),
                clusters=self.clusters,
                segments=100,
            )

        return SnapshotHeadline(
            report=digest("snapshot", version),
            path=f"snapshots/{job.expert.name}-{version}",
            digest=digest("data", job.expert.uid, [source.path for source in job.sources], version),
            documents=1000,
            train_bytes=100_000,
            dropped={"length": 3},
            anchor=window(0),
            newest=window(version) if version else None,
            tasks=tuple(
                TaskSet(
                    evaluator=item.name, path=f"tasks/{item.name}", digest=digest("tasks", item), items=100
                )
                for item in job.evaluators
            ),
        )

    def _evaluated(self, revision: str) -> EvaluateJob:
        """Return what the evaluation of a revision was asked."""
        manifests = [manifest for (kind, name), manifest in self.objects.items() if name == f"{revision}-e1"]
        job = parse_job_config(self._config_of(manifests[0]))
        assert isinstance(job, EvaluateJob)
        return job

    def _evaluation(self, job: EvaluateJob, ungraded: Collection[str] = ()) -> EvaluateHeadline:
        junk = self.data.get(job.expert.name, 0) in self.junk
        against = "current" if job.current else ("base" if job.base else "unigram")

        def decision(role: str, holdout: str, uses: int) -> Decision:
            upper = 0.08 if junk and role == "anchor" else -0.1
            return Decision(
                role=role,  # type: ignore[arg-type]
                holdout=holdout,
                uses=uses,
                alpha=0.03,
                interval=Interval(
                    value=upper - 0.02, lower=upper - 0.04, upper=upper, clusters=self.clusters
                ),
                upper=upper,
                against=against,  # type: ignore[arg-type]
            )

        def accuracy(tasks: TasksRef) -> Accuracy:
            gained = self.accuracy_gained.get(job.revision, 0.0)
            return Accuracy(
                evaluator=tasks.evaluator,
                items=100,
                accuracy=Interval(value=0.9, lower=0.85, upper=0.95, clusters=100),
                difference=Interval(value=gained, lower=gained - 0.04, upper=gained + 0.04, clusters=100),
                against="current" if job.current else "base",
            )

        left = tuple(item.evaluator for item in job.tasks if item.evaluator in ungraded)
        return EvaluateHeadline(
            report=digest("evaluation", job.revision),
            accuracies=tuple(accuracy(item) for item in job.tasks if item.evaluator not in ungraded),
            ungraded=Ungraded(path=f"evaluations/{job.revision}", evaluators=left) if left else None,
            decisions=tuple(decision(c.role, c.holdout.digest, c.uses) for c in job.comparisons),
            delta=0.005,
            noise_floor=0.0,
            bits_per_byte=Interval(value=2.0, lower=1.9, upper=2.1, clusters=30),
            gain=Interval(value=0.2, lower=0.15, upper=0.25, clusters=30) if job.base else None,
            specialization_score=Interval(value=0.97, lower=0.93, upper=0.99, clusters=30)
            if job.expert.domain
            else None,
            contamination=job.contamination,
            suite=digest("suite"),
        )

    # -- the API server

    def _writes(self, plan: Plan) -> Iterator[tuple[str, Any]]:
        yield from (("create", item) for item in plan.create)
        yield from (("apply", item) for item in plan.apply)
        yield from (("scale", item) for item in plan.scale)
        yield from (("resume", item) for item in plan.resume)
        yield from (("status", item) for item in plan.statuses)
        yield from (("delete", item) for item in plan.delete)

    def _do(self, write: tuple[str, Any]) -> None:
        verb, item = write
        if verb == "create":
            key = (item["kind"], item["metadata"]["name"])
            if key in self.objects:
                raise Broken(f"{key} is created twice")
            self.created.append(item["metadata"]["name"])
            self._add(item["kind"], copy.deepcopy(dict(item)))
        elif verb == "apply":
            self._server_side_apply(copy.deepcopy(dict(item)))
        elif verb == "scale":
            live = self._named(item[0])
            live["spec"]["replicas"] = item[1]
            self._touch(live)
        elif verb == "resume":
            self._named(item)["spec"]["suspend"] = False
        elif verb == "status":
            self._write_status(item)
        elif verb == "delete" and (item.kind, item.name) in self.objects:
            self._named(item)
            self._check_deletion(item)
            self.delete(item.kind, item.name)

    def _server_side_apply(self, item: dict[str, Any]) -> None:
        key = (item["kind"], item["metadata"]["name"])
        live = self.objects.get(key)
        if live is None:
            self._add(item["kind"], item)
        else:
            if is_subset(item, live):
                raise Broken(f"{key} is applied without need")
            metadata = {**live["metadata"], **item["metadata"]}
            scaled = {name: live["spec"][name] for name in ("replicas",) if name in live.get("spec", {})}
            live.update(
                {**item, "metadata": metadata, **({"spec": {**item["spec"], **scaled}} if scaled else {})}
            )
            self._touch(live)

    def _write_status(self, item: StatusWrite) -> None:
        live = self._named(item.target)
        if live["metadata"]["resourceVersion"] != item.resource_version:
            raise Broken(f"{item.target.name}: status was decided on an older version")
        if live.get("status") == dict(item.status):
            raise Broken(f"{item.target.name}: status is written without need")
        live["status"] = json.loads(json.dumps(dict(item.status)))
        self._touch(live)

    def _add(self, kind: str, manifest: dict[str, Any]) -> None:
        manifest["metadata"].update(
            uid=self._uid(), generation=1, creationTimestamp=self.now.isoformat(), namespace=NAMESPACE
        )
        manifest["kind"] = kind
        self.objects[kind, manifest["metadata"]["name"]] = manifest
        self._touch(manifest)

    def _touch(self, manifest: dict[str, Any]) -> None:
        self._version += 1
        manifest["metadata"]["resourceVersion"] = str(self._version)

    def _uid(self) -> str:
        self._uids += 1
        return f"uid-{self._uids}"

    def _named(self, ref: ObjectRef) -> dict[str, Any]:
        live = self.objects[ref.kind, ref.name]
        if ref.uid and ref.uid != live["metadata"]["uid"]:
            raise Broken(f"{ref} means another object")
        return live

    def _has(self, kind: str, name: str) -> bool:
        return (kind, name) in self.objects

    def _model(self, type_: Any, kind: str, name: str) -> Any:
        manifest = self.objects[kind, name]
        key = (kind, name, manifest["metadata"]["resourceVersion"])
        if key not in self._parsed:
            self._parsed[key] = type_.model_validate(manifest)
        return self._parsed[key]

    def _models(self, type_: Any, kind: str) -> dict[str, Any]:
        return {name: self._model(type_, kind, name) for k, name in list(self.objects) if k == kind}

    def _gateway(self) -> ObservedGateway:
        name = f"{POOL}-gateway"
        if not self._has("Deployment", name):
            return ObservedGateway()
        ready = self.ready.get(name, 0)
        wanted = self.objects["Deployment", name]["spec"].get("replicas", 1)
        return ObservedGateway(ready, wanted, dict(self.reported) if ready else {})

    def _job(self, manifest: dict[str, Any]) -> ObservedJob:
        metadata, status = manifest["metadata"], manifest.get("status", {})
        suspended = manifest["spec"]["suspend"]
        pod = self.pods.get(metadata["name"])
        return ObservedJob(
            name=metadata["name"],
            uid=metadata["uid"],
            role=Role(metadata["labels"][labels.ROLE]),
            revision=metadata["labels"].get(labels.REVISION),
            created=datetime.fromisoformat(metadata["creationTimestamp"]),
            suspended=suspended,
            state=status.get("state", "Suspended" if suspended else "Running"),
            pods=(pod,) if pod else (),
            headline=status.get("headline"),
            expert=metadata["labels"].get(labels.EXPERT, ""),
            finished=datetime.fromisoformat(status["finished"]) if "finished" in status else None,
        )

    def _config_of(self, manifest: dict[str, Any]) -> str:
        env = manifest["spec"]["template"]["spec"]["containers"][0]["env"]
        return str(next(item["value"] for item in env if item["name"] == "MOE_JOB_CONFIG"))

    # -- invariants

    def check(self) -> None:
        """Check what must hold after every single write."""
        live = [job for job in self.jobs() if job.state in ("Suspended", "Running")]
        for role in (Role.TRAIN, Role.EVALUATE, Role.GRADE, Role.SNAPSHOT):
            owners = [job.expert for job in live if job.role is role]
            if len(owners) != len(set(owners)):
                raise Broken(f"two {role} Jobs of one Expert are alive: {[job.name for job in live]}")
        if sum(job.role is Role.SNAPSHOT and not job.suspended for job in live) > 1:
            raise Broken("two snapshots of a pool run at once")
        seen = set()
        for revision in self._models(ExpertRevision, "ExpertRevision").values():
            identity = (revision.spec.expert_uid, revision.spec.inputs_digest)
            if identity in seen:
                raise Broken(f"two revisions have the inputs of {revision.metadata.name}")
            seen.add(identity)

    def _check_deletion(self, item: ObjectRef) -> None:
        policy = self.policy()
        if item.kind != "Deployment" or policy is None:
            return
        if item.name in [entry.revision for entry in policy.experts]:
            raise Broken(f"{item.name} is deleted although requests go to it")
        if set(self.reported.values()) - {policy.digest()}:
            raise Broken(f"{item.name} is deleted before every gateway has the new policy")

    def end_state(self) -> dict[str, Any]:
        """Return what a run ends in, without what depends on the way there: times, uids, versions."""
        experts = {}
        for name, expert in self._models(Expert, "Expert").items():
            status = expert.status
            experts[name] = (
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
        policy = self.policy()
        return {
            "experts": experts,
            "revisions": {
                name: (revision.spec.cause, revision.status.phase, revision.status.artefact)
                for name, revision in self._models(ExpertRevision, "ExpertRevision").items()
            },
            "policy": policy.model_dump(exclude={"table": {"digest"}}) if policy else None,
            "servers": {name: server.desired_replicas for name, server in self.servers().items()},
        }
