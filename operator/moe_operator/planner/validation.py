"""What makes an Expert impossible as it is written: an ordered chain of checks, the first finding counts.

A finding stalls the Expert until somebody changes something; what serves goes on serving. What the API
server can refuse by itself (bounds, patterns, CEL rules in api/) is not checked again here, apart from
paths, since more than this operator rests on them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from moe_formats import context_length
from moe_formats.paths import leaves_its_root
from moe_formats.resources.expert import Expert
from moe_formats.resources.reasons import Reason
from moe_operator.config import Grader, OperatorConfig, Store
from moe_operator.planner.base import pinned_base
from moe_operator.planner.evaluators import asked_evaluators, evaluator_names
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
    """Say whether a finding may go away by itself: a base may come a little later in the same apply.

    Until then nothing starts, but nobody is told of a mistake either.
    """
    created = expert.metadata.creation_timestamp
    young = created is not None and now < created + SAME_APPLY
    return young and finding.reason is Reason.BASE_NOT_FOUND


def twins(state: ExpertState) -> list[str]:
    """Return the names of other Experts of the pool with the same domain: legal, and worth a warning."""
    domain = state.expert.spec.domain
    if domain is None:
        return []
    own = state.expert.metadata.name
    return sorted(name for name, peer in state.peers.items() if name != own and peer.spec.domain == domain)


def usable_stores(namespace: str, config: OperatorConfig) -> dict[str, Store]:
    """Return the data stores that a namespace may use."""
    return {
        name: store
        for name, store in config.stores.items()
        if not store.namespaces or namespace in store.namespaces
    }


def usable_graders(namespace: str, config: OperatorConfig) -> dict[str, Grader]:
    """Return the graders that a pool of a namespace may name."""
    return {
        name: grader
        for name, grader in config.graders.items()
        if not grader.namespaces or namespace in grader.namespaces
    }


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
        f"the Expert is called {state.expert.metadata.name!r} like its pool, so `model` in a request could "
        "not tell them apart: create it under another name",
    )


def _stores_are_known(state: ExpertState, config: OperatorConfig) -> Finding | None:
    usable = usable_stores(state.expert.metadata.namespace, config)
    base = state.expert.spec.base.store
    if base is not None and base not in usable:
        return Finding(
            Reason.UNKNOWN_STORE,
            f"spec.base.store is {base!r}; namespace {state.expert.metadata.namespace} may use: {_names(usable)}",
        )
    for number, source in enumerate(state.expert.spec.data.sources):
        if source.store is not None and source.store not in usable:
            return Finding(
                Reason.UNKNOWN_STORE,
                f"spec.data.sources[{number}].store is {source.store!r}; namespace "
                f"{state.expert.metadata.namespace} may use: {_names(usable)}",
            )
    return None


def _evaluators_are_known(state: ExpertState, config: OperatorConfig) -> Finding | None:
    if state.pool is None:
        return None
    known = {item.name: item for item in state.pool.spec.evaluation.evaluators}
    usable = usable_stores(state.expert.metadata.namespace, config)
    for name in evaluator_names(state.expert):
        if name not in known:
            return Finding(
                Reason.UNKNOWN_EVALUATOR,
                f"spec.targets or spec.promotion asks for evaluator {name!r}; spec.evaluation.evaluators of pool "
                f"{state.expert.spec.pool} has: {_names(known)}",
            )
        store = known[name].store
        if store is not None and store not in usable:
            return Finding(
                Reason.UNKNOWN_STORE,
                f"evaluator {name!r} of pool {state.expert.spec.pool} lies in store {store!r}; namespace "
                f"{state.expert.metadata.namespace} may use: {_names(usable)}",
            )
    return None


def _graders_are_known(state: ExpertState, config: OperatorConfig) -> Finding | None:
    usable = usable_graders(state.expert.metadata.namespace, config)
    for evaluator in asked_evaluators(state.expert, state.pool):
        if evaluator.grader is not None and evaluator.grader not in usable:
            return Finding(
                Reason.UNKNOWN_GRADER,
                f"spec.evaluation.evaluators of pool {state.expert.spec.pool}: evaluator {evaluator.name!r} has "
                f"grader {evaluator.grader!r}; namespace {state.expert.metadata.namespace} may use: {_names(usable)}",
            )
    return None


def _paths_stay_inside(state: ExpertState, config: OperatorConfig) -> Finding | None:
    spec = state.expert.spec
    paths = {f"spec.data.sources[{number}].path": item.path for number, item in enumerate(spec.data.sources)}
    for field, path in (paths | {"spec.base.path": spec.base.path or ""}).items():
        if leaves_its_root(path):
            return Finding(
                Reason.PATH_NOT_ALLOWED,
                f"{field} is {path!r}; it must be relative and must not contain '..': name files in the store",
            )
    return None


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
                f"{field} is {name!r}; this installation has: {_names(config.profiles)}",
            )
    return None


def _preset_is_known(state: ExpertState, config: OperatorConfig) -> Finding | None:
    preset = state.expert.spec.base.preset
    if preset is None or preset in config.presets:
        return None
    return Finding(
        Reason.UNKNOWN_PRESET, f"spec.base.preset is {preset!r}; there are: {_names(config.presets)}"
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
        f"the bases form a cycle: {cycle}. Point spec.base of one of them to a preset or to another Expert",
    )


def _base_exists(state: ExpertState, config: OperatorConfig) -> Finding | None:
    base = state.expert.spec.base.expert
    # An Expert that branched already needs its base's artefact, not its object.
    if base is None or base in state.peers or pinned_base(state) is not None:
        return None
    return Finding(
        Reason.BASE_NOT_FOUND,
        f"spec.base.expert is {base!r}, and pool {state.expert.spec.pool} has no Expert of that name: "
        f"create it, or correct the name; there are: {_names(set(state.peers) - {state.expert.metadata.name})}",
    )


def _fits_the_budget(state: ExpertState, config: OperatorConfig) -> Finding | None:
    budget = state.pool.spec.budget.replicas if state.pool is not None else None
    if budget is None:
        return None
    before = sum(peer.spec.serving.replicas for peer in _earlier(state))
    wanted = state.expert.spec.serving.replicas
    if before + wanted <= budget:
        return None
    return Finding(
        Reason.EXCEEDS_BUDGET,
        f"spec.serving.replicas is {wanted} and Experts made before this one ask for {before}, but the "
        f"pool's spec.budget.replicas is {budget}: raise the budget, or ask for less",
    )


def _pin_is_known(state: ExpertState, config: OperatorConfig) -> Finding | None:
    pin = state.expert.spec.revision
    if pin is None:
        return None
    promoted = [
        revision.metadata.name
        for revision in state.revisions
        if revision.status.verdict is not None and revision.status.verdict.outcome == "Promoted"
    ]
    if pin in promoted:
        return None
    return Finding(
        Reason.UNKNOWN_REVISION,
        f"spec.revision is {pin!r}; promoted revisions of this Expert: {_names(promoted)}",
    )


#: In the order in which a reader would want to hear of them.
CHECKS: tuple[Check, ...] = (
    _pool_exists,
    _name_is_free,
    _paths_stay_inside,
    _stores_are_known,
    _evaluators_are_known,
    _graders_are_known,
    _profiles_are_known,
    _preset_is_known,
    _segments_fit,
    _bases_make_no_cycle,
    _base_exists,
    _fits_the_budget,
    _pin_is_known,
)


def _earlier(state: ExpertState) -> list[Expert]:
    def age(expert: Expert) -> tuple[float, str]:
        created = expert.metadata.creation_timestamp
        return (created.timestamp() if created else 0.0, expert.metadata.name)

    own = state.expert
    return [peer for peer in state.peers.values() if age(peer) < age(own)]


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
