"""A pool without a cluster: runs the trainer's commands one after the other on folders of this machine.

Benchmarks use it to measure what the commands find, with the configs that the operator would write.
"""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moe_formats.format import digest_of
from moe_formats.job_config import (
    ArtefactRef,
    Comparison,
    ComposeJob,
    DistillJob,
    EvaluateJob,
    ExpertRef,
    HoldoutRef,
    HoldoutRule,
    Rehearsal,
    SnapshotJob,
    SnapshotRef,
    Source,
    TrainJob,
)
from moe_formats.job_report import (
    ComposeHeadline,
    DistillHeadline,
    EvaluateHeadline,
    Failure,
    SnapshotHeadline,
    TrainHeadline,
    parse_headline,
)
from moe_formats.training_spec import TrainingSpec

PRESET = "tiny"


@dataclass
class Expert:
    """What is known of one Expert of the pool."""

    ref: ExpertRef
    data: SnapshotRef
    anchor: HoldoutRef
    revision: ArtefactRef | None = None


@dataclass
class PoolOnDisk:
    """Experts by name, and the CPU seconds that each kind of Job has used."""

    folder: Path
    holdout: HoldoutRule
    experts: dict[str, Expert] = field(default_factory=dict)
    cpu_seconds: Counter[str] = field(default_factory=Counter)
    peak_bytes: int = 0  #: Resident memory of the last Job, at its most.

    def snapshot(self, name: str, domain: str | None, sources: tuple[Source, ...]) -> SnapshotHeadline:
        """Take the snapshot of an Expert's data."""
        ref = ExpertRef(name=name, uid=f"uid-{name}", domain=domain)
        found = self._run(SnapshotJob(pool_uid="pool", expert=ref, sources=sources, holdout=self.holdout))
        assert isinstance(found, SnapshotHeadline)
        self.experts[name] = Expert(
            ref=ref,
            data=SnapshotRef(path=found.path, digest=found.digest),
            anchor=HoldoutRef(domain=domain, expert=name, path=found.anchor.path, digest=found.anchor.digest),
            revision=self.experts[name].revision if name in self.experts else None,
        )
        return found

    def train(
        self,
        name: str,
        training: TrainingSpec,
        base: str | None,
        seed: int = 1,
        rehearsal: Rehearsal | None = None,
    ) -> TrainHeadline:
        """Train a revision of an Expert, from another Expert's or from the preset; it becomes the revision.

        If ``base`` is its own name, it is trained further.
        """
        expert = self.experts[name]
        parent = self.experts[base].revision if base else None
        asked = TrainJob(
            pool_uid="pool",
            expert=expert.ref,
            revision=f"{name}-{seed}",
            attempt=1,
            inputs_digest=digest_of(f"{name} {parent} {training.to_json()} {seed} {expert.data} {rehearsal}"),
            parent=parent,
            preset=None if parent else PRESET,
            data=expert.data,
            rehearsal=rehearsal,
            training=training,
            seed=seed,
        )
        found = self._run(asked)
        assert isinstance(found, TrainHeadline)
        ancestry = (*(parent.ancestry if parent else ()), expert.data)
        expert.revision = ArtefactRef(
            revision=asked.revision, path=found.path, digest=found.digest, ancestry=ancestry
        )
        return found

    def evaluate(
        self,
        name: str,
        base: str | None,
        current: ArtefactRef | None = None,
        window: HoldoutRef | None = None,
    ) -> EvaluateHeadline:
        """Evaluate an Expert's revision on the anchors of all domains, against its base or another revision.

        With ``window``, the two are compared on that holdout too.
        """
        expert = self.experts[name]
        assert expert.revision
        found = self._run(
            EvaluateJob(
                pool_uid="pool",
                expert=expert.ref,
                revision=expert.revision.revision,
                candidate=expert.revision,
                current=current,
                base=self.experts[base].revision if base else None,
                comparisons=(
                    Comparison(holdout=expert.anchor, role="anchor"),
                    *((Comparison(holdout=window, role="window"),) if window else ()),
                ),
                suite=self.suite(),
            )
        )
        assert isinstance(found, EvaluateHeadline)
        return found

    def distill(self) -> DistillHeadline:
        """Make the table of the Distilled strategy for all Experts."""
        found = self._run(
            DistillJob(
                pool_uid="pool",
                roster=tuple(expert.revision for expert in self.experts.values() if expert.revision),
                experts=tuple(expert.ref for expert in self.experts.values()),
                suite=self.suite(),
            )
        )
        assert isinstance(found, DistillHeadline)
        return found

    def compose(self, names: Sequence[str]) -> ComposeHeadline:
        """Make one checkpoint of the banks of some Experts."""
        banks = tuple(revision for name in names if (revision := self.experts[name].revision))
        found = self._run(ComposeJob(pool_uid="pool", banks=banks))
        assert isinstance(found, ComposeHeadline)
        return found

    def suite(self) -> tuple[HoldoutRef, ...]:
        """Return the anchors of all domains."""
        return tuple(expert.anchor for expert in self.experts.values() if expert.ref.domain)

    @property
    def store(self) -> Path:
        """The pool's store."""
        return self.folder / "store"

    def _run(self, job: Any) -> Any:
        """Run a command as a container would, and return its headline; raises RuntimeError if it fails."""
        self.store.mkdir(parents=True, exist_ok=True)
        headline = self.folder / "termination-log"
        environment = os.environ | {
            "MOE_JOB_CONFIG": job.to_json(),
            "MOE_STORE": str(self.store),
            "MOE_SOURCES": str(self.folder / "sources"),
            "MOE_TERMINATION_LOG": str(headline),
            "OMP_NUM_THREADS": "1",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "moe_trainer.main", job.kind], env=environment, stdout=sys.stderr
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu_seconds[job.kind] += usage.ru_utime + usage.ru_stime
        self.peak_bytes = usage.ru_maxrss * 1024
        found = parse_headline(headline.read_text())
        if isinstance(found, Failure):
            raise RuntimeError(f"{job.kind}: {found.reason}: {found.message}")
        return found
