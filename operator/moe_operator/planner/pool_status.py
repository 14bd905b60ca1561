"""Builds the status of a pool, its columns and conditions, and the events when it changes."""

from collections.abc import Iterator
from datetime import datetime

from moe_formats.resources.conditions import (
    Condition,
    ConditionType,
    condition,
    find_condition,
    merge_conditions,
)
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPoolStatus, MatrixStatus, RoutingStatus
from moe_formats.resources.lifecycle import LifecycleStatus
from moe_formats.resources.reasons import Reason
from moe_formats.routing_policy import RoutingPolicy
from moe_operator.builders.gateway import gateway_selector, gateway_url
from moe_operator.planner.analysis import analyse_pool
from moe_operator.planner.blockage import why_none_is_ready
from moe_operator.planner.claims import refused_store
from moe_operator.planner.conditions import Says, Why, kstatus, say, stall_events
from moe_operator.planner.distillation import Distillation, table_summary
from moe_operator.planner.names import gateway_name
from moe_operator.planner.pipelines import pipelines_status
from moe_operator.planner.scaling import replicas_of_servers
from moe_operator.planner.serving import silent_gateways
from moe_operator.state import Event, PoolState


def pool_status(
    state: PoolState,
    policy: RoutingPolicy | None,
    distillation: Distillation,
    matrix: MatrixStatus | None,
    lifecycle: LifecycleStatus | None,
    *,
    now: datetime,
) -> ExpertPoolStatus:
    """Return the whole new status of the pool."""
    before = state.pool.status
    storage, experts, gateway = _storage(state), _experts(state), _gateway(state, policy, distillation, now)
    conditions = [*_kstatus(state, storage, experts, gateway, distillation), storage, experts, gateway]
    if distillation.says is not None:
        conditions.append(
            say(ConditionType.TABLE_READY, distillation.says, generation=state.pool.metadata.generation)
        )
    if state.pool.spec.paused:
        conditions.append(_say(state, ConditionType.PAUSED, True, Reason.PAUSED, "spec.paused is true"))
    ready = conditions[0]
    return ExpertPoolStatus(
        observed_generation=state.pool.metadata.generation,
        phase="Paused" if state.pool.spec.paused else ("Ready" if ready.status == "True" else "Progressing"),
        reason=ready.reason,
        conditions=list(merge_conditions(before.conditions, conditions, now=now)),
        experts=f"{len(_serving(state))}/{len(state.experts)}",
        routing=_routing(state, policy, distillation),
        analysis=analyse_pool(
            state.traffic,
            {expert.metadata.uid: name for name, expert in state.experts.items()},
            {name: expert.status.analysis for name, expert in state.experts.items()},
            familiar=policy is not None and policy.familiar is not None,
            before=before.analysis,
            now=now,
        ),
        lifecycle=lifecycle,
        matrix=matrix,
        pipelines=pipelines_status(state),
        replicas=state.gateway.desired_replicas,
        selector=",".join(
            f"{key}={value}" for key, value in sorted(gateway_selector(pool=state.pool.metadata.name).items())
        ),
    )


def pool_events(before: ExpertPoolStatus, after: ExpertPoolStatus) -> tuple[Event, ...]:
    """Return the events for the change from one status to the next."""
    events = stall_events(before.conditions, after.conditions)
    if after.routing.strategy != before.routing.strategy:
        events.append(Event(Reason.PROGRESSING, f"requests are routed by strategy {after.routing.strategy}"))
    table = after.routing.table
    if table is not None and table != before.routing.table:
        events.append(
            Event(Reason.EVALUATED, f"a table was distilled that tells apart {table_summary(table)}")
        )
    return (*events, *_lifecycle_events(before.lifecycle, after.lifecycle))


