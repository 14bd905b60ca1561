"""The table of all kinds that are reconciled, one row per kind: what is gathered about an object, and what plans it.

The rest of what a new kind needs is a recipe in docs/contributing.md.
"""

from typing import Any

from moe_operator.cluster.gather import gather_expert, gather_pool, gather_proposal
from moe_operator.cluster.reconcile import Subject
from moe_operator.planner import plan_expert, plan_pool, plan_proposal
from moe_operator.state import Manifest


def _own_name(manifest: Manifest) -> str:
    return str(manifest["metadata"]["name"])


def _pool_in_spec(manifest: Manifest) -> str:
    return str((manifest.get("spec") or {}).get("pool", ""))


#: The rows, in the order in which objects are reconciled when the operator starts.
SUBJECTS: tuple[Subject[Any], ...] = (
    Subject(kind="ExpertPool", pool=_own_name, gather=gather_pool, plan=plan_pool),
    Subject(kind="Expert", pool=_pool_in_spec, gather=gather_expert, plan=plan_expert),
    Subject(kind="ExpertProposal", pool=_pool_in_spec, gather=gather_proposal, plan=plan_proposal),
)
