"""One training run in memory, and how it is prepared: parent or preset, data, optimizer."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moe_formats.context_length import longest
from moe_formats.failure import JobError
from moe_formats.format import Digest, canonical_json, digest_of
from moe_formats.job_config import ArtefactRef, TrainJob
from moe_formats.training_spec import TrainingSpec
from moe_trainer.methods.adapter import checkpoint_of
from moe_trainer.methods.artefacts import ADAPTERS, METHODS, Start, load_spread, start
from moe_trainer.models.causal_model import CausalModel
from moe_trainer.models.preset_config import IN_LAYER_EXPERTS, preset
from moe_trainer.models.preset_model import Model, initialise
from moe_trainer.moe.backends import Backend
from moe_trainer.moe.balance import LayerLoad
from moe_trainer.parallel.layout import Layout, lay_out
from moe_trainer.parallel.processes import Processes
from moe_trainer.storage.committed import Committed
from moe_trainer.storage.manifest import corrupt
from moe_trainer.streaming.batches import (
    Batches,
    DocumentEnds,
    rows_of,
    validation_blocks,
    validation_positions,
)
from moe_trainer.streaming.tokens import Streams, StreamsRecord
from moe_trainer.text.tokenizer import ByteTokenizer, Tokenizer
from moe_trainer.training.balancing import Balancer
from moe_trainer.training.base_losses import BaseLosses
from moe_trainer.training.checkpoint import Curve
from moe_trainer.training.curriculum import Curriculum, slices_of
from moe_trainer.training.data import read_data
from moe_trainer.training.early_stop import BestWeights, is_over, standing
from moe_trainer.training.optimization import AdamW, learning_rate, trained_parameters
from moe_trainer.weights import model_config

#: The number of the run's first batches from which a method may initialise what it added.
BEGIN_STEPS = 8

#: Most tokens of a sequence if the spec does not say, even if the base can see more: memory grows with them.
MAX_CONTEXT = 4096


@dataclass
class Run:
    """One training run in memory."""

    job: TrainJob
    model: CausalModel
    tokenizer: Tokenizer
    base: ArtefactRef | None  #: The base of the adapter that is trained; None if a checkpoint is trained.
    batches: Batches
    streams: StreamsRecord  #: What the batches are made from.
    validation: Tensor | None  #: Blocks of validation text; None if there is too little text.
    validation_positions: (
        Tensor | None
    )  #: The places of their tokens in documents, where these are kept apart.
    sizes_V: Tensor  #: The number of bytes of each token.
    steps: int  #: Optimizer steps of the whole run.
    optimizer: AdamW
    balancer: Balancer
    parameters: int  #: The number of trained parameters, over all processes.
    processes: Processes = field(default_factory=Processes)
    best: BestWeights | None = None  #: The best weights so far; None unless the run may end early.
    base_losses: BaseLosses | None = None  #: None if no loss compares with the base.
    curriculum: Curriculum | None = None  #: None if the shares of the streams stay.
    curve: Curve = field(default_factory=Curve)
    resumed_from: int = 0
    skipped: list[str] = field(
        default_factory=list
    )  #: The checkpoints that could not be used, with the reasons.
    loads: list[LayerLoad] = field(
        default_factory=list
    )  #: The loads of the newest step, one per layer with a router.

    @property
    def step(self) -> int:
        """The number of steps taken."""
        return len(self.curve.losses)

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        rate = learning_rate(self.job.training, self.step, self.steps)
        return rate if self.job.rehearsal is None else rate * self.job.rehearsal.rate_share

    @property
    def over(self) -> bool:
        """Whether the run has ended: all steps are taken, or early stop applies."""
        rule = self.job.training.early_stop
        return self.step >= self.steps or (rule is not None and is_over(self.curve.validations, rule))

    @property
    def kept_step(self) -> int:
        """The step whose weights the artefact gets: the last one, or if the run may end early, the best validated one."""
        rule = self.job.training.early_stop
        best = standing(self.curve.validations, rule).best if rule is not None else None
        return self.step if best is None else best

    @property
    def mine(self) -> range:
        """The sequences of a step that this process reads."""
        return self.processes.layout.rows(self.processes.rank, self.batches.rows)

    @property
    def rows(self) -> int:
        """The most sequences of one forward and backward pass."""
        return _rows_at_once(self.batches, self.job.training)

    @property
    def parts(self) -> int:
        """The number of micro-batches in which this process reads its share of a step's sequences."""
        return self.processes.layout.micro_batches(self.batches.rows, self.rows)

    @property
    def backend(self) -> Backend | None:
        """The backend that computes the in-layer experts in training; None if there are none."""
        return self.model.backend(self.rows * self.batches.context)


