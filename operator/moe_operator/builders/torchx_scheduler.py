"""A TorchX scheduler that turns an AppDef into the manifest of one batch/v1 Indexed Job.

TorchX's own Kubernetes scheduler makes Volcano Jobs and sends them to the API server. This one only returns the
manifest, because only cluster/ sends anything. It is used by ``build_training_job``, and by anyone who passes
``{"moe": create_scheduler}`` as scheduler factories to a TorchX Runner for a dry run.

This module is imported only when it is needed, so that an idle operator does not hold torchx in memory.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torchx.schedulers.api import DescribeAppResponse, ListAppResponse, Scheduler
from torchx.specs import AppDef, AppDryRunInfo, Role, macros

from moe_formats.resources.expert import Expert
from moe_operator.builders.gang import gang_name
from moe_operator.builders.job import job_manifest
from moe_operator.builders.pod import PROGRESS_PORT, PROGRESS_PORT_NAME, Workload, pod_spec
from moe_operator.config import OperatorConfig, Profile

#: Environment variable with the DNS name of a gang's first pod.
RANK0_HOST = "TORCHX_RANK0_HOST"

#: The number of a pod within its Job: the Job controller sets this variable in the pods of an Indexed Job.
_INDEX = "$(JOB_COMPLETION_INDEX)"


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """What the AppDef does not say: which Expert the Job belongs to, and what it runs on."""

    owner: Expert
    labels: Mapping[str, str]
    config_digest: str
    claim: str
    profile: Profile
    devices: int
    config: OperatorConfig


#: Name of the scheduler's only run option, whose value is a JobOptions.
JOB = "job"


class IndexedJobScheduler(Scheduler[Mapping[str, Any]]):  # type: ignore[misc]  # torchx is not typed
    """Renders AppDefs with one role. It does not submit, list or cancel anything."""

    def _submit_dryrun(self, app: AppDef, cfg: Mapping[str, Any]) -> AppDryRunInfo[dict[str, Any]]:
        """Return the manifest of the Job that ``app`` describes."""
        if len(app.roles) != 1:
            raise ValueError(
                f"{app.name} has {len(app.roles)} roles, but an Indexed Job runs one: pass an AppDef with one"
            )
        values = macros.Values(img_root="", app_id=app.name, replica_id=_INDEX, rank0_env=RANK0_HOST)
        manifest = _manifest(app.name, values.apply(app.roles[0]), cfg[JOB])
        return AppDryRunInfo(manifest, lambda request: json.dumps(request, indent=2))

    def schedule(self, dryrun_info: AppDryRunInfo[dict[str, Any]]) -> str:
        """Raise NotImplementedError: the operator creates the Job itself."""
        raise NotImplementedError("the operator creates Jobs; take the manifest from dryrun_info.request")

    def describe(self, app_id: str) -> DescribeAppResponse | None:
        """Return None: this scheduler keeps no record of Jobs."""
        return None

    def list(self) -> list[ListAppResponse]:
        """Return an empty list: this scheduler keeps no record of Jobs."""
        return []

    def _cancel_existing(self, app_id: str) -> None:
        raise NotImplementedError("the operator deletes Jobs")


def create_scheduler(session_name: str, **_: object) -> IndexedJobScheduler:
    """Return a scheduler. The signature is that of TorchX's scheduler factories."""
    return IndexedJobScheduler("moe", session_name)


def _manifest(name: str, role: Role, options: JobOptions) -> dict[str, Any]:
    env = {**role.env, "MOE_PROGRESS_PORT": str(PROGRESS_PORT)}
    gang = gang_name(options.owner) if role.num_replicas > 1 else None
    if gang is not None:
        env[RANK0_HOST] = f"{name}-0.{gang}"
    work = Workload(
        name=role.name,
        image=role.image,
        command=(role.entrypoint, *role.args),
        env=env,
        subdomain=gang,
        profile=options.profile,
        images=options.config.images,
        claim=options.claim,
        devices=options.devices,
        ports={PROGRESS_PORT_NAME: PROGRESS_PORT},
        shared_memory=bool(options.profile.device) and options.devices > options.profile.host_devices,
    )
    return job_manifest(
        name=name,
        owner=options.owner,
        labels=options.labels,
        config_digest=options.config_digest,
        pod=pod_spec(work),
        deadline=options.config.deadline_seconds.train,
        config=options.config,
        replicas=role.num_replicas,
        indexed=True,
    )
