"""What Jobs are asked to do: from custom resources to the trainer's formats."""

from moe_operator.api.expert import Expert
from moe_operator.api.expert_pool import ExpertPool
from moe_operator.api.expert_revision import (
    ExpertRevision,
    HoldoutInput,
    ParentRef,
    SnapshotInput,
    TrainingInput,
)
from moe_operator.builders.pod import SourceMount
from moe_operator.config import OperatorConfig
from moe_operator.planner.lineage import parent_ref
from moe_operator.planner.promotion import Uses
from moe_trainer.job_config import (
    ArtefactRef,
    Comparison,
    DistillJob,
    EvaluateJob,
    ExpertRef,
    Filter,
    HoldoutRef,
    HoldoutRule,
    SnapshotJob,
    SnapshotRef,
    Source,
    TrainingSpec,
    TrainJob,
)
from moe_trainer.object_stores import ObjectStoreLocation


def snapshot_job(expert: Expert, pool: ExpertPool) -> SnapshotJob:
    """Return what the snapshot Job of an Expert reads."""
    data, evaluation = expert.spec.data, pool.spec.evaluation
    return SnapshotJob(
        pool_uid=pool.metadata.uid,
        expert=expert_ref(expert),
        sources=tuple(
            Source(
                root=source_root(source.store, source.claim),
                path=source.path,
                format=source.format,
                text_field=source.text_field,
                messages_field=source.messages_field,
            )
            for source in data.sources
        ),
        filters=tuple(
            Filter(name=item.name, min=item.min, max=item.max, threshold=item.threshold)
            for item in data.filters
        ),
        holdout=HoldoutRule(fraction=evaluation.holdout, salt=evaluation.salt),
    )


def source_root(store: str | None, claim: str | None) -> str:
    """Return the folder of a source beneath MOE_SOURCES; no store's name contains the dot of a claim's."""
    return store if store is not None else f"claim.{claim}"


def source_mounts(expert: Expert, config: OperatorConfig) -> tuple[SourceMount, ...]:
    """Return the claims that an Expert's sources lie on, each once, by folder."""
    mounts: dict[str, SourceMount] = {}
    for source in expert.spec.data.sources:
        root = source_root(source.store, source.claim)
        claim = config.stores[source.store].claim if source.store is not None else source.claim
        if claim is not None:
            mounts[root] = SourceMount(root=root, claim=claim)
    return tuple(mounts[root] for root in sorted(mounts))


def object_stores(expert: Expert, config: OperatorConfig) -> dict[str, ObjectStoreLocation]:
    """Return where the buckets are that an Expert's sources lie in, by the store's name."""
    names = sorted({source.store for source in expert.spec.data.sources if source.store is not None})
    buckets = {name: config.stores[name].s3 for name in names}
    return {
        name: ObjectStoreLocation.model_validate(s3.model_dump())
        for name, s3 in buckets.items()
        if s3 is not None
    }


def train_job(expert: Expert, pool: ExpertPool, revision: ExpertRevision, attempt: int) -> TrainJob:
    """Return what one attempt at a revision trains."""
    inputs = revision.spec.inputs
    return TrainJob(
        pool_uid=pool.metadata.uid,
        expert=expert_ref(expert),
        revision=revision.metadata.name,
        attempt=attempt,
        inputs_digest=revision.spec.inputs_digest,
        parent=artefact_ref(inputs.parent) if inputs.parent else None,
        preset=inputs.preset,
        data=_snapshot_ref(inputs.data),
        training=_training_spec(inputs.training),
        seed=inputs.seed,
    )


def evaluate_job(
    expert: Expert,
    pool: ExpertPool,
    revision: ExpertRevision,
    *,
    current: ExpertRevision | None,
    base: ParentRef | None,
    uses: Uses,
) -> EvaluateJob:
    """Return what the gate needs measured of a trained revision."""
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
        candidate=artefact_ref(parent_ref(revision)),
        current=artefact_ref(parent_ref(current)) if current is not None else None,
        base=artefact_ref(base) if base is not None else None,
        comparisons=tuple(comparisons),
        suite=tuple(holdout_ref(item) for item in spec.suite),
    )


def distill_job(
    pool: ExpertPool, roster: list[tuple[Expert, ExpertRevision]], suite: list[HoldoutInput]
) -> DistillJob:
    """Return what the table of a roster is made from."""
    return DistillJob(
        pool_uid=pool.metadata.uid,
        roster=tuple(artefact_ref(parent_ref(revision)) for _, revision in roster),
        experts=tuple(expert_ref(expert) for expert, _ in roster),
        suite=tuple(holdout_ref(item) for item in suite),
    )


def expert_ref(expert: Expert) -> ExpertRef:
    """Return an Expert as Jobs know it."""
    return ExpertRef(name=expert.metadata.name, uid=expert.metadata.uid, domain=expert.spec.domain)


def artefact_ref(parent: ParentRef) -> ArtefactRef:
    """Return an artefact with all that it may have seen."""
    return ArtefactRef(
        revision=parent.revision,
        path=parent.path,
        digest=parent.digest,
        ancestry=tuple(_snapshot_ref(item) for item in parent.ancestry),
    )


def holdout_ref(holdout: HoldoutInput) -> HoldoutRef:
    """Return a holdout as Jobs know it."""
    return HoldoutRef(
        domain=holdout.domain,
        expert=holdout.expert,
        path=holdout.window.path,
        digest=holdout.window.digest,
    )


def _snapshot_ref(snapshot: SnapshotInput) -> SnapshotRef:
    return SnapshotRef(path=snapshot.path, digest=snapshot.digest)


def _training_spec(training: TrainingInput) -> TrainingSpec:
    return TrainingSpec(**training.model_dump())
