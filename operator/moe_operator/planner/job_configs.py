"""Builds the configs of Jobs, which say what the trainer should do, from custom resources."""

from collections.abc import Sequence
from dataclasses import dataclass

from moe_formats.evaluator_source import EvaluatorSource
from moe_formats.job_config import (
    MAX_TRAINED_ON,
    ArtefactRef,
    Comparison,
    DistillJob,
    DriftJob,
    EvaluateJob,
    ExpertRef,
    Filter,
    HoldoutRef,
    HoldoutRule,
    ImportedBase,
    MatrixJob,
    SnapshotJob,
    SnapshotRef,
    Source,
    TasksRef,
    TrainJob,
)
from moe_formats.object_stores import ObjectStoreLocation
from moe_formats.resources.evaluator import Evaluator
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_revision import ExpertRevision, HoldoutInput
from moe_formats.resources.expert_status import SnapshotStatus
from moe_operator.builders.pod import SourceMount
from moe_operator.config import OperatorConfig
from moe_operator.planner.evaluators import asked_evaluators, evaluator_names
from moe_operator.planner.lineage import parent_ref
from moe_operator.planner.promotion import Uses


def snapshot_job(
    expert: Expert,
    pool: ExpertPool,
    *,
    base: ArtefactRef | None = None,
    root: Expert | None = None,
    previous: SnapshotRef | None = None,
) -> SnapshotJob:
    """Return the config of an Expert's snapshot Job: what it reads, filters and holds out.

    ``base`` is the revision of the base Expert to start from; ``root``, while there is none, is the Expert with a
    checkpoint that the base Expert descends from. ``previous`` is the newest snapshot of the same sources.
    """
    data, evaluation = expert.spec.data, pool.spec.evaluation
    return SnapshotJob(
        pool_uid=pool.metadata.uid,
        expert=expert_ref(expert),
        sources=tuple(
            Source(
                root=source_root(source.store, source.claim),
                path=source.path,
                weight=source.weight,
                format=source.format,
                text_field=source.text_field,
                messages_field=source.messages_field,
            )
            for source in data.sources
        ),
        filters=tuple(
            Filter(
                name=item.name,
                min=item.min,
                max=item.max,
                threshold=item.threshold,
                languages=tuple(item.languages) if item.languages is not None else None,
                language=item.language,
            )
            for item in data.filters
        ),
        holdout=HoldoutRule(fraction=evaluation.holdout, salt=evaluation.salt),
        segment_bytes=evaluation.segment_bytes,
        gates=data.gates,
        previous=previous if data.gates is not None else None,
        evaluators=tuple(_evaluator_source(item) for item in asked_evaluators(expert, pool)),
        base=_imported_base(expert),
        root_base=_imported_base(root) if root is not None else None,
        base_artefact=base,
        preset=expert.spec.base.preset,
        context_tokens=expert.spec.training.context_tokens,
    )


def _imported_base(expert: Expert) -> ImportedBase | None:
    base = expert.spec.base
    if base.store is None or base.path is None or base.digest is None:
        return None
    return ImportedBase(root=source_root(base.store, None), path=base.path, digest=base.digest)


def source_root(store: str | None, claim: str | None) -> str:
    """Return the folder of a data store or a claim inside MOE_SOURCES.

    A claim's folder begins with ``claim.``. No name of a store contains a dot, so the two cannot collide.
    """
    return store if store is not None else f"claim.{claim}"


@dataclass(frozen=True)
class Place:
    """Where data is read from: a data store or a claim. Exactly one of the two is set."""

    store: str | None = None
    claim: str | None = None


def places_read(expert: Expert, pool: ExpertPool, root: Expert | None = None) -> list[Place]:
    """Return where a snapshot Job reads: the sources, the items of evaluators, and checkpoints in data stores."""
    places = [Place(source.store, source.claim) for source in expert.spec.data.sources]
    places += [Place(item.store, item.claim) for item in asked_evaluators(expert, pool)]
    stores = [item.spec.base.store for item in (expert, root) if item is not None]
    return [*places, *(Place(store) for store in stores if store is not None)]


def source_mounts(places: Sequence[Place], config: OperatorConfig) -> tuple[SourceMount, ...]:
    """Return the claims that a snapshot Job mounts to read from, each once, ordered by folder."""
    mounts: dict[str, SourceMount] = {}
    for source in places:
        root = source_root(source.store, source.claim)
        claim = config.stores[source.store].claim if source.store is not None else source.claim
        if claim is not None:
            mounts[root] = SourceMount(root=root, claim=claim)
    return tuple(mounts[root] for root in sorted(mounts))


def object_stores(places: Sequence[Place], config: OperatorConfig) -> dict[str, ObjectStoreLocation]:
    """Return the locations of the buckets that a snapshot Job reads from, by the name of the data store."""
    names = sorted({source.store for source in places if source.store is not None})
    buckets = {name: config.stores[name].s3 for name in names}
    return {
        name: ObjectStoreLocation.model_validate(s3.model_dump())
        for name, s3 in buckets.items()
        if s3 is not None
    }


def train_job(
    expert: Expert, pool: ExpertPool, revision: ExpertRevision, attempt: int, *, base: ArtefactRef | None
) -> TrainJob:
    """Return the config of one training attempt; ``base`` is the revision of the base Expert that is pinned."""
    inputs = revision.spec.inputs
    training = inputs.training
    return TrainJob(
        pool_uid=pool.metadata.uid,
        expert=expert_ref(expert),
        revision=revision.metadata.name,
        attempt=attempt,
        inputs_digest=revision.spec.inputs_digest,
        parent=inputs.parent,
        preset=inputs.preset,
        data=inputs.data,
        rehearsal=inputs.rehearsal,
        base=base if training.compares_with_base else None,
        training=training,
        temperature=expert.spec.serving.temperature,
        seed=inputs.seed,
        expert_parallelism=expert.spec.training.resources.expert_parallelism,
    )


