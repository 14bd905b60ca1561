"""Decides what serves: which revision should, which servers it needs, and when old servers are deleted.

Both the plan of an Expert and the plan of a pool use this file. One revision takes over from another by a handshake
in status. Each step waits until the step before it is written, so that an operator that is killed in between finds
everything in the API server that it needs to continue:

    1  Expert  serving.starting     The gate would promote this revision: its servers start, without traffic.
    2  Expert  serving.target       It was promoted once a server had loaded it (or is pinned), so it should serve.
    3  pool    routing.digest       The policy sends requests to the target, as soon as one of its servers is ready.
    4  pool    routing.revisions    Every ready gateway has reported that policy.
    5  Expert  serving.revision     So all requests go to the target.
    6  pool    It deletes the servers that no Expert's status names and that no gateway sends to, once the last request
               that was on its way to them has arrived. Servers finish their requests before they end.

Servers are created only for revisions that the status already names. The last good revision serves until step 4,
whatever happens to the next one.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from moe_formats.resources.conditions import Condition, ConditionType, condition, find_condition
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_revision import ExpertRevision
from moe_formats.resources.expert_status import ServingStatus
from moe_formats.resources.reasons import Reason
from moe_formats.routing_policy import RoutingPolicy
from moe_formats.serve_config import ServeConfig, ServedArtefact
from moe_operator.builders.server import build_server, build_server_service, frozen, server_url
from moe_operator.config import OperatorConfig
from moe_operator.planner.attempts import known_reason
from moe_operator.planner.blockage import server_failure, why_none_is_ready
from moe_operator.planner.children import Repairs, repairs
from moe_operator.planner.claims import refused_store
from moe_operator.planner.decisions import Decisions, Serving
from moe_operator.planner.lineage import by_name, is_promoted
from moe_operator.planner.scaling import replicas_of_servers, scaled, with_replicas
from moe_operator.planner.times import REQUEST_ON_ITS_WAY
from moe_operator.state import ExpertState, Manifest, ObjectRef, ObservedServer, PoolState


def plan_serving(decided: Decisions) -> Serving:
    """Return the changes to the servers of the revision that should serve, and of one that is starting."""
    state = decided.state
    target = _pinned(state) or decided.wanted.current
    starting = _starting(decided)
    if target is None and starting is None:
        return Serving(_say(state.expert, False, Reason.NOT_SERVING, _NOTHING), status=None)
    named = named_revisions(state.expert)
    asked = [item for item in (starting, target) if item is not None and item.metadata.name in named]
    fixes = Repairs()
    if state.pool is not None and refused_store(state.pool, state.claims) is not None:
        # No pod may start with that claim: servers that run stay as they are, and only their number changes.
        asked = [item for item in asked if _runs(state, item.metadata.name)]
    else:
        fixes = _repairs(state, asked, decided.config)
    return Serving(
        _condition(state, target, decided.now),
        _status(state, target, starting),
        target=target,
        apply=fixes.apply,
        scale=_scale(state, asked),
        events=fixes.events,
    )


def target_of(expert: Expert, revisions: Mapping[str, ExpertRevision]) -> ExpertRevision | None:
    """Return the revision that should serve an Expert according to its status; None if it is gone or not promoted."""
    serving = expert.status.serving
    name = (serving.target if serving is not None else None) or expert.status.current_revision
    revision = revisions.get(name or "")
    ours = revision is not None and revision.spec.expert_uid == expert.metadata.uid
    return revision if revision is not None and ours and is_promoted(revision) else None


def named_revisions(expert: Expert) -> set[str]:
    """Return the revisions whose servers an Expert's status names and that must therefore stay.

    These are the revision that should serve, one that is starting, and the one that gets all traffic until another
    takes over: a server of it that restarts just then is still needed. At zero replicas, nothing has to stay for traffic.
    """
    serving = expert.status.serving
    if serving is None:
        return set()
    names = [serving.target or expert.status.current_revision, serving.starting]
    if replicas_of_servers(expert) > 0:
        names.append(serving.revision)
    return {name for name in names if name}


def finished_servers(
    state: PoolState, policy: RoutingPolicy | None, *, now: datetime
) -> list[ObservedServer]:
    """Return the servers to delete now: they are superfluous, and no request is on its way to them."""
    taken_up = policy is None or _is_taken_up(state, policy, now)
    return superfluous_servers(state, policy) if taken_up else []


def superfluous_servers(state: PoolState, policy: RoutingPolicy | None) -> list[ObservedServer]:
    """Return the servers that no Expert's status names and to which the policy sends nothing."""
    needed = {entry.revision for entry in policy.experts} if policy is not None else set()
    for expert in state.experts.values():
        needed |= named_revisions(expert)
    return [server for name, server in state.servers.items() if name not in needed and not server.deleting]


