"""The report that a training run stores alongside its weights, ``report.json``, and the headline made from it."""

import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from pydantic import Field

from moe_formats.failure import JobError, TransientError
from moe_formats.format import Format, digest_of
from moe_formats.job_config import TrainJob
from moe_formats.job_report import TrainHeadline
from moe_trainer.methods import artefacts, checkpoint_format
from moe_trainer.moe.backends import Backend
from moe_trainer.moe.balance import LayerLoad
from moe_trainer.storage.committed import Committed
from moe_trainer.storage.committing import is_committed
from moe_trainer.streaming.tokens import StreamRecord
from moe_trainer.training.curriculum import CurriculumState
from moe_trainer.training.load_record import LayerRecord
from moe_trainer.training.run import Run
from moe_trainer.weights.writing import TensorStream


class TrainResult(Format):
    """The figures of a run, under the names that its headline gives them."""

    steps: int
    tokens: int
    final_loss: float
    validation_bits_per_byte: float | None = None
    parameters: int
    resumed_from: int
    stopped_at: int | None = None
    load_max_violation: float | None = None


class Provenance(Format):
    """Where and with what the weights were trained; never part of a revision's identity."""

    cpu_seconds: float = Field(description="CPU seconds of the first process of the attempt that finished.")
    backend: str | None = Field(
        default=None,
        description="The backend that computed the in-layer experts (moe/backends.py); absent if there are none.",
    )
    kernels: str | None = Field(
        default=None, description="The program and version that the backend's kernels come from."
    )
    machine: str
    python: str
    processes: int = 1
    threads: int
    torch: str

    @classmethod
    def here(cls, backend: Backend | None, processes: int) -> "Provenance":
        """Return the provenance of a run that used ``backend`` in this many processes."""
        return cls(
            cpu_seconds=round(time.process_time(), 2),
            backend=backend,
            kernels=kernels_of(backend) if backend else None,
            machine=platform.machine(),
            python=platform.python_version(),
            processes=processes,
            threads=torch.get_num_threads(),
            torch=torch.__version__,
        )


#: The package that compiles a backend's kernels, whose version is reported.
_COMPILERS: dict[str, str] = {"triton": "triton", "cuda": "nvidia-cuda-nvrtc"}


def kernels_of(backend: Backend) -> str:
    """Return the program and version that a backend's kernels come from, for example `triton 3.7.1`."""
    if backend == "native":
        return f"C beside torch {torch.__version__}"
    if backend not in _COMPILERS:
        return f"torch {torch.__version__}"
    return f"{_COMPILERS[backend]} {version(_COMPILERS[backend])}"


class StreamUse(StreamRecord):
    """One stream of text, and how often it was read."""

    passes: float


class TrainReport(Format):
    """Everything that is known about a run."""

    job: TrainJob
    result: TrainResult
    losses: tuple[float | None, ...] = Field(
        description="Cross-entropy of every step, nats per token; null for a step without a token that is learnt."
    )
    unlearnt_steps: int = Field(
        default=0,
        description="Number of steps without a token that is learnt: all of their text was only read.",
    )
    validations: dict[int, float] = Field(description="Step to bits per byte.")
    loads: dict[int, tuple[LayerRecord, ...]] = Field(
        default_factory=dict,
        description="Step to the load of each layer with a router since the previous validation.",
    )
    final_shares: tuple[tuple[float, ...], ...] = Field(
        default=(),
        description="Each in-layer expert's share of its layer's slots in the last interval, by layer.",
    )
    base_shares: tuple[tuple[float, ...], ...] | None = Field(
        default=None, description="The base's shares, if the load was balanced against them."
    )
    streams: tuple[StreamUse, ...] = Field(
        default=(), description="The streams of text that the run trained on."
    )
    replay_excluded: dict[str, int] = Field(
        default_factory=dict, description="Number of the base's documents that were not replayed, by reason."
    )
    curriculum: CurriculumState | None = Field(
        default=None, description="How the curriculum ended, with its trials; absent without one."
    )
    skipped_checkpoints: tuple[str, ...] = Field(
        description="Checkpoints that could not be used, with the reasons."
    )
    provenance: Provenance


