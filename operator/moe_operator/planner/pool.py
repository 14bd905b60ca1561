"""What should be done about one pool now.

    claim -> which suspended Jobs may start -> table -> routing policy -> gateway -> old servers -> status

Everything that concerns several Experts at once is decided here, in one place and one plan at a time.
"""

from dataclasses import replace
from datetime import datetime

from moe_formats.resources.reasons import Reason
from moe_formats.routing_policy import RoutingPolicy
from moe_operator.builders.gateway import build_gateway, build_gateway_service, build_policy
from moe_operator.builders.store import build_store
from moe_operator.config import OperatorConfig
from moe_operator.planner.admission import Admission, admit
from moe_operator.planner.distillation import Distillation, plan_distillation
from moe_operator.planner.drift import is_subset
from moe_operator.planner.names import claim_name, gateway_name, policy_name
from moe_operator.planner.pool_status import pool_events, pool_status
from moe_operator.planner.retention import job_ref
from moe_operator.planner.routing import DRAIN, drained_servers, plan_policy, silent_gateways
from moe_operator.planner.status_writes import status_write
from moe_operator.state import Event, Manifest, ObjectRef, ObservedServer, Plan, PoolState


def plan_pool(state: PoolState, config: OperatorConfig, now: datetime) -> Plan:
    """Return what should be done now; a pool that is going away is left to the garbage collector."""
    pool = state.pool
    if pool.metadata.deletion_timestamp is not None:
        return Plan()
    namespace = pool.metadata.namespace
    claim = pool.spec.storage.claim or claim_name(pool.metadata.name)
    admission = Admission() if config.queue else admit(state, now=now)
    distillation = plan_distillation(state, claim, config, now)
    policy = plan_policy(state, distillation.table)
    apply, events = _children(state, policy, claim, config)
    status = pool_status(state, policy, distillation, now=now)
    after = replace(state, pool=pool.model_copy(update={"status": status}))
    drained = drained_servers(after, policy, now) if policy is not None else []
    statuses = status_write(pool, status)
    news = pool_events(pool.status, status) if statuses else ()
    return Plan(
        create=distillation.create,
        apply=apply,
        resume=tuple(job_ref(job, namespace) for job in admission.start),
        delete=(
            *(job_ref(job, namespace) for job in admission.yield_turn),
            *distillation.delete,
            *(ref for server in drained for ref in _server_refs(server, namespace)),
        ),
        statuses=statuses,
        events=(*news, *events),
        requeue=_earliest(state, admission, distillation, policy),
    )


def _children(
    state: PoolState, policy: RoutingPolicy | None, claim: str, config: OperatorConfig
) -> tuple[tuple[Manifest, ...], tuple[Event, ...]]:
    """Return the objects that are missing or were changed, and what to tell of that."""
    apply: list[Manifest] = []
    events: list[Event] = []
    if state.claim_phase is None and state.pool.spec.storage.size is not None:
        apply.append(build_store(name=claim, pool=state.pool))
    started = state.pool.status.routing.digest is not None
    for desired in _gateway(state, policy, claim, config):
        kind, name = desired["kind"], desired["metadata"]["name"]
        live = state.live.get((kind, name))
        if live is not None and is_subset(desired, live):
            continue
        apply.append(desired)
        if live is None and started:
            events.append(
                Event(Reason.CHILD_RESTORED, f"{kind} {name} was gone and is made again", "Warning")
            )
        elif live is not None and kind == "Service":
            # A ConfigMap and a Deployment change with the policy and with the spec; a Service never does.
            events.append(Event(Reason.CHILD_EDITED, f"{kind} {name} was changed and is put back", "Warning"))
    return tuple(apply), tuple(events)


def _gateway(
    state: PoolState, policy: RoutingPolicy | None, claim: str, config: OperatorConfig
) -> list[Manifest]:
    """Return the gateway's objects; there is none before there is an Expert to send anything to."""
    if policy is None:
        return []
    pool = state.pool
    name, policy_map = gateway_name(pool.metadata.name), policy_name(pool.metadata.name)
    return [
        build_policy(name=policy_map, pool=pool, policy=policy),
        build_gateway(name=name, pool=pool, policy_name=policy_map, claim=claim, config=config),
        build_gateway_service(name=name, pool=pool),
    ]


def _server_refs(server: ObservedServer, namespace: str) -> tuple[ObjectRef, ObjectRef]:
    return (
        ObjectRef("apps/v1", "Deployment", namespace, server.name, server.uid),
        ObjectRef("v1", "Service", namespace, server.name),
    )


def _earliest(
    state: PoolState, admission: Admission, distillation: Distillation, policy: RoutingPolicy | None
) -> float | None:
    waits = [admission.wait, distillation.work.wait if distillation.work is not None else None]
    if policy is not None:
        routed = {entry.revision for entry in policy.experts}
        # Gateways are asked again until they know, and old servers go once that has been so for a while.
        if silent_gateways(state, policy.digest()):
            waits.append(0.5)
        elif any(server.revision not in routed for server in state.servers.values()):
            waits.append(DRAIN.total_seconds())
    known = [wait for wait in waits if wait is not None]
    return min(known) if known else None
