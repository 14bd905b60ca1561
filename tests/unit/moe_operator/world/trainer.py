"""The trainer as the operator meets it: each Job's config goes in, a headline or a failure comes out.

What is true of the data and of the models is set here; results follow from that and from the configs alone.
"""

import copy
import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from moe_formats.job_config import (
    DistillJob,
    DriftJob,
    EvaluateJob,
    GradeJob,
    MatrixJob,
    SnapshotJob,
    TasksRef,
    TrainJob,
)
from moe_formats.job_report import (
    EXIT_ERROR,
    EXIT_INPUT_ERROR,
    Accuracy,
    Change,
    Decision,
    DistillHeadline,
    DriftHeadline,
    EvaluateHeadline,
    Failure,
    Interval,
    MatrixHeadline,
    SnapshotHeadline,
    TaskSet,
    TrainHeadline,
    Ungraded,
    Window,
)

Job = SnapshotJob | TrainJob | EvaluateJob | GradeJob | DriftJob | MatrixJob | DistillJob
#: How a Job ends instead of well: a failure that is reported, an exit code, or "disrupted" (its pod is
#: evicted), "unreadable" (it succeeds and reports nothing) or "grader" (a grader's container fails).
Fate = Failure | int | str


@dataclass(frozen=True)
class Ending:
    """How the pod of a Job ends."""

    exit_code: int = 0
    #: The termination message of the container that speaks for the pod.
    message: str = ""
    disrupted: bool = False
    #: True: a grader's container ended with that code, and the trainer's never started.
    by_grader: bool = False


