"""``moe-trainer train``: one revision, from a parent artefact or a preset, to a committed artefact.

What a run consists of is in training/; here is its course: prepare, go on from where an attempt stopped, step,
measure, checkpoint, commit.

An attempt looks for what earlier ones left: a committed artefact is verified and reported again; else
the newest good checkpoint is gone on from, with the same batches and, on one kind of machine, the same
bits as a run that was never interrupted.

Started by torchrun, a run has several processes (parallel/). Each of them goes through all of this; the first
one logs, reports and commits.
"""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor

from moe_formats import store
from moe_formats.failure import TransientError
from moe_formats.job_config import TrainJob
from moe_formats.job_report import Progress, TrainHeadline
from moe_trainer.environment import Environment
from moe_trainer.methods.artefacts import METHODS
from moe_trainer.models.device import use_device
from moe_trainer.moe.balance import LayerLoad
from moe_trainer.moe.router import LogitsNotFinite
from moe_trainer.parallel.gathering import gathered
from moe_trainer.parallel.processes import Processes, first_alone, joined
from moe_trainer.training.balancing import BASE_LOAD_STEPS
from moe_trainer.training.checkpoint import Checkpoints, Trained
from moe_trainer.training.data import drop_tokens
from moe_trainer.training.load_record import thinned
from moe_trainer.training.not_finite import (
    loss_not_finite,
    origin,
    router_not_finite,
    spoilt_weight,
)
from moe_trainer.training.progress import ProgressServer, load_metrics
from moe_trainer.training.report import commit, finished, kernels_of
from moe_trainer.training.run import Run, layout_of, prepare, training_inputs
from moe_trainer.training.step import take_step
from moe_trainer.training.validation import validate

#: Seconds between lines in the log.
LOG_SECONDS = 1.0


@dataclass
class Stop:
    """Whether somebody has asked this process to end."""

    requested: bool = False


@contextmanager
def stop_on_sigterm() -> Iterator[Stop]:
    """Yield a Stop that SIGTERM sets; in the main thread only."""
    stop = Stop()

    def ask(_signal: int, _frame: FrameType | None) -> None:
        stop.requested = True

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def run(job: TrainJob, environment: Environment) -> TrainHeadline:
    """Train, or find that it was done, and return what was made."""
    revision = store.revision(job.pool_uid, job.expert.uid, job.inputs_digest)
    done = finished(environment.store, revision, job.attempt)
    if done:
        return done
    layout = layout_of(job, environment.store, environment.processes)
    use_device(environment.threads)
    with joined(layout) as processes:
        return _run_together(job, environment, revision, processes)


def _run_together(
    job: TrainJob, environment: Environment, revision: str, processes: Processes
) -> TrainHeadline:
    training = prepare(job, environment.store, processes)
    trained = Trained(training.model, training.optimizer, training.balancer, processes, training.best)
    checkpoints = Checkpoints(environment.store / revision / "checkpoints", training_inputs(job), trained)
    begin(training, checkpoints)
    port = environment.progress_port if processes.first else None
    with ProgressServer(environment.pod_ip, port) as progress, stop_on_sigterm() as stop:
        train(training, checkpoints, progress, stop)
    if training.best is not None:
        training.best.put_back()
    headline = _commit(training, environment.store, f"{revision}/a{job.attempt}")
    checkpoints.drop_all()
    if processes.first:
        drop_tokens(job, environment.store)
    return headline


def _commit(training: Run, root: Path, folder: str) -> TrainHeadline:
    """Let the first process write the tensors, which all of them gather one by one, and commit them with the report."""
    processes = training.processes
    method = METHODS[training.job.training.method]
    tensors = gathered(method.stream(training.model), training.model, processes)
    if not processes.first:
        tensors.take_part()
    made = first_alone(processes, lambda alive: commit(root, folder, training, tensors, alive))
    headline = processes.from_first(made)
    assert headline is not None
    return headline


def begin(training: Run, checkpoints: Checkpoints) -> None:
    """Go on from the newest good checkpoint, or from the beginning."""
    job = training.job
    training.curve, training.skipped = checkpoints.restore()
    training.resumed_from = training.step
    if job.training.balancing.against == "Base" and not training.step:
        steps = range(min(BASE_LOAD_STEPS, training.steps))
        batches = (training.batches.batch(step, training.mine) for step in steps)
        training.balancer.measure_base(training.model, batches)
    if training.processes.first:
        _print_beginning(training)


