"""``moe-trainer train``: one revision, from a parent artefact or a preset, to a committed artefact.

    loss = cross-entropy + w_lb * load-balancing loss + w_z * router z-loss      (means over layers)

An attempt looks for what earlier ones left: a committed artefact is verified and reported again; else
the newest good checkpoint is gone on from, with the same batches and, on one kind of machine, the same
bits as a run that was never interrupted.
"""

import math
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from moe_trainer import artefact, checkpoint, store
from moe_trainer.checkpoint import Curve
from moe_trainer.data.batches import Batches, read_streams, validation_blocks
from moe_trainer.data.snapshot_layout import read_record
from moe_trainer.device import use_device
from moe_trainer.environment import Environment
from moe_trainer.failure import JobError, TransientError
from moe_trainer.formats import Digest, canonical_json, digest_of
from moe_trainer.job_config import TrainJob
from moe_trainer.job_report import Progress, TrainHeadline
from moe_trainer.losses import load_balancing_loss, load_max_violation, router_z_loss
from moe_trainer.manifest import corrupt, verify
from moe_trainer.model import Model, initialise
from moe_trainer.moe.routing import Routing
from moe_trainer.optimization import AdamW, learning_rate
from moe_trainer.presets import preset
from moe_trainer.progress import ProgressServer
from moe_trainer.termination import Stop, stop_on_sigterm
from moe_trainer.tokenizer import Tokenizer
from moe_trainer.train_report import Provenance, TrainReport, TrainResult, commit, finished

#: Seconds between lines in the log.
LOG_SECONDS = 1.0


