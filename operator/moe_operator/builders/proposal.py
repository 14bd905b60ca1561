"""The ExpertProposal object, as the operator makes it."""

from typing import Any

from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_proposal import ExpertProposalSpec
from moe_formats.resources.labels import API_VERSION
from moe_operator.builders.metadata import child_labels, child_metadata


def build_proposal(*, name: str, expert: Expert, spec: ExpertProposalSpec) -> dict[str, Any]:
    """Return the ExpertProposal. It is deleted with its Expert, and nothing is approved in it."""
    labels = child_labels(pool=expert.spec.pool, expert=expert.metadata.name)
    return {
        "apiVersion": API_VERSION,
        "kind": "ExpertProposal",
        "metadata": child_metadata(name=name, owner=expert, labels=labels),
        "spec": spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True),
    }
