"""``moe-trainer train``: one revision, from a parent artefact or a preset, to a committed artefact.

The parts of a run are in training/. This file puts them in order: prepare, continue from an earlier attempt, take steps,
validate, write checkpoints, commit.

An attempt first looks for what earlier attempts left. A committed artefact is verified and reported again.
Otherwise the run resumes from the newest good checkpoint, with the same batches and, on the same kind of machine,
the same bits as a run that was never interrupted.

Started by torchrun, a run has several processes (parallel/). All of them run this code; the first one logs, reports
and commits.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from moe_formats import store
from moe_formats.failure import TransientError
from moe_formats.job_config import TrainJob
from moe_formats.job_report import TrainHeadline
from moe_trainer.environment import Environment
from moe_trainer.methods.artefacts import METHODS
from moe_trainer.models.device import use_device
from moe_trainer.parallel.gathering import gathered
from moe_trainer.parallel.processes import Processes, first_alone, joined
from moe_trainer.training.balancing import BASE_LOAD_STEPS
from moe_trainer.training.checkpoint import Checkpoints, Trained
from moe_trainer.training.data import drop_tokens
from moe_trainer.training.progress import ProgressServer, Reporter
from moe_trainer.training.report import commit, finished, kernels_of
from moe_trainer.training.run import Run, layout_of, prepare, training_inputs
from moe_trainer.training.step import take_step
from moe_trainer.training.trial import hold_trial, is_due
from moe_trainer.training.validation import end_interval, measured_slices


@dataclass
class Stop:
    """Whether this process has been asked to end: SIGTERM sets it, and the loop looks at it after each step."""

    requested: bool = False


@contextmanager
def stop_on_sigterm() -> Iterator[Stop]:
    """Yield a Stop that SIGTERM sets; only the main thread may use it."""
    stop = Stop()

    def ask(_signal: int, _frame: FrameType | None) -> None:
        stop.requested = True

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def run(job: TrainJob, environment: Environment) -> TrainHeadline:
    """Train, or find that an earlier attempt has finished, and return the headline of the artefact."""
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
    checkpoints = Checkpoints(environment.store, f"{revision}/checkpoints", training_inputs(job), trained)
    begin(training, checkpoints)
    port = environment.progress_port if processes.first else None
    with ProgressServer(environment.pod_ip, port) as progress, stop_on_sigterm() as stop:
        train(training, checkpoints, Reporter(training, progress), stop)
    if training.best is not None:
        training.best.put_back()
    headline = _commit(training, environment.store, f"{revision}/a{job.attempt}")
    checkpoints.drop_all()
    if processes.first:
        drop_tokens(job, environment.store)
    return headline


def _commit(training: Run, root: Path, folder: str) -> TrainHeadline:
    """Commit the artefact: all processes gather its tensors one by one, and the first one writes them with the report."""
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
    """Continue from the newest good checkpoint, or start from the beginning."""
    job = training.job
    training.curve, training.skipped = checkpoints.restore()
    training.resumed_from = training.step
    if training.curriculum is not None:
        if training.curve.curriculum is None:
            training.curriculum.measured = measured_slices(training, training.curriculum)
            training.curve.curriculum = training.curriculum.begun(training.batches)
        training.batches.enter(training.curve.curriculum.phase)
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
        print(f"in-layer experts computed by {training.backend} ({kernels_of(training.backend)})", flush=True)


def train(training: Run, checkpoints: Checkpoints, reporter: Reporter, stop: Stop) -> None:
    """Take all remaining steps; validate, write checkpoints and report on the way."""
    spec = training.job.training
    while not training.over:
        if is_due(training):
            hold_trial(training, lambda: training.processes.any(stop.requested))
        else:
            training.curve.losses.append(take_step(training))
            if training.step == training.steps or training.step % spec.validation_every == 0:
                end_interval(training)
        last = training.over
        stopping = training.processes.any(stop.requested)
        if stopping or (not last and training.step % spec.checkpoint_every == 0):
            checkpoints.save(training.curve)
        if stopping and not last:
            checkpoints.wait()
            raise TransientError(
                "Interrupted", f"asked to stop at step {training.step}; the next attempt resumes there."
            )
        if training.processes.first:
            reporter.report(last)
    if training.processes.first and (unlearnt := training.curve.losses.count(None)):
        print(f"{unlearnt} of {training.step} steps had no token that is learnt", flush=True)
