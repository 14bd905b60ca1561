"""Judges the targets of the spec: each by the unfavourable end of the interval of its score."""

from collections.abc import Sequence

from moe_formats.job_report import Interval
from moe_formats.resources.conditions import Condition, ConditionType, condition
from moe_formats.resources.expert import Expert, Targets
from moe_formats.resources.expert_status import Scores, TargetStatus
from moe_formats.resources.reasons import Reason

#: Begins the reason of a score that is absent because the Expert gained nothing. Its target is missed, not unknown.
NO_GAIN = "NoGain"

#: Why a score is absent, if the evaluation gave no reason.
NOT_MEASURED = (
    "it was not asked for when the revision was measured; change spec.runID to make another revision"
)


def judge_targets(targets: Targets, scores: Scores | None) -> list[TargetStatus]:
    """Return each target of the spec with what was measured; ``met`` is None if nothing was measured."""
    results = []
    measured = scores or Scores()
    for name, wanted, interval, at_least in (
        ("specializationScore", targets.specialization_score, measured.specialization_score, True),
        ("gain", targets.gain, measured.gain, True),
        ("bitsPerByte", targets.bits_per_byte, measured.bits_per_byte, False),
    ):
        if wanted is not None:
            gained_nothing = measured.absent.get(name, "").startswith(NO_GAIN)
            results.append(_judge(name, wanted, interval, at_least, missed=gained_nothing))
    if targets.accuracy is not None:
        found = {item.evaluator: item.accuracy for item in measured.accuracies}
        name = f"accuracy.{targets.accuracy.evaluator}"
        results.append(
            _judge(name, targets.accuracy.min, found.get(targets.accuracy.evaluator), True, missed=False)
        )
    return results


def targets_summary(results: Sequence[TargetStatus]) -> str:
    """Return what the TARGETS column shows: the number of targets that are met, and of all targets."""
    return f"{sum(result.met is True for result in results)}/{len(results)}" if results else ""


def targets_condition(expert: Expert, results: Sequence[TargetStatus], scores: Scores | None) -> Condition:
    """Return the condition TargetsMet: True if all targets are met, False if one is missed, otherwise Unknown."""
    if not results:
        return _say(expert, True, Reason.NO_TARGETS, "spec.targets is empty")
    if scores is None:
        return _say(expert, None, Reason.TARGETS_UNKNOWN, "no promoted revision has been measured yet")
    missed = [result for result in results if result.met is False]
    unknown = [result for result in results if result.met is None]
    if missed:
        return _say(expert, False, Reason.TARGETS_MISSED, "; ".join(map(_words, missed)))
    if unknown:
        reasons = (f"{item.name} is absent: {scores.absent.get(item.name, NOT_MEASURED)}" for item in unknown)
        return _say(expert, None, Reason.TARGETS_UNKNOWN, "; ".join(reasons))
    return _say(expert, True, Reason.TARGETS_MET, "; ".join(map(_words, results)))


def score_summary(scores: Scores | None, *, domain: str | None) -> str:
    """Return what the SCORE column shows: the specialization score, or bits per byte for an Expert without a domain."""
    if scores is None:
        return ""
    if domain is not None:
        score = scores.specialization_score
        return _interval(score) if score else ""
    return f"{scores.bits_per_byte.value:.2f} bits/byte" if scores.bits_per_byte else ""


def _judge(
    name: str, wanted: float, interval: Interval | None, at_least: bool, *, missed: bool
) -> TargetStatus:
    if interval is None:
        return TargetStatus(name=name, wanted=wanted, met=False if missed else None)
    measured = interval.lower if at_least else interval.upper
    met = measured >= wanted if at_least else measured <= wanted
    return TargetStatus(name=name, wanted=wanted, measured=measured, met=met)


def _words(result: TargetStatus) -> str:
    end, sign = ("upper", "at most") if result.name == "bitsPerByte" else ("lower", "at least")
    if result.measured is None:
        return f"{result.name} must be {sign} {result.wanted:g}, but the Expert gains nothing over its base"
    return f"{result.name}: the {end} end is {result.measured:.3f}; the target is {sign} {result.wanted:g}"


def _interval(interval: Interval) -> str:
    return f"{interval.value:.2f} [{interval.lower:.2f}, {interval.upper:.2f}]"


def _say(expert: Expert, status: bool | None, reason: Reason, message: str) -> Condition:
    return condition(
        ConditionType.TARGETS_MET, status, reason, message, generation=expert.metadata.generation
    )
