"""The routing policy of a pool, and when every gateway has it.

An Expert takes requests by the revision that should serve once one of its servers is ready; until then its
old revision goes on, as long as one of its servers is. The policy never shrinks to nothing: with no Expert
ready, the last one stays. Distilled needs a table that knows every Expert of the policy; until it exists,
Posterior decides.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from moe_formats.resources.conditions import ConditionType, find_condition
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import TableStatus
from moe_formats.resources.expert_revision import ExpertRevision
from moe_formats.resources.reasons import Reason
from moe_formats.routing_policy import DistilledTable, RoutedExpert, RoutingPolicy, parse_routing_policy
from moe_operator.builders.gateway import POLICY_KEY
from moe_operator.builders.server import server_url
from moe_operator.planner.lineage import is_promoted
from moe_operator.planner.names import policy_name
from moe_operator.state import ObservedServer, PoolState

#: After every gateway has the new policy, how long old servers stay for requests just sent to them.
DRAIN = timedelta(seconds=3)

#: How long after its promotion a revision's servers are spared though no Expert names it yet.
TAKEN_UP = timedelta(minutes=1)

#: Experts in one policy.
MAX_EXPERTS = 64


def plan_policy(state: PoolState, table: TableStatus | None) -> RoutingPolicy | None:
    """Return the policy that gateways should serve by, or None while there never was one."""
    last = live_policy(state)
    routed = [entry for expert in _in_order(state) if (entry := _routed(state, expert, last)) is not None]
    if not routed:
        return last
    names = {entry.name for entry in routed}
    routing = state.pool.spec.routing
    knows_all = table is not None and names <= set(table.experts)
    distilled = routing.strategy == "Distilled" and knows_all and table is not None
    return RoutingPolicy(
        pool=state.pool.metadata.name,
        strategy="Distilled" if distilled else "Posterior",
        fallback=routing.fallback if routing.fallback in names else None,
        experts=tuple(routed[:MAX_EXPERTS]),
        table=DistilledTable(path=table.path, digest=table.digest) if distilled and table else None,
        temperature=_temperature(table),
    )


def _temperature(table: TableStatus | None) -> float:
    """Return what Posterior divides log-likelihoods by: as fitted with the newest table, before that Bayes."""
    fitted = table.posterior_temperature if table is not None else None
    return fitted if fitted is not None and 0 < fitted <= 1000 else 1.0


def live_policy(state: PoolState) -> RoutingPolicy | None:
    """Return the policy in the pool's ConfigMap, or None if there is none that can be read."""
    manifest = state.live.get(("ConfigMap", policy_name(state.pool.metadata.name)))
    text = (manifest.get("data") or {}).get(POLICY_KEY) if manifest is not None else None
    if text is None:
        return None
    try:
        return parse_routing_policy(text)
    except ValueError:
        return None


def serving_revision(expert: Expert, revisions: Mapping[str, ExpertRevision]) -> ExpertRevision | None:
    """Return the revision that should serve an Expert: the pinned one, else the promoted one."""
    for name in (expert.spec.revision, expert.status.current_revision):
        revision = revisions.get(name or "")
        if revision is not None and is_promoted(revision) and revision.spec.expert_uid == expert.metadata.uid:
            return revision
    return None


def silent_gateways(state: PoolState, digest: str) -> list[str]:
    """Return the ready gateways that do not report a policy's digest."""
    return sorted(pod for pod, reported in state.gateway.reported.items() if reported != digest)


def drained_servers(state: PoolState, policy: RoutingPolicy, now: datetime) -> list[ObservedServer]:
    """Return servers that no gateway has sent anything to for a while, and that are not to serve."""
    condition = find_condition(state.pool.status.conditions, ConditionType.GATEWAY_READY)
    known = (
        condition is not None
        and condition.status == "True"
        and condition.last_transition_time is not None
        and now >= condition.last_transition_time + DRAIN
        and state.pool.status.routing.digest == policy.digest()
        and not silent_gateways(state, policy.digest())
    )
    if not known:
        return []
    wanted = {entry.revision for entry in policy.experts}
    targets = (serving_revision(expert, state.revisions) for expert in state.experts.values())
    wanted |= {revision.metadata.name for revision in targets if revision is not None}
    wanted |= {name for name, revision in state.revisions.items() if _about_to_serve(state, revision, now)}
    return [
        server for server in state.servers.values() if server.revision not in wanted and not server.deleting
    ]


def _about_to_serve(state: PoolState, revision: ExpertRevision, now: datetime) -> bool:
    """Say whether servers of a revision are up to show that it loads, or its Expert is yet to hear of it."""
    status = revision.status
    if status.verdict is not None:
        expert = state.experts.get(revision.spec.expert)
        current = state.revisions.get(expert.status.current_revision or "") if expert is not None else None
        newer = current is None or revision.spec.number > current.spec.number
        recent = now < datetime.fromisoformat(status.verdict.time) + TAKEN_UP
        return is_promoted(revision) and newer and recent
    ready = find_condition(status.conditions, ConditionType.READY)
    superseded = ready is not None and ready.reason == Reason.SUPERSEDED
    return status.evidence is not None and not superseded


def _in_order(state: PoolState) -> list[Expert]:
    return [state.experts[name] for name in sorted(state.experts)]


def _routed(state: PoolState, expert: Expert, last: RoutingPolicy | None) -> RoutedExpert | None:
    """Return an Expert's entry: by the revision that should serve, else by the one that serves, else none."""
    name = expert.metadata.name
    if expert.metadata.deletion_timestamp is not None or name == state.pool.metadata.name:
        return None
    target = serving_revision(expert, state.revisions)
    if target is not None and target.status.artefact is not None and _answers(state, target.metadata.name):
        return RoutedExpert(
            name=name,
            domain=expert.spec.domain,
            revision=target.metadata.name,
            digest=target.status.artefact.digest,
            url=server_url(revision=target.metadata.name, namespace=expert.metadata.namespace),
        )
    before = last.expert(name) if last is not None else None
    if before is not None and _answers(state, before.revision):
        return before
    return None


def _answers(state: PoolState, revision: str) -> bool:
    server = state.servers.get(revision)
    return server is not None and server.ready_replicas > 0 and not server.deleting