def layout_of(job: TrainJob, root: Path, processes: int) -> Layout:
    """Return how the run is laid out over processes; raises JobError (InvalidConfig) before any weight is read."""
    if processes == job.expert_parallelism == 1:
        return Layout()
    config = _config(job, root)
    experts = next((config[name] for name in IN_LAYER_EXPERTS if name in config), None)
    found = longest(config)
    rows = rows_of(job.training.batch_tokens, _context(job.training, None if found is None else found[1]))
    return lay_out(processes, job.expert_parallelism, in_layer_experts=experts, rows=rows)


def prepare(job: TrainJob, root: Path, processes: Processes | None = None) -> Run:
    """Load the parent or make the preset, read the data, and reduce the model to this process's part."""
    processes = processes or Processes()
    base_losses = _base_losses(job, root, processes)
    start = _start(job, root, processes)
    model = start.model
    model.recompute = job.training.recompute
    streams = read_data(job, root, start.tokenizer, processes, training_inputs(job))
    context, training = _context(job.training, model.context), job.training
    ends = None if training.across_documents else DocumentEnds(start.tokenizer.bos_id, start.tokenizer.eos_id)
    batches = Batches(
        *streams.training,
        context=context,
        batch_tokens=training.batch_tokens,
        seed=job.seed,
        ends=ends,
    )
    parameters = sum(parameter.numel() for parameter in trained_parameters(model).values())
    if not parameters:
        raise JobError(
            "InvalidConfig",
            f"training.method is {training.method}, but it finds nothing to train in the base: take method Full.",
        )
    start.take_part(processes)
    _try_out(model, job.training, processes)
    first = _first_batches(batches, training, processes)
    METHODS[training.method].begin(model, first, start.weights, processes)
    start.close()
    validation = validation_blocks(streams.validation.tokens, context)
    return Run(
        job=job,
        model=model.train(),
        tokenizer=start.tokenizer,
        base=start.base,
        batches=batches,
        streams=streams.record,
        validation=validation,
        validation_positions=validation_positions(streams.validation, context, ends) if ends else None,
        sizes_V=torch.tensor(start.tokenizer.sizes()),
        steps=_steps(job, batches),
        optimizer=AdamW(model, job.training),
        balancer=Balancer(model, job.training, processes.everyone),
        parameters=parameters,
        processes=processes,
        best=_best_weights(model, job, validation, context),
        base_losses=base_losses,
        curriculum=_curriculum(job, streams, context, ends),
    )


def _try_out(model: CausalModel, training: TrainingSpec, processes: Processes) -> None:
    """Raise JobError if a base of transformers turns out to be none that can be trained, evaluated and served."""
    if not isinstance(model, Model):
        from moe_trainer.hugging_face import decoder, trial  # transformers takes seconds to import

        assert isinstance(model, decoder.Decoder)
        trial.try_out(model, apart=not training.across_documents, processes=processes)


def training_inputs(job: TrainJob) -> Digest:
    """Return a digest of everything that determines the bits of a run; a checkpoint fits only runs with the same."""
    parent = job.parent.digest if job.parent else f"preset {job.preset}"
    training = job.training.checkpoint_identity()
    compared = [job.base.digest] if job.base and job.training.compares_with_base else []
    rehearsal = [job.rehearsal.identity()] if job.rehearsal else []
    return digest_of(canonical_json([parent, job.data.digest, training, job.seed, *compared, *rehearsal]))


def _steps(job: TrainJob, batches: Batches) -> int:
    """Return the number of optimizer steps of the whole run."""
    if job.rehearsal is not None:
        return min(job.rehearsal.max_steps, batches.steps(job.rehearsal.max_epochs))
    return job.training.max_steps or batches.steps(job.training.max_epochs)


def _best_weights(
    model: CausalModel, job: TrainJob, validation: Tensor | None, context: int
) -> BestWeights | None:
    """Return where a run that may end early keeps its best weights; None for others.

    A run on the little text that is new may have none to validate on: then it is short anyway, and takes all its steps.
    """
    if job.training.early_stop is None:
        return None
    if validation is None and job.rehearsal is not None:
        return None
    if validation is None:
        raise JobError(
            "DataEmpty",
            "training.earlyStop needs text to validate on, and the 2 % of the clusters that are kept apart for it "
            f"are shorter than one block of {context} tokens: add data, or leave earlyStop out.",
        )
    return BestWeights(model)