def silent_gateways(state: PoolState, digest: str) -> list[str]:
    """Return the names of the ready gateway pods that do not report the digest of a policy."""
    return sorted(pod for pod, reported in state.gateway.reported.items() if reported != digest)


def answers(servers: Iterable[ObservedServer], revision: str) -> bool:
    """Return whether at least one server of a revision is ready."""
    return any(
        server.name == revision and server.ready_replicas > 0 and not server.deleting for server in servers
    )


def server_of(state: ExpertState, revision: str) -> ObservedServer | None:
    """Return the Deployment of a revision's servers; None if there is none, or if it is being deleted."""
    return next((item for item in state.servers if item.name == revision and not item.deleting), None)


_NOTHING = "no revision has been promoted yet"


def _is_taken_up(state: PoolState, policy: RoutingPolicy, now: datetime) -> bool:
    """Return whether all ready gateways use a policy, and have for long enough that no older request is on its way."""
    ready = find_condition(state.pool.status.conditions, ConditionType.GATEWAY_READY)
    since = ready.last_transition_time if ready is not None and ready.status == "True" else None
    return (
        since is not None
        and now >= since + REQUEST_ON_ITS_WAY
        and not silent_gateways(state, policy.digest())
    )


def _pinned(state: ExpertState) -> ExpertRevision | None:
    pinned = by_name(state.revisions).get(state.expert.spec.revision or "")
    return pinned if pinned is not None and is_promoted(pinned) else None


def _starting(decided: Decisions) -> ExpertRevision | None:
    """Return the revision whose servers start without traffic, or None.

    A revision starts once its evidence is recorded in its status, until it becomes the target.
    """
    making = decided.making
    if making is None:
        return None
    recorded = by_name(decided.state.revisions)[making.revision.metadata.name].status.evidence
    verdict = making.status.verdict
    promoted_now = verdict is not None and verdict.outcome == "Promoted"
    starts = making.stage == "Starting" or (
        promoted_now and server_of(decided.state, making.revision.metadata.name)
    )
    return making.revision if recorded is not None and starts else None


def _runs(state: ExpertState, revision: str) -> bool:
    server = server_of(state, revision)
    return server is not None and server.desired_replicas > 0


def _scale(state: ExpertState, asked: list[ExpertRevision]) -> tuple[tuple[ObjectRef, int], ...]:
    """Return the Deployments to scale, each with its number of replicas: the servers of `asked`, as many as the spec says.

    At zero, every server of the Expert is scaled down, including those of a revision that is about to be replaced.
    """
    replicas = replicas_of_servers(state.expert)
    names = (
        [server.name for server in state.servers] if replicas == 0 else [item.metadata.name for item in asked]
    )
    return tuple(change for name in names for change in scaled(state.live, name, replicas))


def _repairs(state: ExpertState, asked: list[ExpertRevision], config: OperatorConfig) -> Repairs:
    """Return the Deployments and Services of the revisions that are missing or were changed."""
    expert = state.expert
    serving = expert.status.serving
    spec_changed = expert.metadata.generation != expert.status.observed_generation
    found = [
        repairs(
            _desired(state, revision, config),
            state.live,
            existed=serving is not None and serving.revision == revision.metadata.name,
            edited=() if spec_changed else ("Deployment", "Service"),
        )
        for revision in asked
    ]
    return Repairs(
        tuple(manifest for item in found for manifest in item.apply),
        tuple(event for item in found for event in item.events),
    )


