"""The snapshot Job: reads the sources on plain CPU and writes a content-addressed snapshot."""

from typing import Any

from moe_operator.api.expert import Expert
from moe_operator.builders.job import trainer_job
from moe_operator.builders.metadata import child_labels
from moe_operator.builders.pod import SourceMount, Workload, config_text
from moe_operator.config import OperatorConfig, Profile
from moe_operator.state import Role
from moe_trainer.job_config import SnapshotJob


def build_snapshot_job(
    *,
    name: str,
    expert: Expert,
    job: SnapshotJob,
    claim: str,
    sources: tuple[SourceMount, ...],
    profile: Profile,
    config: OperatorConfig,
) -> dict[str, Any]:
    """Return the Job. It needs no accelerator, so ``profile`` is the one of plain CPU."""
    labels = child_labels(pool=expert.spec.pool, role=Role.SNAPSHOT, expert=expert.metadata.name)
    work = Workload(
        name="snapshot",
        image=profile.image or config.images.trainer,
        command=("moe-trainer", "snapshot"),
        env={"MOE_JOB_CONFIG": config_text(job)},
        profile=profile,
        images=config.images,
        claim=claim,
        sources=sources,
    )
    return trainer_job(name=name, owner=expert, labels=labels, job=job, work=work, config=config)