def _lifecycle_events(before: LifecycleStatus | None, after: LifecycleStatus | None) -> Iterator[Event]:
    """Yield a warning for each act that the policy no longer approves, since its effect was not seen."""
    rows = {row.act: row for row in (before.acts if before is not None else [])}
    for row in after.acts if after is not None else []:
        old = rows.get(row.act)
        if row.mode != row.effective and (old is None or old.effective != row.effective):
            message = (
                f"act {row.act.value} is only proposed from now on: {', '.join(row.missed)} did not have the effect that they "
                "promised. Set its mode to Propose and then to Auto again to have it approved by the policy"
            )
            yield Event(Reason.EFFECT_NOT_SEEN, message, "Warning")


def _routing(state: PoolState, policy: RoutingPolicy | None, distillation: Distillation) -> RoutingStatus:
    before = state.pool.status.routing
    if policy is None:
        return RoutingStatus(table=distillation.table)
    digest = policy.digest()
    silent = silent_gateways(state, digest)
    ready, asked = state.gateway.ready_replicas, state.pool.spec.gateway.replicas
    known = not silent and ready == len(state.gateway.reported) and (ready > 0 or asked == 0)
    routed = {entry.name: entry.revision for entry in policy.experts}
    metadata = state.pool.metadata
    return RoutingStatus(
        strategy=policy.strategy,
        digest=digest,
        reported_by=len(state.gateway.reported) - len(silent),
        revisions=routed if known else before.revisions,
        table=distillation.table,
        url=gateway_url(name=gateway_name(metadata.name), namespace=metadata.namespace),
    )


def _storage(state: PoolState) -> Condition:
    type_ = ConditionType.STORAGE_READY
    refusal = refused_store(state.pool, state.claims)
    if refusal is not None:
        return _say(state, type_, False, *refusal)
    if state.claim_phase == "Bound":
        return _say(state, type_, True, Reason.READY, f"the claim {state.pool.claim} is bound")
    phase = state.claim_phase or "missing"
    message = (
        f"the claim {state.pool.claim} is {phase}. If its storage class waits for the first consumer, the first Job binds "
        f"it; otherwise `kubectl describe pvc {state.pool.claim}` says why"
    )
    return _say(state, type_, False, Reason.WAITING_FOR_STORAGE, message)


def _experts(state: PoolState) -> Condition:
    type_, serving = ConditionType.EXPERTS_READY, set(_serving(state))
    if not state.experts:
        return _say(
            state,
            type_,
            False,
            Reason.PENDING,
            f"no Expert names this pool yet: create one whose spec.pool is {state.pool.metadata.name!r}",
        )
    at_zero = [name for name, expert in sorted(state.experts.items()) if _rests(expert)]
    rest = [
        _word(expert)
        for name, expert in sorted(state.experts.items())
        if name not in serving and name not in at_zero
    ]
    if rest:
        return _say(state, type_, False, Reason.PROGRESSING, f"not serving: {', '.join(rest)}")
    if at_zero:
        serve = f"{len(serving)} {'Expert serves' if len(serving) == 1 else 'Experts serve'}"
        words = f"{serve}; spec.serving.replicas is 0: {', '.join(at_zero)}"
        return _say(state, type_, True, Reason.READY, words)
    words = "the only Expert serves" if len(serving) == 1 else f"all {len(serving)} Experts serve"
    return _say(state, type_, True, Reason.READY, words)