def report_of(run: Run) -> TrainReport:
    """Return the report of a run that has taken its last step."""
    curve, kept = run.curve, run.kept_step
    loads = run.balancer.record.loads()
    result = TrainResult(
        steps=kept,
        tokens=kept * run.batches.tokens,
        stopped_at=run.step if run.job.training.early_stop is not None else None,
        final_loss=final_loss(curve.losses[:kept], run.job.training.validation_every),
        validation_bits_per_byte=curve.validations.get(kept),
        parameters=run.parameters,
        resumed_from=run.resumed_from,
        load_max_violation=max((load.max_violation for load in loads), default=None),
    )
    base = run.balancer.base_loads()
    return TrainReport(
        job=run.job,
        result=result,
        losses=tuple(curve.losses),
        unlearnt_steps=curve.losses.count(None),
        validations=curve.validations,
        loads=curve.loads,
        final_shares=_shares(loads),
        base_shares=_shares(base) if base else None,
        streams=tuple(
            StreamUse(**record.model_dump(), passes=round(passes, 4))
            for record, passes in zip(run.streams.training, run.batches.passes(run.step), strict=True)
        ),
        replay_excluded=run.streams.excluded,
        curriculum=curve.curriculum,
        skipped_checkpoints=tuple(run.skipped),
        provenance=Provenance.here(run.backend, run.processes.layout.processes),
    )


def final_loss(losses: Sequence[float | None], every: int) -> float:
    """Return the mean loss of the last validation interval of ``every`` steps in which a step has one.

    Raises JobError (DataEmpty) if no step has a loss.
    """
    for start in range((len(losses) - 1) // every * every, -1, -every):
        interval = [loss for loss in losses[start : start + every] if loss is not None]
        if interval:
            return sum(interval) / len(interval)
    raise JobError(
        "DataEmpty",
        f"none of the {len(losses)} steps read a token that is learnt, so nothing was learnt: all that they read are questions. "
        "Raise training.maxSteps or training.batchTokens, or add conversations with longer answers.",
    )


def _shares(loads: Sequence[LayerLoad]) -> tuple[tuple[float, ...], ...]:
    """Return the shares of each layer, rounded for the report."""
    return tuple(tuple(round(share, 6) for share in load.shares) for load in loads)


def commit(
    root: Path, folder: str, run: Run, tensors: TensorStream, alive: Callable[[], None] = lambda: None
) -> TrainHeadline:
    """Write the artefact of a finished run with its report; the tensors come one by one.

    ``alive`` is called once per file after all of them are written.
    """
    if is_committed(root, folder):
        raise TransientError(
            "ArtefactCorrupt", f"{folder} exists and is damaged; the next attempt writes to another folder."
        )
    artefacts.write(
        root,
        folder,
        run.job.training,
        run.model,
        run.tokenizer,
        base=run.base,
        report=report_of(run).to_json(),
        temperature=run.job.temperature,
        tensors=tensors,
        alive=alive,
    )
    with Committed(root, folder) as held:
        return headline(held, folder)


def finished(root: Path, revision: str, attempts: int) -> TrainHeadline | None:
    """Return the headline of an artefact that an earlier attempt at this revision has committed, or None."""
    for attempt in range(1, attempts + 1):
        folder = f"{revision}/a{attempt}"
        if is_committed(root, folder):
            try:
                with Committed(root, folder) as held:
                    held.verify()
                    print(f"attempt {attempt} has finished already: {folder}", flush=True)
                    return headline(held, folder)
            except JobError as error:
                print(f"attempt {attempt} left an artefact that cannot be used: {error}", flush=True)
    return None


def headline(held: Committed, folder: str) -> TrainHeadline:
    """Return the headline of a committed artefact, which is open; ``folder`` is its path in the store."""
    text = held.read(checkpoint_format.REPORT)
    result = TrainReport.model_validate_json(text).result
    return TrainHeadline(
        report=digest_of(text),
        path=folder,
        digest=held.digest,
        **result.model_dump(),
    )
