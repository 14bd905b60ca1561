"""Draws the suite of a revision: the anchors of the pool's domains, fixed when the revision is created."""

from collections.abc import Iterable

from moe_formats.format import digest_of
from moe_formats.resources.conditions import ConditionType, find_condition
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_revision import HoldoutInput
from moe_formats.resources.reasons import Reason
from moe_operator.planner.blockage import STUCK
from moe_operator.state import ExpertState

#: Largest number of domains in a suite, including the Expert's own.
MAX_SUITE = 16

#: Reasons of DataReady that may last forever, so that nobody waits for an Expert that has one.
_BLOCKED = STUCK | {Reason.RETRYING, Reason.PAUSED}


def draw_suite(state: ExpertState, own: HoldoutInput) -> list[HoldoutInput]:
    """Return the Expert's own anchor and those of other domains: one per domain, at most MAX_SUITE in all.

    If there are more domains, a fixed draw by the hash of the domain picks the same ones for every Expert.
    """
    chosen: dict[str, HoldoutInput] = {}
    for peer in sorted(state.peers.values(), key=lambda item: item.metadata.name):
        domain, snapshot = peer.spec.domain, peer.status.snapshot
        if domain is None or snapshot is None or domain == own.domain:
            continue
        chosen.setdefault(
            domain, HoldoutInput(domain=domain, expert=peer.metadata.name, window=snapshot.anchor)
        )
    drawn = sorted(chosen.values(), key=lambda item: digest_of(item.domain or ""))[: MAX_SUITE - 1]
    return [own, *sorted(drawn, key=lambda item: item.domain or "")]


def awaited_domains(experts: Iterable[Expert]) -> list[str]:
    """Return the names of the Experts with a domain whose first snapshot others should wait for.

    Nobody waits for an Expert that is stalled, paused or being deleted, or whose snapshot cannot start.
    """
    return sorted(
        expert.metadata.name for expert in experts if expert.spec.domain and snapshot_is_coming(expert)
    )


def snapshot_is_coming(expert: Expert) -> bool:
    """Return whether an Expert has no snapshot yet and nothing is known to prevent it from getting one."""
    if expert.status.snapshot is not None or expert.spec.paused or expert.metadata.deletion_timestamp:
        return False
    stalled = find_condition(expert.status.conditions, ConditionType.STALLED)
    if stalled is not None and stalled.status == "True":
        return False
    return not snapshot_is_blocked(expert)


def snapshot_is_blocked(expert: Expert) -> bool:
    """Return whether the last attempt at a snapshot could not start, or failed for a reason that may pass."""
    data = find_condition(expert.status.conditions, ConditionType.DATA_READY)
    return data is not None and data.status == "False" and data.reason in _BLOCKED
