"""What tests and the cluster's parts read out of manifests."""

from typing import Any

from moe_formats.job_config import parse_job_config
from moe_formats.resources import labels
from moe_operator.state import Manifest


def label(manifest: Manifest, name: str) -> str:
    """Return a label, or an empty text."""
    return str((manifest["metadata"].get("labels") or {}).get(name, ""))


def role(manifest: Manifest) -> str:
    """Return what a child is for."""
    return label(manifest, labels.ROLE)


def owned_by(manifest: Manifest, uid: str) -> bool:
    """Say whether an object goes with the one of that uid."""
    return any(owner["uid"] == uid for owner in manifest["metadata"].get("ownerReferences") or [])


def workload(pod: Manifest) -> str:
    """Return the name of the Job or of the Deployment that a pod is one of."""
    owner = pod["metadata"]["ownerReferences"][0]
    name: str = owner["name"]
    return name.rpartition("-")[0] if owner["kind"] == "ReplicaSet" else name


def claims_of(pod: Manifest) -> list[str]:
    """Return the names of the claims that a pod mounts."""
    volumes = pod["spec"].get("volumes") or []
    return [item["persistentVolumeClaim"]["claimName"] for item in volumes if "persistentVolumeClaim" in item]


def job_config(job: Manifest) -> Any:
    """Return the config that a Job's first container is told."""
    env = job["spec"]["template"]["spec"]["containers"][0]["env"]
    return parse_job_config(next(item["value"] for item in env if item["name"] == "MOE_JOB_CONFIG"))


def holds(manifest: Manifest, type_: str) -> bool:
    """Say whether a condition of an object is True."""
    conditions = (manifest.get("status") or {}).get("conditions") or []
    return any(item["type"] == type_ and item["status"] == "True" for item in conditions)


def is_finished(job: Manifest) -> bool:
    """Say whether a Job is complete or has failed."""
    return holds(job, "Complete") or holds(job, "Failed")