def _desired(state: ExpertState, revision: ExpertRevision, config: OperatorConfig) -> list[Manifest]:
    """Return a revision's Deployment and Service."""
    expert, pool = state.expert, state.pool
    name, artefact = revision.metadata.name, revision.status.artefact
    profile = config.profiles.get(expert.spec.serving.profile)
    live = state.live.get(("Deployment", name))
    if artefact is None or profile is None or pool is None:
        return []
    serve = ServeConfig(
        expert=expert.metadata.name,
        domain=expert.spec.domain,
        revision=name,
        artefact=ServedArtefact(path=artefact.path, digest=artefact.digest),
        temperature=expert.spec.serving.temperature,
    )
    deployment: dict[str, Any] = build_server(
        expert=expert, serve=serve, claim=pool.claim, profile=profile, config=config
    )
    return [
        with_replicas(frozen(deployment, live), live, replicas_of_servers(expert)),
        build_server_service(expert=expert, revision=name),
    ]


def _status(
    state: ExpertState, target: ExpertRevision | None, starting: ExpertRevision | None
) -> ServingStatus:
    name = target.metadata.name if target is not None else None
    server = server_of(state, name) if name is not None else None
    before = state.expert.status.serving
    done = name is not None and _routed(state) == name and server is not None and server.ready_replicas > 0
    revision = name if done else (before.revision if before is not None else None)
    serves = by_name(state.revisions).get(revision or "")
    artefact = serves.status.artefact if serves is not None else None
    return ServingStatus(
        target=name,
        starting=starting.metadata.name if starting is not None else None,
        revision=revision,
        digest=artefact.digest if artefact is not None else None,
        replicas=server.desired_replicas if server is not None else 0,
        ready_replicas=server.ready_replicas if server is not None else 0,
        url=server_url(revision=revision, namespace=state.expert.metadata.namespace) if revision else None,
    )


def _condition(state: ExpertState, target: ExpertRevision | None, now: datetime) -> Condition:
    expert = state.expert
    if target is None:
        return _say(expert, False, Reason.NOT_SERVING, _NOTHING)
    name = target.metadata.name
    server = server_of(state, name)
    if replicas_of_servers(expert) == 0:
        return _say(expert, False, Reason.NOT_SERVING, "spec.serving.replicas is 0: raise it to serve again")
    if server is None or server.ready_replicas == 0:
        pods = server.pods if server is not None else ()
        failure = server_failure(pods)
        if failure is not None:
            return _say(expert, False, known_reason(failure.reason), failure.message)
        refused = server.refused if server is not None else ""
        words = f"the server of {name} is starting{why_none_is_ready(refused, pods, now)}"
        return _say(expert, False, Reason.WAITING_FOR_SERVER, words)
    if state.pool is not None and state.pool.spec.gateway.replicas and _routed(state) != name:
        words = f"{name} is ready, but not every gateway sends requests to it yet"
        return _say(expert, False, Reason.WAITING_FOR_GATEWAY, words)
    servers = f"{server.ready_replicas} {'server' if server.ready_replicas == 1 else 'servers'}"
    return _say(expert, True, Reason.ROLLED_OUT, f"{name} answers on {servers}")


def _routed(state: ExpertState) -> str | None:
    """Return the revision to which every ready gateway is known to send the Expert's requests; None if unknown."""
    pool: ExpertPool | None = state.pool
    return pool.status.routing.revisions.get(state.expert.metadata.name) if pool is not None else None


def _say(expert: Expert, status: bool, reason: Reason, message: str) -> Condition:
    return condition(ConditionType.SERVING, status, reason, message, generation=expert.metadata.generation)