def _gateway(
    state: PoolState, policy: RoutingPolicy | None, distillation: Distillation, now: datetime
) -> Condition:
    type_, gateway = ConditionType.GATEWAY_READY, state.gateway
    if policy is None:
        return _say(state, type_, False, Reason.NOT_SERVING, "no Expert serves yet, so no gateway is started")
    if state.pool.spec.gateway.replicas == 0:
        return _say(state, type_, True, Reason.READY, "spec.gateway.replicas is 0, so there is no gateway")
    if gateway.ready_replicas == 0:
        words = "the gateway is starting" + why_none_is_ready(gateway.refused, gateway.pods, now)
        return _say(state, type_, False, Reason.WAITING_FOR_GATEWAY, words)
    silent = silent_gateways(state, policy.digest())
    if silent or len(gateway.reported) < gateway.ready_replicas:
        words = f"{', '.join(silent) or 'a gateway'} has not reported the newest routing policy yet"
        return _say(state, type_, False, Reason.WAITING_FOR_GATEWAY, words)
    ready = [entry.name for entry in policy.experts if entry.is_ready]
    message = (
        f"requests are routed to {len(ready)} Experts by strategy {policy.strategy}; "
        f"ready gateways: {len(gateway.reported)}"
    )
    asked = state.pool.spec.routing.strategy
    if policy.strategy != asked:
        why = f": {distillation.says.message}" if distillation.says is not None else ""
        message += f"; spec.routing.strategy is {asked}, and {policy.strategy} stands in{why}"
    fallback = state.pool.spec.routing.fallback
    if fallback is not None and policy.fallback is None:
        message += f"; spec.routing.fallback is {fallback!r}, which does not serve, so the first Expert by name is used instead"
    elif fallback is not None and fallback not in ready:
        message += f"; spec.routing.fallback is {fallback!r}, of which no server is ready, so nobody answers in its place"
    return _say(state, type_, True, Reason.READY, message)


def _kstatus(
    state: PoolState, storage: Condition, experts: Condition, gateway: Condition, distillation: Distillation
) -> tuple[Condition, Condition, Condition]:
    """Return Ready, Reconciling and Stalled.

    The pool stalls if it may not use its claim or if no table can be made, but not if an Expert stalls.
    """
    refusal = refused_store(state.pool, state.claims)
    refused = refusal is not None and refusal.reason is Reason.CLAIM_NOT_ALLOWED
    stop = refusal if refused else distillation.failure
    needed = _needed(state, storage, experts, gateway)
    lacking = next((item for item in needed if item.status != "True"), None)
    if refusal is not None:
        ready = Says(False, *refusal)
    elif lacking is not None:
        ready = Says(False, Reason(lacking.reason), lacking.message)
    else:
        ready = Says(False, *stop) if stop is not None else Says(True, Reason.READY, experts.message)
    work = _under_way(state, gateway, distillation)
    return kstatus(ready=ready, work=work, stop=stop, generation=state.pool.metadata.generation)


def _needed(
    state: PoolState, storage: Condition, experts: Condition, gateway: Condition
) -> tuple[Condition, ...]:
    """Return the conditions that Ready rests on, the first that is missing first.

    An empty pool needs only a claim, which may wait for the first pod that uses it. A pool whose Experts ask for no servers
    needs no gateway.
    """
    if not state.experts:
        return () if state.claim_phase == "Pending" else (storage,)
    asks_for_servers = any(not _rests(expert) for expert in state.experts.values())
    return (gateway, experts, storage) if asks_for_servers else (experts, storage)


def _under_way(state: PoolState, gateway: Condition, distillation: Distillation) -> Why | None:
    moving = [
        name for name, expert in sorted(state.experts.items()) if _holds(expert, ConditionType.RECONCILING)
    ]
    if moving:
        return Why(Reason.PROGRESSING, f"under way: {', '.join(moving)}")
    if gateway.reason == Reason.WAITING_FOR_GATEWAY:
        return Why(Reason.PROGRESSING, gateway.message)
    if distillation.under_way and distillation.says is not None:
        return Why(Reason.PROGRESSING, distillation.says.message)
    return None


def _serving(state: PoolState) -> list[str]:
    return [name for name, expert in state.experts.items() if _holds(expert, ConditionType.SERVING)]


def _rests(expert: Expert) -> bool:
    """Return whether an Expert asks for no servers and has all that it asks for."""
    return replicas_of_servers(expert) == 0 and _holds(expert, ConditionType.READY)


def _holds(expert: Expert, type_: ConditionType) -> bool:
    found = find_condition(expert.status.conditions, type_)
    return found is not None and found.status == "True"


def _word(expert: Expert) -> str:
    status = expert.status
    return expert.metadata.name + (f" ({status.phase}: {status.reason})" if status.phase else "")


def _say(state: PoolState, type_: ConditionType, status: bool, reason: Reason, message: str) -> Condition:
    return condition(type_, status, reason, message, generation=state.pool.metadata.generation)
