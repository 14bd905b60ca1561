"""The matrix Job: fills the full matrix of a pool."""

from typing import Any

from moe_formats.job_config import MatrixJob
from moe_formats.resources.expert_pool import ExpertPool
from moe_operator.builders.job import trainer_job
from moe_operator.builders.metadata import child_labels
from moe_operator.builders.pod import Workload, config_text
from moe_operator.config import OperatorConfig, Profile
from moe_operator.state import Role


def build_matrix_job(
    *, name: str, pool: ExpertPool, job: MatrixJob, claim: str, profile: Profile, config: OperatorConfig
) -> dict[str, Any]:
    """Return the Job; ``profile`` is the one on which the pool's Experts are measured."""
    labels = child_labels(pool=pool.metadata.name, role=Role.MATRIX)
    work = Workload(
        name="matrix",
        image=profile.image or config.images.trainer,
        command=("moe-trainer", "matrix"),
        env={"MOE_JOB_CONFIG": config_text(job)},
        profile=profile,
        images=config.images,
        claim=claim,
    )
    return trainer_job(
        name=name,
        owner=pool,
        labels=labels,
        job=job,
        work=work,
        deadline=config.deadline_seconds.matrix,
        config=config,
    )
