"""The Job of one training attempt: TorchX component -> AppDef -> our scheduler -> batch/v1 Indexed Job."""

from typing import Any

from moe_formats.job_config import TrainJob
from moe_formats.resources.expert import Expert
from moe_operator.builders.metadata import child_labels
from moe_operator.builders.pod import config_text
from moe_operator.config import OperatorConfig, Profile
from moe_operator.state import Role


def build_training_job(
    *, name: str, expert: Expert, job: TrainJob, claim: str, profile: Profile, config: OperatorConfig
) -> dict[str, Any]:
    """Return the Job of one training attempt."""
    # Imported here, so that TorchX is loaded with the first training Job and not with the operator.
    from moe_operator.builders.torchx_scheduler import JOB, JobOptions, create_scheduler
    from moe_trainer.component import train

    resources = expert.spec.training.resources
    app = train(
        job_config=config_text(job),
        image=profile.image or config.images.trainer,
        name=name,
        nodes=resources.nodes,
        # If the devices of a host can only be used together, one process drives all of them.
        processes=-(-resources.devices_per_node // profile.host_devices),
    )
    options = JobOptions(
        owner=expert,
        labels=child_labels(
            pool=expert.spec.pool, role=Role.TRAIN, expert=expert.metadata.name, revision=job.revision
        ),
        config_digest=job.content_digest(),
        claim=claim,
        profile=profile,
        devices=resources.devices_per_node,
        config=config,
    )
    manifest: dict[str, Any] = create_scheduler("moe-operator").submit_dryrun(app, {JOB: options}).request
    return manifest
