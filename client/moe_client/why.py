"""Says in words why an Expert or a pool is where it is, and what to do next. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from moe_client.proposals import OVER, state, what_next
from moe_formats.job_report import Decision, Interval
from moe_formats.resources.conditions import Condition, ConditionType, find_condition
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_proposal import ExpertProposal
from moe_formats.resources.expert_revision import ExpertRevision
from moe_formats.resources.expert_status import Scores
from moe_formats.resources.lifecycle import Act
from moe_formats.resources.reasons import Reason


def why_expert(
    expert: Expert,
    revisions: Sequence[ExpertRevision],
    events: Sequence[Mapping[str, Any]] = (),
    proposals: Sequence[ExpertProposal] = (),
) -> list[str]:
    """Return the story of an Expert, line by line: where it is and why, its proposals, revisions, scores and events."""
    status = expert.status
    lines = [f"Expert {expert.metadata.name} ({_kind_of(expert)}) is {status.phase or 'not processed yet'}."]
    lines += list(_trouble(status.conditions))
    if status.serving and status.serving.revision:
        ready = f"{status.serving.ready_replicas} of {status.serving.replicas} servers ready"
        lines.append(f"It serves {status.serving.revision} ({ready}).")
    if status.base_revision:
        lines.append(
            f"It branched from {status.base_revision}, which stays its base until it is rebased or spec.base changes."
        )
    for proposal in _unfinished(proposals):
        lines += list(_proposed(proposal))
    for revision in revisions:
        lines += list(_story(revision))
    if status.scores:
        lines += list(_measured(status.scores))
    lines += [
        f"Target {item.name}: wanted {item.wanted:g}, {_judged(item.measured, item.met)}."
        for item in status.target_results
    ]
    lines += [f"Event: {event.get('reason')}: {event.get('message')}" for event in events[-3:]]
    return lines


def why_pool(
    pool: ExpertPool, experts: Sequence[Expert], proposals: Sequence[ExpertProposal] = ()
) -> list[str]:
    """Return the story of a pool: its gateway, its Experts, how well it routes, what is proposed."""
    status = pool.status
    lines = [
        f"Pool {pool.metadata.name} is {status.phase or 'not processed yet'}: {status.experts or '0/0'} Experts serve."
    ]
    lines += list(_trouble(status.conditions))
    if status.routing.digest:
        lines.append(
            f"It routes by {status.routing.strategy}; {status.routing.reported_by} gateway(s) report the policy "
            f"{status.routing.digest[7:19]}."
        )
    if table := status.routing.table:
        lines.append(
            f"Its table sends {table.accuracy:.0%} of held-out segments to the Expert that codes them best: "
            f"{table.routed_bits_per_byte:.3f} bits per byte, against {table.oracle_bits_per_byte:.3f} for an oracle and "
            f"{table.random_bits_per_byte:.3f} at random."
        )
    lines += [f"Expert {item.metadata.name}: {item.status.phase}, {item.status.reason}." for item in experts]
    for proposal in _unfinished(proposals):
        lines += list(_proposed(proposal))
    lines += list(_demoted(pool))
    return lines


def _unfinished(proposals: Sequence[ExpertProposal]) -> list[ExpertProposal]:
    return [item for item in proposals if item.status.phase not in OVER]


def _proposed(proposal: ExpertProposal) -> Iterator[str]:
    """Yield what is proposed and why, what it promises, and how to decide about it."""
    status, spec = proposal.status, proposal.spec
    to = f" to {spec.revision}" if spec.revision else ""
    yield f"Proposal {proposal.metadata.name} ({spec.act}{to} of {spec.expert}) is {state(proposal)}."
    if status.evidence:
        promise = f" Effect: {status.effect}." if status.effect else ""
        yield f"  Why: {status.evidence.summary.rstrip('.')}.{promise}"
    yield from (f"  {line}" for line in what_next(proposal))


def _demoted(pool: ExpertPool) -> Iterator[str]:
    """Yield the acts that the policy no longer approves, since what they promised was not seen."""
    acts = pool.status.lifecycle.acts if pool.status.lifecycle else []
    for item in acts:
        if item.effective != item.mode:
            field = "spec.base.follow of its Experts" if item.act is Act.REBASE else "spec.lifecycle"
            yield (
                f"Act {item.act} is {item.effective}, not {item.mode} as the spec says, since the promised effect of "
                f"{', '.join(item.missed)} was not seen. To have the policy approve it again, change its mode in {field}."
            )


def _kind_of(expert: Expert) -> str:
    return f"domain {expert.spec.domain}" if expert.spec.domain else "a mixture"


def _trouble(conditions: Sequence[Condition]) -> Iterator[str]:
    """Yield the overall state and what its reason means, then every condition that is not as it should be."""
    ready = find_condition(conditions, ConditionType.READY)
    if ready is not None:
        yield f"Ready is {ready.status} ({ready.reason}): {ready.message}."
        if ready.status != "True":
            yield f"  {_meaning(ready.reason)}"
    told = {ready.message} if ready is not None else set()
    for item in conditions:
        bad = "True" if item.type in (ConditionType.STALLED, ConditionType.PAUSED) else "False"
        if item.type != ConditionType.RECONCILING and item.status == bad and item.message not in told:
            told.add(item.message)
            yield f"  {item.type} is {item.status} ({item.reason}): {item.message}."


def _meaning(reason: str) -> str:
    try:
        return Reason(reason).meaning
    except ValueError:
        return "This moectl does not know that reason: it is older than the operator."


def _story(revision: ExpertRevision) -> Iterator[str]:
    status, inputs = revision.status, revision.spec.inputs
    start = f"from {inputs.parent.revision}" if inputs.parent else f"from the preset {inputs.preset}"
    yield f"Revision {revision.metadata.name} ({revision.spec.cause}), trained {start} on data {inputs.data.digest[7:19]}:"
    if status.artefact:
        resumed = (
            f", resumed from step {status.artefact.resumed_from}" if status.artefact.resumed_from else ""
        )
        yield f"  trained {status.artefact.steps} steps to a loss of {status.artefact.final_loss:.3f}{resumed}."
    if status.evidence:
        yield from (f"  {_comparison(item)}" for item in status.evidence.decisions)
        if status.evidence.scores.contamination:
            yield "  contamination Unknown: not all training text of the compared models is known; this text may be part of it."
    if status.verdict:
        final = (
            ", and these inputs are not trained again"
            if status.verdict.final and status.verdict.outcome != "Promoted"
            else ""
        )
        yield f"  {status.verdict.outcome} by clause {status.verdict.clause}{final}: {status.verdict.message}"
    elif status.phase:
        yield f"  it is {status.phase}."


def _comparison(item: Decision) -> str:
    percent = (1 - 2.718281828459045**item.interval.value) * 100
    word = "better" if percent >= 0 else "worse"
    return (
        f"on the {item.role} it is {abs(percent):.1f} % {word} than {item.against}: mean ln(b/b) "
        f"{_interval(item.interval)}, bound {item.upper:+.4f} at alpha {item.alpha:.4f}."
    )


def _measured(scores: Scores) -> Iterator[str]:
    named = (
        ("bits per byte", scores.bits_per_byte),
        ("gain over its base", scores.gain),
        ("specialization score", scores.specialization_score),
        ("forgetting", scores.forgetting),
    )
    yield from (f"Measured {name}: {_interval(value)}." for name, value in named if value is not None)
    yield from (f"Not measured: {name}, since {reason}" for name, reason in scores.absent.items())
    if scores.contamination:
        yield "Contamination Unknown: not all training text of this revision, or of what it was compared with, is known."


def _interval(value: Interval) -> str:
    return f"{value.value:.3f} [{value.lower:.3f}, {value.upper:.3f}]"


def _judged(measured: float | None, met: bool | None) -> str:
    if met is None or measured is None:
        return "not judged yet"
    return f"measured {measured:.3f}: {'met' if met else 'missed'}"