def _print_beginning(training: Run) -> None:
    for reason in training.skipped:
        print(f"checkpoint skipped: {reason}", flush=True)
    layout = training.processes.layout
    among = f", in {layout.processes} processes ({layout.data} data × {layout.expert} expert)"
    print(
        f"{training.job.revision}: {training.parameters} trained parameters, "
        f"{training.steps} steps of {training.batches.tokens} tokens, "
        f"from step {training.resumed_from}{among if layout.processes > 1 else ''}",
        flush=True,
    )
    if training.backend:
        print(f"in-layer experts by {training.backend} ({kernels_of(training.backend)})", flush=True)


def train(training: Run, checkpoints: Checkpoints, progress: ProgressServer, stop: Stop) -> None:
    """Take all steps that are left; checkpoint, validate and report on the way."""
    spec = training.job.training
    clock = _Clock(training)
    while not training.over:
        loss = take_step(training)
        training.curve.losses.append(loss)
        if training.step == training.steps or training.step % spec.validation_every == 0:
            _end_interval(training)
        last = training.over
        stopping = training.processes.any(stop.requested)
        if stopping or (not last and training.step % spec.checkpoint_every == 0):
            checkpoints.save(training.curve)
        if stopping and not last:
            checkpoints.wait()
            raise TransientError(
                "Interrupted", f"asked to stop at step {training.step}; the next attempt goes on from there."
            )
        if training.processes.first:
            clock.report(progress, last)


def _end_interval(training: Run) -> None:
    """Add what an interval's steps and the validation text tell to the curve; without text the former alone."""
    curve, record, loads = training.curve, training.balancer.record, None
    _check_weights(training)
    if training.validation is not None:
        curve.validations[training.step], loads = _validated(training, training.validation)
    curve.loads = thinned(curve.loads | {training.step: record.summary(loads)})
    if training.best is not None and training.kept_step == training.step:
        training.best.take()
    if not training.over:  # the report wants the last interval's shares
        record.clear()


def _check_weights(training: Run) -> None:
    """Raise JobError (LossNotFinite) if the last step has spoilt a weight of any process."""
    found = spoilt_weight(training.model)
    if training.processes.any(found is not None):
        raise loss_not_finite(training, found or "a weight of another process is not finite", after=True)


def _validated(training: Run, blocks_BT: Tensor) -> tuple[float, list[LayerLoad]]:
    """Return what ``validate`` does; raises JobError (LossNotFinite) if that is no number."""
    try:
        bits, loads = validate(training.model, blocks_BT, training.sizes_V, training.rows, training.positions)
    except LogitsNotFinite as error:
        raise router_not_finite(training, error.layer, after=True) from None
    if not math.isfinite(bits):
        parts = torch.split(blocks_BT[:, :-1], training.rows)
        where = origin(training.model, parts, alone=training.processes.alone)
        raise loss_not_finite(
            training, f"the text to validate on has {bits} bits per byte: {where}", after=True
        )
    return bits, loads


class _Clock:
    """Reports progress about once a second: to the log, and to the progress server."""

    def __init__(self, training: Run) -> None:
        self._training = training
        self._started = self._logged = time.monotonic()
        self._first = training.step

    def report(self, progress: ProgressServer, last: bool) -> None:
        now = time.monotonic()
        if now - self._logged < LOG_SECONDS and not last:
            return
        self._logged = now
        training = self._training
        rate = (training.step - self._first) / (now - self._started)
        answer = Progress(
            step=training.step,
            max_steps=training.steps,
            loss=training.curve.losses[-1],
            bits_per_byte=next(reversed(training.curve.validations.values()), None),
            tokens_per_second=rate * training.batches.tokens,
            eta_seconds=(training.steps - training.step) / rate,
            load_max_violation=max((load.max_violation for load in training.loads), default=None),
            load_entropy=min((load.entropy for load in training.loads), default=None),
            dead_experts=sum(load.dead for load in training.loads) if training.loads else None,
            drop_rate=max((load.drop_rate for load in training.loads), default=None),
            router_logit_rms=max((load.logit_rms for load in training.loads), default=None),
        )
        progress.publish(answer, load_metrics(training.loads))
        print(_line(answer), flush=True)


def _line(progress: Progress) -> str:
    validation = f"  {progress.bits_per_byte:.3f} bits/byte" if progress.bits_per_byte is not None else ""
    return (
        f"step {progress.step}/{progress.max_steps}  loss {progress.loss:.4f}{validation}"
        f"  {progress.tokens_per_second or 0:.0f} tokens/s  {progress.eta_seconds or 0:.0f} s left"
    )
