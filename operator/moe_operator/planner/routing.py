"""Decides the routing policy of a pool: its Experts, the revision that answers for each, and the strategy.

Every promoted Expert is in the policy, also while it restarts or is scaled to zero: clients would take an Expert that is
not there for one that does not exist, and never ask again. Whether a server of it is ready is a field of its entry.

An Expert gets requests at the revision that should serve (see serving.py) once one of its servers is ready. Until then,
its previous revision gets them, as long as one of its servers is ready. Strategy Distilled needs a table that knows every
Expert that is ready. Until there is one, Posterior is used.
"""

from typing import Any, Literal

from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import Routing, TableStatus
from moe_formats.routing_policy import DistilledTable, RoutedExpert, RoutingPolicy, parse_routing_policy
from moe_operator.builders.gateway import POLICY_KEY
from moe_operator.builders.server import server_url
from moe_operator.config import OperatorConfig
from moe_operator.planner.membership import age, chosen
from moe_operator.planner.names import policy_name
from moe_operator.planner.scaling import replicas_of_servers
from moe_operator.planner.serving import answers, target_of
from moe_operator.state import PoolState

#: Strategies that read the distilled table. Until there is one that knows every Expert, STAND_IN routes.
WITH_TABLE = frozenset({"Distilled"})
STAND_IN: Literal["Posterior"] = "Posterior"


def plan_policy(state: PoolState, table: TableStatus | None, config: OperatorConfig) -> RoutingPolicy | None:
    """Return the policy that gateways should use; None before an Expert serves for the first time."""
    last = live_policy(state)
    entries = [entry for expert in _in_order(state) if (entry := _entry(state, expert, last)) is not None]
    ready = {entry.name for entry in entries if entry.is_ready}
    routed = chosen(entries, lambda entry: (not entry.is_ready, *age(state.experts[entry.name])))
    if not routed or (not ready and state.pool.status.routing.digest is None):
        return last
    names = {entry.name for entry in routed}
    routing = state.pool.spec.routing
    read = table if table is not None and ready & names <= set(table.experts) else None
    strategy = routing.strategy if routing.strategy not in WITH_TABLE or read is not None else STAND_IN
    return RoutingPolicy(
        pool=state.pool.metadata.name,
        strategy=strategy,
        fallback=routing.fallback if routing.fallback in names else None,
        experts=tuple(routed),
        table=DistilledTable(path=read.path, digest=read.digest) if read and strategy in WITH_TABLE else None,
        temperature=_temperature(table),
        familiar=table.familiar if table is not None else None,
        **_said(routing, names),
        limits=config.gateways.limits_of(state.pool),
        allowed_origins=config.gateways.origins_of(state.pool),
    )


def _said(routing: Routing, names: set[str]) -> dict[str, Any]:
    """Return what the pool says of how to choose; what it leaves out has the defaults of the policy."""
    said = routing.model_dump(
        include={"posterior_timeout_seconds", "stickiness_margin", "prior"}, exclude_none=True
    )
    if "prior" in said:
        said["prior"] = {name: weight for name, weight in said["prior"].items() if name in names}
    return said


def _temperature(table: TableStatus | None) -> float:
    """Return the number that Posterior divides log-likelihoods by: fitted with the newest table; 1 (Bayes' rule) before."""
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


def _in_order(state: PoolState) -> list[Expert]:
    return [state.experts[name] for name in sorted(state.experts)]


def _entry(state: PoolState, expert: Expert, last: RoutingPolicy | None) -> RoutedExpert | None:
    """Return a promoted Expert's entry: at the revision that should serve if that is ready, else at its last one if it is.

    If neither is ready, the last one stays as long as it has servers that may come back, since all gateways know it.
    """
    name = expert.metadata.name
    if expert.metadata.deletion_timestamp is not None or name == state.pool.metadata.name:
        return None
    target = _target_entry(state, expert)
    before = last.expert(name) if last is not None else None
    if target is not None and answers(state.servers.values(), target.revision):
        return target
    if before is not None and answers(state.servers.values(), before.revision):
        return before.model_copy(update={"ready": None})
    if before is not None and (target is None or _may_come_back(state, expert, before.revision)):
        target = before
    return target.model_copy(update={"ready": False}) if target is not None else None


def _target_entry(state: PoolState, expert: Expert) -> RoutedExpert | None:
    """Return the entry of the revision that should serve; None before one is promoted."""
    target = target_of(expert, state.revisions)
    if target is None or target.status.artefact is None:
        return None
    return RoutedExpert(
        name=expert.metadata.name,
        domain=expert.spec.domain,
        revision=target.metadata.name,
        digest=target.status.artefact.digest,
        url=server_url(revision=target.metadata.name, namespace=expert.metadata.namespace),
    )


def _may_come_back(state: PoolState, expert: Expert, revision: str) -> bool:
    server = state.servers.get(revision)
    return replicas_of_servers(expert) > 0 and server is not None and not server.deleting