def evaluate_job(
    expert: Expert,
    pool: ExpertPool,
    revision: ExpertRevision,
    *,
    current: ExpertRevision | None,
    base: ArtefactRef | None,
    uses: Uses,
) -> EvaluateJob:
    """Return the config of the evaluate Job: what the gate needs to be measured of a trained revision."""
    spec = revision.spec
    own = HoldoutInput(domain=expert.spec.domain, expert=expert.metadata.name, window=spec.anchor)
    comparisons = [Comparison(holdout=holdout_ref(own), role="anchor", uses=uses.anchor)]
    if spec.newest is not None:
        newest = own.model_copy(update={"window": spec.newest})
        comparisons.append(Comparison(holdout=holdout_ref(newest), role="window", uses=uses.window))
    return EvaluateJob(
        pool_uid=pool.metadata.uid,
        expert=expert_ref(expert),
        revision=revision.metadata.name,
        candidate=parent_ref(revision),
        current=parent_ref(current) if current is not None else None,
        base=base,
        comparisons=tuple(comparisons),
        suite=tuple(holdout_ref(item) for item in spec.suite),
        tasks=tasks_of(expert),
        segment_bytes=pool.spec.evaluation.segment_bytes,
    )


def drift_job(
    expert: Expert, pool: ExpertPool, revision: ExpertRevision, *, base: ArtefactRef, snapshot: SnapshotStatus
) -> DriftJob:
    """Return the config of the Job that measures a revision on its Expert's newest text.

    ``base`` is the parent of the first revision in its line. Raises ValueError if the snapshot has no window but the anchor.
    """
    if snapshot.newest is None:
        raise ValueError(f"snapshot {snapshot.digest} has no window but the anchor")
    own = HoldoutInput(domain=expert.spec.domain, expert=expert.metadata.name, window=snapshot.anchor)
    return DriftJob(
        pool_uid=pool.metadata.uid,
        expert=expert_ref(expert),
        model=parent_ref(revision),
        base=base,
        anchor=holdout_ref(own),
        newest=holdout_ref(own.model_copy(update={"window": snapshot.newest})),
        suite=tuple(
            holdout_ref(item)
            for item in revision.spec.suite
            if item.domain is not None and item.domain != expert.spec.domain
        ),
        tasks=tasks_of(expert),
        segment_bytes=pool.spec.evaluation.segment_bytes,
    )


def matrix_job(
    pool: ExpertPool, rows: list[tuple[Expert, ExpertRevision]], columns: list[HoldoutInput]
) -> MatrixJob:
    """Return the config of the Job that fills the full matrix."""
    models = [parent_ref(revision) for _, revision in rows]
    trained_on = sorted({snapshot.path for model in models for snapshot in model.ancestry})
    return MatrixJob(
        pool_uid=pool.metadata.uid,
        models=tuple(model.model_copy(update={"ancestry": ()}) for model in models),
        experts=tuple(expert_ref(expert) for expert, _ in rows),
        suite=tuple(holdout_ref(item) for item in columns),
        trained_on=tuple(trained_on[:MAX_TRAINED_ON]),
        segment_bytes=pool.spec.evaluation.segment_bytes,
    )


def distill_job(
    pool: ExpertPool, roster: list[tuple[Expert, ExpertRevision]], suite: list[HoldoutInput]
) -> DistillJob:
    """Return the config of the distill Job that makes the table of a roster."""
    return DistillJob(
        pool_uid=pool.metadata.uid,
        roster=tuple(parent_ref(revision) for _, revision in roster),
        experts=tuple(expert_ref(expert) for expert, _ in roster),
        suite=tuple(holdout_ref(item) for item in suite),
        segment_bytes=pool.spec.evaluation.segment_bytes,
    )


def expert_ref(expert: Expert) -> ExpertRef:
    """Return the part of an Expert that Jobs need to identify it."""
    return ExpertRef(name=expert.metadata.name, uid=expert.metadata.uid, domain=expert.spec.domain)


def holdout_ref(holdout: HoldoutInput) -> HoldoutRef:
    """Return a holdout as Jobs refer to it."""
    return HoldoutRef(
        domain=holdout.domain,
        expert=holdout.expert,
        path=holdout.window.path,
        digest=holdout.window.digest,
    )


def _evaluator_source(evaluator: Evaluator) -> EvaluatorSource:
    return EvaluatorSource(
        name=evaluator.name,
        measure=evaluator.measure,
        root=source_root(evaluator.store, evaluator.claim),
        path=evaluator.path,
        prompt_field=evaluator.prompt_field,
        answer_field=evaluator.answer_field,
        max_tokens=evaluator.max_tokens,
        stop=tuple(evaluator.stop),
        max_items=evaluator.max_items,
    )


def tasks_of(expert: Expert) -> tuple[TasksRef, ...]:
    """Return the frozen items of the evaluators that an Expert asks for; without those that its snapshot did not freeze."""
    snapshot, names = expert.status.snapshot, evaluator_names(expert)
    frozen = {item.evaluator: item for item in snapshot.tasks} if snapshot is not None else {}
    return tuple(
        TasksRef(evaluator=name, path=frozen[name].path, digest=frozen[name].digest)
        for name in names
        if name in frozen
    )
