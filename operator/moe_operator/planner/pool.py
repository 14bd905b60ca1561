"""Decides what should be done about one pool now.

    which suspended Jobs start -> table -> full matrix -> routing policy -> claim and gateway -> proposals -> status
    -> old servers

Everything that concerns several Experts at once is decided here. Plans of one pool and of its Experts are made and
carried out one after the other.
"""

from dataclasses import replace
from datetime import datetime

from moe_formats.routing_policy import RoutingPolicy
from moe_operator.builders.gateway import build_gateway, build_gateway_service, build_policy
from moe_operator.builders.store import build_store
from moe_operator.config import OperatorConfig
from moe_operator.planner.admission import Admission, admit
from moe_operator.planner.blockage import next_look
from moe_operator.planner.children import Repairs, repairs
from moe_operator.planner.claims import refused_store, withdrawn_jobs
from moe_operator.planner.disruption import notes
from moe_operator.planner.distillation import Distillation, plan_distillation
from moe_operator.planner.matrix import Filling, plan_matrix
from moe_operator.planner.names import gateway_name, policy_name
from moe_operator.planner.pool_status import pool_events, pool_status
from moe_operator.planner.proposals import plan_proposals
from moe_operator.planner.retention import job_ref
from moe_operator.planner.routing import plan_policy
from moe_operator.planner.scaling import replicas_of_gateway, scaled, with_replicas
from moe_operator.planner.serving import finished_servers, silent_gateways, superfluous_servers
from moe_operator.planner.status_writes import status_write
from moe_operator.planner.times import POLICY_TAKEN_UP, REQUEST_ON_ITS_WAY
from moe_operator.state import Manifest, ObjectRef, ObservedServer, Plan, PoolState


def plan_pool(state: PoolState, config: OperatorConfig, now: datetime) -> Plan:
    """Return what should be done now: nothing for a pool that is being deleted, whose children Kubernetes deletes."""
    pool = state.pool
    if pool.metadata.deletion_timestamp is not None:
        return Plan()
    namespace = pool.metadata.namespace
    withdrawn = withdrawn_jobs(state, config)
    others = replace(state, jobs=tuple(job for job in state.jobs if job not in withdrawn))
    # No Job starts before the pool's claim is seen: until then, somebody else may still create one of that name.
    waits = state.claim_phase is None
    admission = Admission() if waits else admit(others, now=now, queue=config.queue)
    started = tuple(job_ref(job, namespace) for job in admission.start)
    distillation = plan_distillation(state, config, now)
    filling = plan_matrix(state, config, now)
    policy = plan_policy(state, distillation.table, config)
    fixes = _children(state, policy, config)
    proposals = plan_proposals(state, now)
    status = pool_status(state, policy, distillation, filling.status, proposals.status, now=now)
    after = replace(state, pool=pool.model_copy(update={"status": status}))
    finished = finished_servers(after, policy, now=now)
    deleted = (
        *(job_ref(job, namespace) for job in withdrawn),
        *distillation.delete,
        *proposals.delete,
        *filling.delete,
        *(ref for server in finished for ref in _server_refs(server, namespace)),
    )
    statuses = status_write(pool, status)
    events = pool_events(pool.status, status) if statuses else ()
    return Plan(
        create=(*_missing_store(state), *distillation.create, *filling.create, *proposals.create),
        apply=fixes.apply,
        scale=scaled(state.live, gateway_name(pool.metadata.name), replicas_of_gateway(pool))
        if _may_run(state)
        else (),
        annotate=tuple((job_ref(job, namespace), text) for job, text in notes(state.jobs)),
        resume=started if not config.queue else (),
        enqueue=tuple((ref, config.queue) for ref in started) if config.queue else (),
        suspend=tuple(job_ref(job, namespace) for job in admission.yield_turn),
        delete=tuple(dict.fromkeys(deleted)),
        statuses=statuses,
        events=(*events, *fixes.events),
        requeue=_earliest(state, admission, distillation, filling, policy, now),
    )


def _missing_store(state: PoolState) -> tuple[Manifest, ...]:
    """Return the claim if the pool asks for one that does not exist."""
    wanted = state.claim_phase is None and state.pool.spec.storage.size is not None
    return (build_store(pool=state.pool),) if wanted else ()


def _children(state: PoolState, policy: RoutingPolicy | None, config: OperatorConfig) -> Repairs:
    """Return the gateway objects that are missing or were changed."""
    # The ConfigMap and the Deployment may also differ because the policy or the spec has changed. A Service never does.
    return repairs(
        _gateway(state, policy, config) if _may_run(state) else [],
        state.live,
        existed=state.pool.status.routing.digest is not None,
        edited=("Service",),
    )


def _may_run(state: PoolState) -> bool:
    """Return whether the pool may have a gateway. If it may not use its claim, only one that runs already may go on."""
    return refused_store(state.pool, state.claims) is None or state.gateway.desired_replicas > 0


def _gateway(state: PoolState, policy: RoutingPolicy | None, config: OperatorConfig) -> list[Manifest]:
    """Return the gateway's objects as desired; nothing before an Expert serves for the first time."""
    if policy is None:
        return []
    pool = state.pool
    name, policy_map = gateway_name(pool.metadata.name), policy_name(pool.metadata.name)
    gateway = build_gateway(name=name, pool=pool, policy_name=policy_map, config=config)
    return [
        build_policy(name=policy_map, pool=pool, policy=policy),
        with_replicas(gateway, state.live.get(("Deployment", name)), replicas_of_gateway(pool)),
        build_gateway_service(name=name, pool=pool),
    ]


def _server_refs(server: ObservedServer, namespace: str) -> tuple[ObjectRef, ...]:
    """Return the Service of a revision's servers and then their Deployment, which is what a later plan finds them by."""
    deployment = ObjectRef("apps/v1", "Deployment", namespace, server.name, server.uid)
    service = ObjectRef("v1", "Service", namespace, server.name, server.service)
    return (service, deployment) if server.service else (deployment,)


def _earliest(
    state: PoolState,
    admission: Admission,
    distillation: Distillation,
    filling: Filling,
    policy: RoutingPolicy | None,
    now: datetime,
) -> float | None:
    waits = [admission.wait, distillation.wait, filling.wait, next_look(None, state.gateway.pods, now)]
    if policy is not None:
        # Gateways are asked until all of them use the policy. Old servers are deleted some time after that.
        if silent_gateways(state, policy.digest()):
            waits.append(POLICY_TAKEN_UP)
        elif superfluous_servers(state, policy):
            waits.append(REQUEST_ON_ITS_WAY.total_seconds())
    known = [wait for wait in waits if wait is not None]
    return min(known) if known else None
