"""What all Jobs have in common.

They are created suspended, their pods are not repeated, wrong input fails them, and their pods may run for a limited time.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from moe_formats.format import Format
from moe_formats.job_report import EXIT_INPUT_ERROR
from moe_formats.resources.base import CustomResource
from moe_formats.resources.labels import CONFIG_DIGEST
from moe_operator.builders.metadata import child_metadata
from moe_operator.builders.pod import Workload, pod_spec
from moe_operator.config import OperatorConfig

#: Condition of pods that were evicted, preempted or lost with their node.
_DISRUPTED = {"type": "DisruptionTarget", "status": "True"}


def job_manifest(
    *,
    name: str,
    owner: CustomResource,
    labels: Mapping[str, str],
    config_digest: str,
    pod: Mapping[str, Any],
    deadline: int,
    config: OperatorConfig,
    replicas: int = 1,
    indexed: bool = False,
    ours: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the suspended Job of one attempt.

    ``ours`` names the containers that run the trainer, if the pod also has others: only the exit codes of the trainer
    have a meaning. Empty: all containers run the trainer.

    The operator repeats work, not the Job controller: every lost or failed pod ends the Job (``backoffLimit: 0``), and
    the next attempt is another Job, which resumes. If a container exits with EXIT_INPUT_ERROR, or if the pod was taken
    away, a rule fails the Job, so that the Job's condition Failed says so even when the pod is gone.

    ``deadline`` is the number of seconds that a pod may run. It is a field of the pods and not of the Job, because a Job's
    own deadline also counts the time in which no node has room for them.
    """
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": child_metadata(
            name=name, owner=owner, labels=labels, annotations={CONFIG_DIGEST: config_digest}
        ),
        "spec": {
            "suspend": True,
            "backoffLimit": 0,
            "completions": replicas,
            "parallelism": replicas,
            "completionMode": "Indexed" if indexed else "NonIndexed",
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    *({"action": "FailJob", "onExitCodes": codes} for codes in _input_errors(ours)),
                    {"action": "FailJob", "onPodConditions": [_DISRUPTED]},
                ]
            },
            "template": {
                "metadata": {"labels": dict(labels)},
                "spec": {**pod, "activeDeadlineSeconds": deadline},
            },
        },
    }


def _input_errors(containers: Sequence[str]) -> list[dict[str, Any]]:
    def codes() -> dict[str, Any]:
        return {"operator": "In", "values": [EXIT_INPUT_ERROR]}

    return [{"containerName": name, **codes()} for name in containers] or [codes()]


def trainer_job(
    *,
    name: str,
    owner: CustomResource,
    labels: Mapping[str, str],
    job: Format,
    work: Workload,
    deadline: int,
    config: OperatorConfig,
) -> dict[str, Any]:
    """Return a suspended Job with one pod that runs one command of the trainer."""
    return job_manifest(
        name=name,
        owner=owner,
        labels=labels,
        config_digest=job.content_digest(),
        pod=pod_spec(work),
        deadline=deadline,
        config=config,
    )