def _curriculum(
    job: TrainJob, streams: Streams, context: int, ends: DocumentEnds | None
) -> Curriculum | None:
    """Return what sets the shares of the streams; None if they stay.

    They stay too where new text is too little for it: of one source only, or without text to validate on.
    """
    rule = job.training.curriculum
    if rule is None:
        return None
    slices = slices_of(streams, context, ends)
    without = [stream.name for stream in streams.record.training if stream.own and stream.name not in slices]
    if job.rehearsal is not None and (without or len(slices) < 2):
        return None
    if without:
        raise JobError(
            "DataEmpty",
            "training.curriculum needs text of every source to validate on, and the 2 % of the clusters that are kept "
            f"apart for it are shorter than one block of {context} tokens in {', '.join(without)}: add data, or leave "
            "curriculum out.",
        )
    if len(slices) < 2:
        raise JobError(
            "InvalidConfig",
            "training.curriculum moves weights between sources, and data.sources has fewer than two with a weight above 0: "
            "give every source a weight, for example 1, or leave curriculum out.",
        )
    return Curriculum(rule, list(slices.values()), [s.share for s in streams.training if not s.own])


def _base_losses(job: TrainJob, root: Path, processes: Processes) -> BaseLosses | None:
    """Return the losses that compare with the base, which is loaded and spread like the model; None if there are none."""
    if not job.training.compares_with_base:
        return None
    if job.training.regularization and not job.training.replay_share:
        raise JobError(
            "InvalidConfig",
            f"training.regularization is {job.training.regularization}, which holds the model to its base on replayed "
            "text, but nothing is replayed: set data.replay.share, or regularization to 0.",
        )
    base = job.base or job.parent
    if base is None:
        raise JobError(
            "InvalidConfig",
            f"training.specializationLossWeight is {job.training.specialization_loss_weight} and regularization "
            f"{job.training.regularization}, but preset {job.preset} has no base to compare with: set both to 0, or take "
            "a trained Expert as base.",
        )
    model, tokenizer = load_spread(root, base.path, base.digest, processes)
    return BaseLosses(model, tokenizer, job.training)


def _rows_at_once(batches: Batches, training: TrainingSpec) -> int:
    tokens = training.micro_batch_tokens or batches.tokens
    return max(1, min(tokens // batches.context, batches.rows))


def _first_batches(batches: Batches, training: TrainingSpec, processes: Processes) -> Iterator[Tensor]:
    """Yield this process's share of the run's first batches, in parts; every process yields the same number of parts."""
    mine = processes.layout.rows(processes.rank, batches.rows)
    parts = processes.layout.micro_batches(batches.rows, _rows_at_once(batches, training))
    for step in range(BEGIN_STEPS):
        yield from batches.batch(step, mine)[:, :-1].tensor_split(parts)


def _context(training: TrainingSpec, seen: int | None) -> int:
    """Return the tokens of a sequence for a model that can see ``seen``; raises JobError (InvalidConfig) if it cannot."""
    most = MAX_CONTEXT if seen is None else seen
    if training.context_tokens is not None and training.context_tokens > most:
        raise JobError(
            "InvalidConfig",
            f"training.contextTokens is {training.context_tokens}, but the base can see {most} tokens: lower it.",
        )
    return training.context_tokens or min(most, MAX_CONTEXT)


def _config(job: TrainJob, root: Path) -> dict[str, Any]:
    """Return the ``config.json`` of the model that training starts from."""
    if job.parent is None:
        return preset(str(job.preset)).to_hugging_face()
    path, digest = checkpoint_of(root, job.parent.path, job.parent.digest)
    with Committed(root, path, digest) as held:
        text = held.read(model_config.CONFIG)
    try:
        config = model_config.parse(text)
        model_config.check_sizes(config)
    except ValueError as error:
        raise corrupt(root / path, str(error)) from None
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def _start(job: TrainJob, root: Path, processes: Processes) -> Start:
    """Return the model that training starts from, with what the method adds to it."""
    if (job.parent is None) == (job.preset is None):
        raise JobError("InvalidConfig", "exactly one of parent and preset must be given.")
    if job.parent is not None:
        return start(root, job.parent, job.training, job.seed, processes)
    if job.training.method in ADAPTERS:
        raise JobError(
            "InvalidConfig",
            f"training.method is {job.training.method}, which adds to the frozen weights of a base, but preset "
            f"{job.preset} has no base: take a trained Expert as base, or use method Full.",
        )
    model = Model(preset(str(job.preset)))
    initialise(model, job.seed)
    return Start(model, ByteTokenizer(), base=None)
