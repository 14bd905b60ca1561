"""The suite of a revision: the anchors of the pool's domains, frozen when the revision is made."""

from collections.abc import Iterable

from moe_formats.format import digest_of
from moe_formats.resources.conditions import ConditionType, find_condition
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_revision import HoldoutInput
from moe_formats.resources.reasons import Reason
from moe_operator.state import ExpertState

#: Domains in a suite, the own one included.
MAX_SUITE = 16

#: Reasons of DataReady that nobody waits for: they may last for ever.
_BLOCKED = {Reason.WAITING_FOR_CAPACITY, Reason.RETRYING, Reason.PAUSED}


def draw_suite(state: ExpertState, own: HoldoutInput) -> list[HoldoutInput]:
    """Return the own anchor and those of other domains, one a domain and at most MAX_SUITE in all.

    Where there are more, a fixed draw picks them: by hash of the domain, the same for every Expert.
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
    """Return the names of the Experts with a domain whose first snapshot is worth waiting for.

    One that is stalled, paused, going away, or cannot start holds nobody up.
    """
    return sorted(
        expert.metadata.name for expert in experts if expert.spec.domain and snapshot_is_coming(expert)
    )


def snapshot_is_coming(expert: Expert) -> bool:
    """Say whether an Expert has no snapshot yet and nothing is known to keep it from getting one."""
    if expert.status.snapshot is not None or expert.spec.paused or expert.metadata.deletion_timestamp:
        return False
    stalled = find_condition(expert.status.conditions, ConditionType.STALLED)
    if stalled is not None and stalled.status == "True":
        return False
    return not snapshot_is_blocked(expert)


def snapshot_is_blocked(expert: Expert) -> bool:
    """Say whether the last try at a snapshot could not start or failed for a passing cause."""
    data = find_condition(expert.status.conditions, ConditionType.DATA_READY)
    return data is not None and data.status == "False" and data.reason in _BLOCKED
