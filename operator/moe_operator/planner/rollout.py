"""Serving an Expert's revision: which one, its servers beside the old ones, and when the change is done.

Surge    the new revision's servers start beside the old ones; the pool's policy (routing.py) sends
traffic over once one is ready; the pool deletes the old ones once every ready gateway reports
that policy. So the last good revision serves whatever happens to the next.
"""

from dataclasses import dataclass
from typing import Any

from moe_formats.resources.conditions import Condition, ConditionType, condition
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_revision import ExpertRevision
from moe_formats.resources.expert_status import ServingStatus
from moe_formats.resources.reasons import Reason
from moe_formats.serve_config import ServeConfig, ServedArtefact
from moe_operator.builders.server import build_server, build_server_service, server_url
from moe_operator.config import OperatorConfig
from moe_operator.planner.attempts import known_reason
from moe_operator.planner.blockage import blocked, server_failure
from moe_operator.planner.drift import frozen, is_subset
from moe_operator.planner.lineage import by_name, is_promoted
from moe_operator.state import Event, ExpertState, Manifest, ObservedServer


@dataclass(frozen=True)
class Rollout:
    """What serving asks for."""

    condition: Condition
    status: ServingStatus | None
    apply: tuple[Manifest, ...] = ()
    events: tuple[Event, ...] = ()


def target_revision(state: ExpertState, current: ExpertRevision | None) -> ExpertRevision | None:
    """Return the revision that should serve: the pinned one, else the current one."""
    pinned = by_name(state.revisions).get(state.expert.spec.revision or "")
    return pinned if pinned is not None and is_promoted(pinned) else current


def plan_rollout(
    state: ExpertState,
    current: ExpertRevision | None,
    starting: ExpertRevision | None,
    config: OperatorConfig,
) -> Rollout:
    """Return the servers of the revision that should serve, and of one that must show that it loads."""
    target = target_revision(state, current)
    first, events = _changed(state, starting, config) if starting is not None else ((), ())
    if target is None:
        said = _say(state.expert, False, Reason.NOT_SERVING, "no revision has been promoted yet")
        return Rollout(said, None, first, events)
    name = target.metadata.name
    server = next((item for item in state.servers if item.name == name and not item.deleting), None)
    apply, news = _changed(state, target, config)
    return Rollout(
        _condition(state, name, server),
        _status(state, target, server),
        (*first, *apply),
        (*events, *news),
    )


def _changed(
    state: ExpertState, target: ExpertRevision, config: OperatorConfig
) -> tuple[tuple[Manifest, ...], tuple[Event, ...]]:
    """Return the Deployment and the Service where they are missing or were changed, and what to tell."""
    started = (
        state.expert.status.serving is not None
        and state.expert.status.serving.revision == target.metadata.name
    )
    metadata = state.expert.metadata
    spec_changed = metadata.generation != state.expert.status.observed_generation
    apply, events = [], []
    for desired in _desired(state, target, config):
        kind, name = desired["kind"], desired["metadata"]["name"]
        live = state.live.get((kind, name))
        if kind == "Deployment":
            desired = dict(frozen(desired, live))
        if live is not None and is_subset(desired, live):
            continue
        apply.append(desired)
        if live is None and started:
            events.append(
                Event(Reason.CHILD_RESTORED, f"{kind} {name} was gone and is made again", "Warning")
            )
        elif live is not None and not spec_changed:
            events.append(Event(Reason.CHILD_EDITED, f"{kind} {name} was changed and is put back", "Warning"))
    return tuple(apply), tuple(events)


def _desired(state: ExpertState, target: ExpertRevision, config: OperatorConfig) -> list[dict[str, Any]]:
    expert, artefact = state.expert, target.status.artefact
    profile = config.profiles.get(expert.spec.serving.profile)
    if artefact is None or profile is None:
        return []
    serve = ServeConfig(
        expert=expert.metadata.name,
        domain=expert.spec.domain,
        revision=target.metadata.name,
        artefact=ServedArtefact(path=artefact.path, digest=artefact.digest),
        temperature=expert.spec.serving.temperature,
    )
    deployment = build_server(
        expert=expert,
        serve=serve,
        replicas=expert.spec.serving.replicas,
        claim=state.claim,
        profile=profile,
        config=config,
    )
    return [deployment, build_server_service(expert=expert, revision=target.metadata.name)]


def _status(state: ExpertState, target: ExpertRevision, server: ObservedServer | None) -> ServingStatus:
    name, artefact = target.metadata.name, target.status.artefact
    before = state.expert.status.serving
    done = _routed(state.pool, state.expert) == name and server is not None and server.ready_replicas > 0
    serving = name if done else (before.revision if before else None)
    serves = by_name(state.revisions).get(serving or "")
    digest = artefact.digest if done and artefact else (before.digest if before else None)
    return ServingStatus(
        revision=serving,
        digest=digest if serves is not None else None,
        replicas=server.desired_replicas if server else 0,
        ready_replicas=server.ready_replicas if server else 0,
        url=server_url(revision=serving, namespace=state.expert.metadata.namespace) if serving else None,
    )


def _condition(state: ExpertState, name: str, server: ObservedServer | None) -> Condition:
    expert = state.expert
    if expert.spec.serving.replicas == 0:
        return _say(expert, False, Reason.NOT_SERVING, "spec.serving.replicas is 0")
    if server is None or server.ready_replicas == 0:
        failure = server_failure(server.pods) if server is not None else None
        if failure is not None:
            return _say(expert, False, known_reason(failure.reason), failure.message)
        why = blocked(server.pods) if server is not None else None
        words = f"the server of {name} is starting" + (f"; {why}" if why else "")
        return _say(expert, False, Reason.WAITING_FOR_SERVER, words)
    if state.pool is not None and state.pool.spec.gateway.replicas and _routed(state.pool, expert) != name:
        return _say(
            expert, False, Reason.WAITING_FOR_GATEWAY, f"{name} is ready; not every gateway sends to it yet"
        )
    return _say(expert, True, Reason.ROLLED_OUT, f"{name} answers on {server.ready_replicas} servers")


def _routed(pool: ExpertPool | None, expert: Expert) -> str | None:
    """Return the revision that every ready gateway is known to send an Expert's requests to."""
    return pool.status.routing.revisions.get(expert.metadata.name) if pool is not None else None


def _say(expert: Expert, status: bool, reason: Reason, message: str) -> Condition:
    return condition(ConditionType.SERVING, status, reason, message, generation=expert.metadata.generation)
