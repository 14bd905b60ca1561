"""The drift Job: measures a revision on its Expert's newest text, against the anchor."""

from typing import Any

from moe_formats.job_config import DriftJob
from moe_formats.resources.expert import Expert
from moe_operator.builders.job import trainer_job
from moe_operator.builders.metadata import child_labels
from moe_operator.builders.pod import Workload, config_text
from moe_operator.config import OperatorConfig, Profile
from moe_operator.state import Role


def build_drift_job(
    *, name: str, expert: Expert, job: DriftJob, claim: str, profile: Profile, config: OperatorConfig
) -> dict[str, Any]:
    """Return the Job. It uses one device of the hardware profile that the spec asks for in training."""
    labels = child_labels(
        pool=expert.spec.pool, role=Role.DRIFT, expert=expert.metadata.name, revision=job.model.revision
    )
    work = Workload(
        name="drift",
        image=profile.image or config.images.trainer,
        command=("moe-trainer", "drift"),
        env={"MOE_JOB_CONFIG": config_text(job)},
        profile=profile,
        images=config.images,
        claim=claim,
    )
    return trainer_job(
        name=name,
        owner=expert,
        labels=labels,
        job=job,
        work=work,
        deadline=config.deadline_seconds.drift,
        config=config,
    )
