"""`train` of the small trainer: as many steps as asked, checkpoints, exact resume, progress over HTTP."""

import errno
import json
import math
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np

from moe_formats import store
from moe_formats.failure import JobError, TransientError
from moe_formats.format import digest_of
from moe_formats.job_config import TrainJob
from moe_formats.job_report import Progress, TrainHeadline
from moe_trainer.environment import Environment
from moe_trainer.snapshots.layout import read_documents
from moe_trainer.storage.committing import is_committed
from moe_trainer.storage.files import replace_file
from moe_trainer.storage.manifest import sha256_of_file
from moe_trainer.training.progress import ProgressServer
from small_trainer import model
from small_trainer.behaviour import RELEASED, Behaviour

#: Seconds between two looks at whether a held training may go on.
LOOK_SECONDS = 0.05


def run(job: TrainJob, environment: Environment) -> TrainHeadline:
    """Train one revision, or go on where a killed attempt stopped."""
    revision = environment.store / store.revision(job.pool_uid, job.expert.uid, job.inputs_digest)
    for attempt in range(1, job.attempt):
        if is_committed(revision, f"a{attempt}"):
            return _headline(environment.store, revision / f"a{attempt}", resumed_from=0)
    training = Training(job, environment.store, revision / "checkpoints")
    resumed_from = training.step
    with ProgressServer(environment.pod_ip, environment.progress_port) as progress:
        training.take_steps(progress)
    folder = revision / f"a{job.attempt}"
    model.write(folder, training.counts_PB, json.dumps({"trace": training.trace, "steps": training.step}))
    shutil.rmtree(revision / "checkpoints", ignore_errors=True)
    return _headline(environment.store, folder, resumed_from=resumed_from)


class Training:
    """A run: the counts so far, and a trace of every batch in its order."""

    def __init__(self, job: TrainJob, root: Path, checkpoints: Path) -> None:
        self.job = job
        self.behaviour = job.seed
        self._released = root / RELEASED
        self.texts = [item.text.encode() for item in read_documents(root / job.data.path)]
        self.steps = job.training.max_steps or max(1, math.ceil(job.training.max_epochs * 20))
        self.step, self.trace = 0, ""
        self.counts_PB = np.zeros((256, 256))
        if job.parent is not None:
            self.counts_PB = model.load(root / job.parent.path, job.parent.digest)[0] * model.OF_PARENT
        self._checkpoint = checkpoints / "newest.json"
        self._resume()

    def take_steps(self, progress: ProgressServer) -> None:
        """Take all steps that are left."""
        while self.step < self.steps:
            self._hold()
            self._misbehave()
            self._take_step()
            if self.step % self.job.training.checkpoint_every == 0 or self.step == self.steps:
                self._save()
            loss = 5.5 - 3 * self.step / self.steps
            progress.publish(
                Progress(
                    step=self.step, max_steps=self.steps, loss=loss, eta_seconds=0, tokens_per_second=1e4
                )
            )

    def _hold(self) -> None:
        while (
            self.behaviour == Behaviour.HELD and self.step == self.steps // 2 and not self._released.exists()
        ):
            time.sleep(LOOK_SECONDS)

    def _take_step(self) -> None:
        share = self.texts[self.step % len(self.texts) :: self.steps] or self.texts[:1]
        for text in share:
            self.counts_PB += model.pairs_PB(text[::-1] if self.behaviour == Behaviour.BACKWARDS else text)
        self.trace = digest_of(self.trace + str(self.step) + digest_of(b"".join(share)))
        self.step += 1

    def _misbehave(self) -> None:
        if self.step != self.steps // 2:
            return
        if self.behaviour == Behaviour.NAN:
            raise JobError("LossNotFinite", f"at step {self.step} of {self.steps} the loss is nan.")
        if self.job.attempt > 1:
            return
        if self.behaviour == Behaviour.DISK_FULL_ONCE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._checkpoint))
        if self.behaviour == Behaviour.KILLED_ONCE:
            os.kill(os.getpid(), signal.SIGKILL)

    def _save(self) -> None:
        state = {"step": self.step, "trace": self.trace, "counts": self.counts_PB.tolist()}
        replace_file(self._checkpoint.parent, self._checkpoint.name, json.dumps(state).encode())

    def _resume(self) -> None:
        if self._checkpoint.exists():
            state = json.loads(self._checkpoint.read_text())
            self.step, self.trace = state["step"], state["trace"]
            self.counts_PB = np.array(state["counts"])


def _headline(root: Path, folder: Path, *, resumed_from: int) -> TrainHeadline:
    from moe_trainer.storage.manifest import read_manifest

    steps = json.loads((folder / model.REPORT).read_text())["steps"]
    if steps < 1:
        raise TransientError("Crashed", "no step was taken")
    return TrainHeadline(
        report="sha256:" + sha256_of_file(folder / model.REPORT),
        path=folder.relative_to(root).as_posix(),
        digest=read_manifest(folder.parent, folder.name)[1],
        steps=steps,
        tokens=steps * 100,
        final_loss=2.5,
        parameters=65536,
        resumed_from=resumed_from,
    )
