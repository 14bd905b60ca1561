"""Decides whether an act may happen by itself in a pool: by the mode in its spec, and by what came of earlier proposals.

Two proposals of an act that missed the effect which they promised take mode Auto from it, until its mode in the spec is
changed. Misses are kept in the pool's status, so they count after the proposals are gone.
"""

from collections.abc import Iterable
from datetime import datetime

from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_proposal import ExpertProposal
from moe_formats.resources.lifecycle import Act, ActStatus, Mode

#: Proposals whose effect was missed after which an act is no longer approved by the policy.
_MISSES = 2
#: The modes, the most cautious first.
_ORDER: tuple[Mode, ...] = ("Off", "Propose", "Auto")


def mode_for(act: Act, pool: ExpertPool, expert: Expert) -> Mode:
    """Return the mode that counts for an act with an Expert."""
    asked = _follow(expert) if act is Act.REBASE else pool.spec.lifecycle.mode(act)
    row = row_of(pool, act)
    demoted = row is not None and asked == "Auto" and len(row.missed) >= _MISSES
    return "Propose" if demoted else asked


def row_of(pool: ExpertPool, act: Act) -> ActStatus | None:
    """Return what the pool's status says of an act; None if there is nothing."""
    acts = pool.status.lifecycle.acts if pool.status.lifecycle is not None else []
    return next((row for row in acts if row.act is act), None)


def asked_mode(act: Act, pool: ExpertPool, experts: Iterable[Expert]) -> Mode:
    """Return the mode that the spec gives an act: for a rebase, the highest that an Expert asks for."""
    if act is not Act.REBASE:
        return pool.spec.lifecycle.mode(act)
    return max((_follow(expert) for expert in experts), key=_ORDER.index, default="Off")


def misses(
    act: Act, before: ActStatus | None, asked: Mode, proposals: Iterable[ExpertProposal], now: datetime
) -> tuple[str, list[str]]:
    """Return since when the mode in the spec is what it is, and the proposals that missed their effect since then."""
    if before is None or before.mode != asked:
        return now.replace(microsecond=0).isoformat(), []
    new = [
        item.metadata.name
        for item in proposals
        if item.spec.act is act
        and item.status.phase == "Missed"
        and (item.status.finished or "") >= before.since
    ]
    return before.since, list(dict.fromkeys([*before.missed, *sorted(new)]))[-8:]


def effective(asked: Mode, missed: list[str]) -> Mode:
    """Return the mode that counts after some misses."""
    return "Propose" if asked == "Auto" and len(missed) >= _MISSES else asked


def _follow(expert: Expert) -> Mode:
    follow = expert.spec.base.follow
    return "Off" if follow is None or follow == "Pinned" else follow