@dataclass
class Run:
    """One training run in memory."""

    job: TrainJob
    model: Model
    tokenizer: Tokenizer
    batches: Batches
    validation: Tensor | None
    steps: int
    optimizer: AdamW
    curve: Curve = field(default_factory=Curve)
    resumed_from: int = 0
    skipped: list[str] = field(default_factory=list)  #: Checkpoints that could not be used, with the reason.
    max_violation: float = 0.0

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.curve.losses)

    @property
    def parameters(self) -> int:
        """Numbers that are trained."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def run(job: TrainJob, environment: Environment) -> TrainHeadline:
    """Train, or find that it was done, and return what was made."""
    revision = store.revision(job.pool_uid, job.expert.uid, job.inputs_digest)
    done = finished(environment.store, revision, job.attempt)
    if done:
        return done
    if environment.processes > 1:
        raise JobError(
            "InvalidConfig",
            f"training was started in {environment.processes} processes, but this version trains in one: "
            "set training.resources.nodes to 1.",
        )
    use_device(environment.threads)
    training = prepare(job, environment.store)
    checkpoints = environment.store / revision / "checkpoints"
    training.curve, training.skipped = checkpoint.restore(
        checkpoints, training_inputs(job), training.model, training.optimizer
    )
    training.resumed_from = training.step
    for reason in training.skipped:
        print(f"checkpoint skipped: {reason}", flush=True)
    print(
        f"{job.revision}: {training.parameters} parameters, "
        f"{training.steps} steps of {training.batches.tokens} tokens, "
        f"from step {training.resumed_from}",
        flush=True,
    )
    with ProgressServer(environment.pod_ip, environment.progress_port) as progress, stop_on_sigterm() as stop:
        train(training, checkpoints, progress, stop)
    folder = f"{revision}/a{job.attempt}"
    headline = commit(environment.store, folder, training.model, training.tokenizer, _report(training))
    shutil.rmtree(checkpoints, ignore_errors=True)
    return headline


def prepare(job: TrainJob, root: Path) -> Run:
    """Load the parent or make the preset, and read the data."""
    if job.training.specialization_loss_weight:
        raise JobError(
            "InvalidConfig", "training.specializationLossWeight must be 0: this version has no such loss."
        )
    if (job.parent is None) == (job.preset is None):
        raise JobError("InvalidConfig", "exactly one of parent and preset must be given.")
    if job.parent is not None:
        model, tokenizer = artefact.load(root / job.parent.path, job.parent.digest)
    else:
        model, tokenizer = Model(preset(str(job.preset))), Tokenizer()
        initialise(model, job.seed)
    snapshot = root / job.data.path
    verify(snapshot)
    found = read_record(snapshot).digest
    if found != job.data.digest:
        raise corrupt(snapshot, f"it holds data {found}, not the expected {job.data.digest}")
    stream, kept_apart = read_streams(snapshot, tokenizer)
    context = model.config.max_position_embeddings
    batches = Batches(stream, context=context, batch_tokens=job.training.batch_tokens, seed=job.seed)
    return Run(
        job=job,
        model=model.train(),
        tokenizer=tokenizer,
        batches=batches,
        validation=validation_blocks(kept_apart, context),
        steps=job.training.max_steps or batches.steps(job.training.max_epochs),
        optimizer=AdamW(model, job.training),
    )


def training_inputs(job: TrainJob) -> Digest:
    """Return the identity of all that decides the bits of a run."""
    parent = job.parent.digest if job.parent else f"preset {job.preset}"
    training = job.training.model_dump(mode="json")
    return digest_of(canonical_json([parent, job.data.digest, training, job.seed]))


def train(training: Run, checkpoints: Path, progress: ProgressServer, stop: Stop) -> None:
    """Take all steps that are left; checkpoint, validate and report on the way."""
    spec = training.job.training
    inputs = training_inputs(training.job)
    clock = _Clock(training)
    while training.step < training.steps:
        loss = take_step(training)
        training.curve.losses.append(loss)
        last = training.step == training.steps
        if last or training.step % spec.validation_every == 0:
            _validate(training)
        if stop.requested or (not last and training.step % spec.checkpoint_every == 0):
            checkpoint.save(checkpoints, inputs, training.model, training.optimizer, training.curve)
        if stop.requested and not last:
            raise TransientError(
                "Interrupted", f"asked to stop at step {training.step}; the next attempt goes on from there."
            )
        clock.report(progress, last)


def take_step(training: Run) -> float:
    """Take one optimizer step and return its cross-entropy in nats per token.

    Raises JobError (LossNotFinite) before a parameter is touched.
    """
    spec, step = training.job.training, training.step
    ids_BT = training.batches.batch(step)
    logits_BTV, routings = training.model.with_routing(ids_BT[:, :-1])
    cross_entropy = F.cross_entropy(logits_BTV.flatten(0, 1), ids_BT[:, 1:].flatten())
    loss = cross_entropy + _auxiliary(training, routings)
    total = float(loss.detach())
    training.optimizer.clear_gradients()
    loss.backward()  # type: ignore[no-untyped-call]
    norm = float(torch.nn.utils.clip_grad_norm_(training.model.parameters(), spec.gradient_clip))
    if not (math.isfinite(total) and math.isfinite(norm)):
        raise JobError(
            "LossNotFinite",
            f"at step {step + 1} of {training.steps} the loss is {total} and the gradient's norm "
            f"{norm}. Lower training.learningRate (now {spec.learning_rate}) or look at the data.",
        )
    training.optimizer.step(learning_rate(spec, step, training.steps))
    training.max_violation = load_max_violation(routings)
    return float(cross_entropy.detach())


def _auxiliary(training: Run, routings: list[Routing]) -> Tensor:
    spec = training.job.training
    balance = torch.stack([load_balancing_loss(routing) for routing in routings]).mean()
    z = torch.stack([router_z_loss(routing) for routing in routings]).mean()
    return spec.load_balancing_loss_weight * balance + spec.auxiliary_loss_weight * z


def _validate(training: Run) -> None:
    """Add the bits per byte of the validation text to the curve; nothing if there is none."""
    if training.validation is None:
        return
    training.model.eval()
    nats = torch.zeros((), dtype=torch.float64)
    with torch.inference_mode():
        for ids_BT in torch.split(training.validation, training.batches.rows):
            logits_BTV = training.model(ids_BT[:, :-1])
            nats_N = F.cross_entropy(logits_BTV.flatten(0, 1), ids_BT[:, 1:].flatten(), reduction="none")
            nats += nats_N[ids_BT[:, 1:].flatten() < 256].double().sum()
    training.model.train()
    count = int((training.validation[:, 1:] < 256).sum())
    training.curve.validations[training.step] = float(nats) / (math.log(2) * count)


def _report(training: Run) -> TrainReport:
    losses, every = training.curve.losses, training.job.training.validation_every
    last_interval = losses[-(len(losses) % every or every) :]
    result = TrainResult(
        steps=training.step,
        tokens=training.step * training.batches.tokens,
        final_loss=sum(last_interval) / len(last_interval),
        validation_bits_per_byte=training.curve.validations.get(training.step),
        parameters=training.parameters,
        resumed_from=training.resumed_from,
    )
    return TrainReport(
        job=training.job,
        result=result,
        losses=tuple(losses),
        validations=training.curve.validations,
        skipped_checkpoints=tuple(training.skipped),
        provenance=Provenance.here(),
    )


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
            load_max_violation=training.max_violation,
        )
        progress.publish(answer)
        print(_line(answer), flush=True)


def _line(progress: Progress) -> str:
    validation = f"  {progress.bits_per_byte:.3f} bits/byte" if progress.bits_per_byte is not None else ""
    return (
        f"step {progress.step}/{progress.max_steps}  loss {progress.loss:.4f}{validation}"
        f"  {progress.tokens_per_second or 0:.0f} tokens/s  {progress.eta_seconds or 0:.0f} s left"
    )