@dataclass
class Trainer:
    """What the sources hold, and what is found of models that are trained on it."""

    #: What the sources of an Expert hold: another version is other data.
    data: dict[str, int] = field(default_factory=dict)
    #: Bytes by which the training text of an Expert grows from one version to the next.
    grows: dict[str, int] = field(default_factory=dict)
    #: Clusters of documents in every holdout.
    clusters: int = 30
    #: What the evaluators find of a revision: its accuracy less that of what it is compared with.
    accuracy_gained: dict[str, float] = field(default_factory=dict)
    #: Evaluators whose answers a grader judges.
    graded: set[str] = field(default_factory=set)
    #: Data versions that are junk: they win their own window and lose on the anchor.
    junk: set[int] = field(default_factory=set)
    #: The drift of revisions that have one, and by how much harder their newest text is for the base.
    drift: dict[str, float] = field(default_factory=dict)
    harder: dict[str, float] = field(default_factory=dict)
    #: The domain that an Expert's newest text resembles most, if that is another than its own.
    nearest: dict[str, str] = field(default_factory=dict)
    #: Job name to how it ends instead of well.
    fate: dict[str, Fate] = field(default_factory=dict)

    def fork(self) -> "Trainer":
        """Return a trainer that goes its own way from here."""
        return copy.deepcopy(self)

    def run(self, name: str, job: Job, evaluated: Callable[[str], EvaluateJob]) -> Ending:
        """Return how a Job ends; ``evaluated`` returns what the evaluation of a revision was asked."""
        fate = self.fate.get(name)
        if fate is None:
            return Ending(message=self._result(job, evaluated).to_json())
        if isinstance(fate, Failure):
            return Ending(EXIT_ERROR if fate.retryable else EXIT_INPUT_ERROR, fate.to_json())
        if isinstance(fate, int):
            return Ending(fate, "last words")
        return {
            "disrupted": Ending(137, disrupted=True),
            "unreadable": Ending(),
            "grader": Ending(3, "last words", by_grader=True),
        }[fate]

    def _result(self, job: Job, evaluated: Callable[[str], EvaluateJob]) -> Any:
        if isinstance(job, SnapshotJob):
            return self._snapshot(job)
        if isinstance(job, TrainJob):
            return _training(job)
        if isinstance(job, EvaluateJob):
            return self._evaluation(job, self.graded)
        if isinstance(job, GradeJob):
            return self._evaluation(evaluated(job.revision))
        if isinstance(job, DriftJob):
            return self._drift(job)
        if isinstance(job, MatrixJob):
            return _matrix(job)
        return _table(job)

    def _drift(self, job: DriftJob) -> DriftHeadline:
        version = self.data.get(job.expert.name, 0)
        windows = tuple(digest("window", job.expert.uid, number) for number in range(1, version + 1))[-4:]
        if len(windows) < 2:
            why = {"interval": f"TooFewWindows: {len(windows)} held out since the anchor"}
            return DriftHeadline(report=digest("drift"), windows=windows, clusters=self.clusters, absent=why)
        return DriftHeadline(
            report=digest("drift", job.content_digest()),
            windows=windows,
            clusters=self.clusters * len(windows),
            drift=self._change(self.drift.get(job.model.revision, 0.0)),
            difficulty=self._change(self.harder.get(job.model.revision, 0.0)),
            nearest_domain=self.nearest.get(job.expert.name, job.expert.domain),
            accuracies=tuple(self._accuracy_now(job.model.revision, item) for item in job.tasks),
        )

    def _change(self, value: float) -> Change:
        interval = Interval(value=value, lower=value - 0.01, upper=value + 0.01, clusters=self.clusters)
        return Change(interval=interval, lower_bound=value - 0.012)

    def _accuracy_now(self, revision: str, tasks: TasksRef) -> Accuracy:
        share = 0.9 + self.accuracy_gained.get(f"{revision} now", 0.0)
        found = Interval(value=share, lower=share - 0.05, upper=share + 0.05, clusters=100)
        return Accuracy(evaluator=tasks.evaluator, items=100, accuracy=found)

    def _snapshot(self, job: SnapshotJob) -> SnapshotHeadline:
        version = self.data.get(job.expert.name, 0)

        def window(number: int) -> Window:
            return Window(
                path=f"holdouts/{job.expert.name}-{number}",
                digest=digest("window", job.expert.uid, number),
                clusters=self.clusters,
                segments=100,
            )

        def tasks(evaluator: Any) -> TaskSet:
            path = f"tasks/{evaluator.name}"
            return TaskSet(evaluator=evaluator.name, path=path, digest=digest("tasks", evaluator), items=100)

        return SnapshotHeadline(
            report=digest("snapshot", version),
            path=f"snapshots/{job.expert.name}-{version}",
            digest=digest("data", job.expert.uid, [source.path for source in job.sources], version),
            documents=1000,
            train_bytes=100_000 + version * self.grows.get(job.expert.name, 0),
            dropped={"length": 3},
            anchor=window(0),
            newest=window(version) if version else None,
            tasks=tuple(tasks(item) for item in job.evaluators),
        )

    def _evaluation(self, job: EvaluateJob, ungraded: Collection[str] = ()) -> EvaluateHeadline:
        left = tuple(item.evaluator for item in job.tasks if item.evaluator in ungraded)
        graded = [item for item in job.tasks if item.evaluator not in left]
        return EvaluateHeadline(
            report=digest("evaluation", job.revision),
            accuracies=tuple(self._accuracy(job, item) for item in graded),
            ungraded=Ungraded(path=f"evaluations/{job.revision}", evaluators=left) if left else None,
            decisions=tuple(self._decision(job, c.role, c.holdout.digest, c.uses) for c in job.comparisons),
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

    def _decision(self, job: EvaluateJob, role: Any, holdout: str, uses: int) -> Decision:
        junk = self.data.get(job.expert.name, 0) in self.junk
        upper = 0.08 if junk and role == "anchor" else -0.1
        interval = Interval(value=upper - 0.02, lower=upper - 0.04, upper=upper, clusters=self.clusters)
        against: Any = "current" if job.current else ("base" if job.base else "unigram")
        return Decision(
            role=role, holdout=holdout, uses=uses, alpha=0.03, interval=interval, upper=upper, against=against
        )

    def _accuracy(self, job: EvaluateJob, tasks: TasksRef) -> Accuracy:
        gained = self.accuracy_gained.get(job.revision, 0.0)
        return Accuracy(
            evaluator=tasks.evaluator,
            items=100,
            accuracy=Interval(value=0.9, lower=0.85, upper=0.95, clusters=100),
            difference=Interval(value=gained, lower=gained - 0.04, upper=gained + 0.04, clusters=100),
            against="current" if job.current else "base",
        )


def digest(*parts: object) -> str:
    """Return a digest of anything."""
    return "sha256:" + hashlib.sha256(repr(parts).encode()).hexdigest()


def _training(job: TrainJob) -> TrainHeadline:
    return TrainHeadline(
        report=digest("report", job.inputs_digest),
        path=f"pools/{job.expert.uid}/a{job.attempt}",
        digest=digest("artefact", job.inputs_digest),
        steps=100,
        tokens=1000,
        final_loss=1.5,
        parameters=1000,
    )


def _matrix(job: MatrixJob) -> MatrixHeadline:
    found = digest("matrix", job.models, job.suite)
    return MatrixHeadline(
        path="matrices/x/matrix.json", digest=found, cells=len(job.models) * len(job.suite), absent=0
    )


def _table(job: DistillJob) -> DistillHeadline:
    return DistillHeadline(
        report=digest("distill"),
        path="tables/x/table.json",
        digest=digest("table", job.content_digest()),
        routed_bits_per_byte=2.1,
        oracle_bits_per_byte=2.0,
        random_bits_per_byte=3.0,
        accuracy=0.9,
    )
