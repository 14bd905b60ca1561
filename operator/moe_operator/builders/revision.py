"""The ExpertRevision object."""

from typing import Any

from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_revision import ExpertRevisionSpec
from moe_formats.resources.labels import API_VERSION, INPUTS
from moe_operator.builders.metadata import child_labels, child_metadata


def build_revision(*, name: str, expert: Expert, spec: ExpertRevisionSpec) -> dict[str, Any]:
    """Return the ExpertRevision. A label has the first 16 hexadecimal digits of the digest of its inputs."""
    labels = child_labels(pool=expert.spec.pool, expert=expert.metadata.name)
    labels[INPUTS] = spec.inputs_digest.removeprefix("sha256:")[:16]
    return {
        "apiVersion": API_VERSION,
        "kind": "ExpertRevision",
        "metadata": child_metadata(name=name, owner=expert, labels=labels),
        "spec": spec.model_dump(mode="json", by_alias=True, exclude_none=True),
    }
