"""Finds what makes an Expert impossible as it is written: an ordered chain of checks, of which the first finding counts.

A finding stalls the Expert until somebody changes something. What serves continues to serve. What the API server
refuses by itself (bounds, patterns and CEL rules of the CRDs) is not checked again here, except for paths: a path that
left its store would let an Expert read other people's data.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from moe_formats import context_length
from moe_formats.paths import leaves_its_root
from moe_formats.resources.expert import Expert
from moe_formats.resources.reasons import Reason
from moe_operator.config import OperatorConfig
from moe_operator.planner import membership
from moe_operator.planner.base import pinned_base
from moe_operator.planner.claims import refused_source, refused_store
from moe_operator.planner.evaluators import asked_evaluators, evaluator_names
from moe_operator.planner.lineage import is_promoted
from moe_operator.planner.membership import earlier, members
from moe_operator.planner.schedule import mistake
from moe_operator.planner.times import SAME_APPLY
from moe_operator.state import ExpertState


@dataclass(frozen=True)
class Finding:
    """Why an Expert is stalled."""

    reason: Reason
    message: str


Check = Callable[[ExpertState, OperatorConfig], Finding | None]


def validate(state: ExpertState, config: OperatorConfig) -> Finding | None:
    """Return the first finding, or None."""
    return next((finding for check in CHECKS if (finding := check(state, config)) is not None), None)


def may_pass(finding: Finding, expert: Expert, *, now: datetime) -> bool:
    """Return whether a finding may go away by itself: what is missing may arrive a moment later from the same apply.

    Until then nothing starts, but no mistake is reported either.
    """
    created = expert.metadata.creation_timestamp
    young = created is not None and now < created + SAME_APPLY
    return young and finding.reason in (Reason.BASE_NOT_FOUND, Reason.CLAIM_NOT_FOUND)


def twins(state: ExpertState) -> list[str]:
    """Return the names of the other Experts of the pool that have the same domain. This is allowed, but worth a warning."""
    domain = state.expert.spec.domain
    if domain is None:
        return []
    own = state.expert.metadata.name
    return sorted(name for name, peer in state.peers.items() if name != own and peer.spec.domain == domain)


def _pool_exists(state: ExpertState, config: OperatorConfig) -> Finding | None:
    if state.pool is not None:
        return None
    name, namespace = state.expert.spec.pool, state.expert.metadata.namespace
    return Finding(
        Reason.WAITING_FOR_POOL,
        f"spec.pool is {name!r}, and namespace {namespace} has no ExpertPool of that name: "
        "create it, or delete this Expert and create it in an existing pool",
    )


def _name_is_free(state: ExpertState, config: OperatorConfig) -> Finding | None:
    if state.expert.metadata.name != state.expert.spec.pool:
        return None
    return Finding(
        Reason.NAME_CONFLICT,
        f"the Expert and its pool are both named {state.expert.metadata.name!r}, so `model` in a request could "
        "mean either: create the Expert under another name",
    )


def _stores_are_known(state: ExpertState, config: OperatorConfig) -> Finding | None:
    usable = config.usable_stores(state.expert.metadata.namespace)
    base = state.expert.spec.base.store
    if base is not None and base not in usable:
        return Finding(
            Reason.UNKNOWN_STORE,
            f"spec.base.store is {base!r}; name a data store that namespace "
            f"{state.expert.metadata.namespace} may use: {_names(usable)}",
        )
    for number, source in enumerate(state.expert.spec.data.sources):
        if source.store is not None and source.store not in usable:
            return Finding(
                Reason.UNKNOWN_STORE,
                f"spec.data.sources[{number}].store is {source.store!r}; name a data store that namespace "
                f"{state.expert.metadata.namespace} may use: {_names(usable)}",
            )
    return None


def _store_is_open(state: ExpertState, config: OperatorConfig) -> Finding | None:
    refusal = refused_store(state.pool, state.claims) if state.pool is not None else None
    return Finding(*refusal) if refusal is not None else None


def _sources_are_open(state: ExpertState, config: OperatorConfig) -> Finding | None:
    refusal = refused_source(state.expert, state.pool, state.claims, config)
    return Finding(*refusal) if refusal is not None else None


def _evaluators_are_known(state: ExpertState, config: OperatorConfig) -> Finding | None:
    if state.pool is None:
        return None
    known = {item.name: item for item in state.pool.spec.evaluation.evaluators}
    usable = config.usable_stores(state.expert.metadata.namespace)
    for name in evaluator_names(state.expert):
        if name not in known:
            return Finding(
                Reason.UNKNOWN_EVALUATOR,
                f"spec.targets or spec.promotion asks for evaluator {name!r}; spec.evaluation.evaluators of pool "
                f"{state.expert.spec.pool} has: {_names(known)}. Add it there, or ask for one of these",
            )
        store = known[name].store
        if store is not None and store not in usable:
            return Finding(
                Reason.UNKNOWN_STORE,
                f"the items of evaluator {name!r} of pool {state.expert.spec.pool} are in store {store!r}; name a "
                f"data store that namespace {state.expert.metadata.namespace} may use: {_names(usable)}",
            )
    return None


def _graders_are_known(state: ExpertState, config: OperatorConfig) -> Finding | None:
    usable = config.usable_graders(state.expert.metadata.namespace)
    for evaluator in asked_evaluators(state.expert, state.pool):
        if evaluator.grader is not None and evaluator.grader not in usable:
            return Finding(
                Reason.UNKNOWN_GRADER,
                f"spec.evaluation.evaluators of pool {state.expert.spec.pool}: evaluator {evaluator.name!r} has "
                f"grader {evaluator.grader!r}; name one that namespace {state.expert.metadata.namespace} may use: "
                f"{_names(usable)}",
            )
    return None


def _paths_stay_inside(state: ExpertState, config: OperatorConfig) -> Finding | None:
    spec = state.expert.spec
    paths = {f"spec.data.sources[{number}].path": item.path for number, item in enumerate(spec.data.sources)}
    for field, path in (paths | {"spec.base.path": spec.base.path or ""}).items():
        if leaves_its_root(path):
            return Finding(
                Reason.PATH_NOT_ALLOWED,
                f"{field} is {path!r}; it must be relative and must not contain '..': give a path inside the store",
            )
    return None


def _schedule_is_due_some_day(state: ExpertState, config: OperatorConfig) -> Finding | None:
    schedule = state.expert.spec.data.refresh_schedule
    wrong = mistake(schedule) if schedule is not None else None
    return Finding(Reason.INVALID_SCHEDULE, wrong) if wrong is not None else None


def _profiles_are_known(state: ExpertState, config: OperatorConfig) -> Finding | None:
    spec = state.expert.spec
    asked = {
        "spec.training.resources.profile": spec.training.resources.profile,
        "spec.serving.profile": spec.serving.profile,
    }
    for field, name in asked.items():
        if name not in config.profiles:
            return Finding(
                Reason.UNKNOWN_PROFILE,
                f"{field} is {name!r}; name a hardware profile of this installation: {_names(config.profiles)}",
            )
    return None


def _preset_is_known(state: ExpertState, config: OperatorConfig) -> Finding | None:
    preset = state.expert.spec.base.preset
    if preset is None or preset in config.presets:
        return None
    return Finding(
        Reason.UNKNOWN_PRESET, f"spec.base.preset is {preset!r}; name one of: {_names(config.presets)}"
    )


def _segments_fit(state: ExpertState, config: OperatorConfig) -> Finding | None:
    if state.pool is None:
        return None
    size, spec = state.pool.spec.evaluation.segment_bytes, state.expert.spec
    short = context_length.shortfall_of_preset(
        spec.base.preset, size
    ) or context_length.shortfall_of_sequences(spec.training.context_tokens, size)
    return Finding(Reason.CONTEXT_TOO_SHORT, short) if short is not None else None


def _bases_make_no_cycle(state: ExpertState, config: OperatorConfig) -> Finding | None:
    path = [state.expert.metadata.name]
    base = state.expert.spec.base.expert
    while base is not None and base not in path:
        path.append(base)
        peer = state.peers.get(base)
        base = peer.spec.base.expert if peer is not None else None
    if base is None:
        return None
    cycle = " -> ".join([*path[path.index(base) :], base])
    return Finding(
        Reason.BASE_CYCLE,
        f"the bases form a cycle: {cycle}. Change spec.base of one of them to a preset or to another Expert",
    )


def _base_exists(state: ExpertState, config: OperatorConfig) -> Finding | None:
    base = state.expert.spec.base.expert
    # An Expert that has already branched needs its base's artefact, but no longer its object.
    if base is None or base in state.peers or pinned_base(state) is not None:
        return None
    return Finding(
        Reason.BASE_NOT_FOUND,
        f"spec.base.expert is {base!r}, and pool {state.expert.spec.pool} has no Expert of that name: "
        f"create it, or name one of: {_names(set(state.peers) - {state.expert.metadata.name})}",
    )


def _pool_has_room(state: ExpertState, config: OperatorConfig) -> Finding | None:
    if state.expert.metadata.name in members({**state.peers, state.expert.metadata.name: state.expert}):
        return None
    return Finding(
        Reason.POOL_FULL,
        f"pool {state.expert.spec.pool} has {membership.MAX_EXPERTS} Experts that were created before this one, and routes "
        "requests to no more: delete one of them, or delete this Expert and create it in another pool",
    )


def _fits_the_budget(state: ExpertState, config: OperatorConfig) -> Finding | None:
    budget = state.pool.spec.budget.replicas if state.pool is not None else None
    if budget is None:
        return None
    before = sum(peer.spec.serving.replicas for peer in earlier(state.expert, state.peers.values()))
    asked = state.expert.spec.serving.replicas
    if before + asked <= budget:
        return None
    return Finding(
        Reason.EXCEEDS_BUDGET,
        f"spec.serving.replicas is {asked} and Experts created before this one ask for {before}, but the "
        f"pool's spec.budget.replicas is {budget}: raise the budget, or lower spec.serving.replicas",
    )


def _pin_is_known(state: ExpertState, config: OperatorConfig) -> Finding | None:
    pin = state.expert.spec.revision
    if pin is None:
        return None
    promoted = [revision.metadata.name for revision in state.revisions if is_promoted(revision)]
    if pin in promoted:
        return None
    return Finding(
        Reason.UNKNOWN_REVISION,
        f"spec.revision is {pin!r}; remove it, or name a promoted revision of this Expert: {_names(promoted)}",
    )


#: In this order: the first finding is the only one that is reported, so what others depend on comes first.
CHECKS: tuple[Check, ...] = (
    _pool_exists,
    _name_is_free,
    _pool_has_room,
    _paths_stay_inside,
    _schedule_is_due_some_day,
    _stores_are_known,
    _evaluators_are_known,
    _store_is_open,
    _sources_are_open,
    _graders_are_known,
    _profiles_are_known,
    _preset_is_known,
    _segments_fit,
    _bases_make_no_cycle,
    _base_exists,
    _fits_the_budget,
    _pin_is_known,
)


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
