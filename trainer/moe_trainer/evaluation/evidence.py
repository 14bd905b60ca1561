"""Computes an EvaluationReport from columns of the matrix. Pure: it reads no file and loads no model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from moe_formats.format import canonical_json, digest_of
from moe_formats.job_config import Comparison, EvaluateJob, HoldoutRef
from moe_formats.job_report import Decision, Interval
from moe_trainer.evaluation import scores
from moe_trainer.evaluation.report import EvaluationReport, HoldoutRow
from moe_trainer.evaluation.scores import Absences, Absent, Scored
from moe_trainer.evaluation.segments import scorer_version

Against = Literal["current", "base", "unigram"]


@dataclass(frozen=True)
class Column:
    """One holdout with the models' scores on its clean segments.

    Attributes:
        candidate: the revision that is evaluated.
        opponent: what it is compared with; None on holdouts on which nothing is decided.
        base: the pinned parent of the Expert's first revision; None if there is none.
        tainted: the number of clusters that were left out because some model was trained on them.

    """

    holdout: HoldoutRef
    candidate: Scored
    opponent: Scored | None
    base: Scored | None
    tainted: int


def weigh(
    job: EvaluateJob, columns: Sequence[Column], against: Against, *, device: str, noise_floor: float
) -> EvaluationReport:
    """Compute all scores and differences; those that cannot be computed are absent, with the reason.

    Args:
        job: the evaluate Job.
        columns: one for every holdout of the comparisons and of the suite.
        against: what the opponent is.
        device: the device class of the scores.
        noise_floor: the difference in ln(b) between two scorings of the same model.

    """
    delta = max(scores.SMALLEST_DELTA, 2 * noise_floor)
    by_digest = {column.holdout.digest: column for column in columns}
    own, others = by_digest[job.comparisons[0].holdout.digest], _other_domains(job, by_digest)
    absent = Absences()
    next_byte = absent.note("nextByteAccuracy", lambda: scores.next_byte_accuracy(own.candidate))
    gain = absent.note("gain", lambda: scores.gain(_base(own), own.candidate))
    return EvaluationReport(
        job=job,
        scorer=scorer_version(job.segment_bytes),
        device=device,
        rows=tuple(_row(column) for column in columns),
        decisions=tuple(
            decision
            for comparison in job.comparisons
            if (decision := absent.note(comparison.role, partial(_decide, comparison, by_digest, against)))
        ),
        delta=delta,
        noise_floor=noise_floor,
        bits_per_byte=absent.note("bitsPerByte", lambda: scores.bits_per_byte(own.candidate)),
        gain=gain,
        specialization_score=absent.note(
            "specializationScore", lambda: _specialization(job, own, others, gain, delta)
        ),
        forgetting=absent.note(
            "forgetting", lambda: scores.forgetting([(_base(other), other.candidate) for other in others])
        ),
        next_byte_accuracy=next_byte.value if next_byte else None,
        next_byte_interval=next_byte,
        absent=absent.reasons,
        contamination=job.contamination,
        suite=digest_of(canonical_json([holdout.digest for holdout in job.suite])),
    )


def _decide(comparison: Comparison, by_digest: Mapping[str, Column], against: Against) -> Decision:
    column = by_digest[comparison.holdout.digest]
    if column.opponent is None:
        raise ValueError(f"no opponent was scored on {comparison.holdout.path}")
    return scores.decide(
        column.candidate,
        column.opponent,
        role=comparison.role,
        holdout=comparison.holdout.digest,
        uses=comparison.uses,
        against=against,
    )


def _specialization(
    job: EvaluateJob, own: Column, others: Sequence[Column], gain: Interval | None, delta: float
) -> Interval:
    if job.expert.domain is None:
        raise Absent(f"Mixture: {job.expert.name} has no domain to be specialised in")
    base = _base(own)
    if gain is None:
        raise Absent("NoGain: the own-domain gain could not be computed")
    return scores.specialization_score(
        scores.gains(base, own.candidate),
        [scores.gains(_base(other), other.candidate) for other in others],
        gain,
        delta,
    )


def _other_domains(job: EvaluateJob, by_digest: Mapping[str, Column]) -> list[Column]:
    """Return one anchor per other domain, in the suite's order; if several Experts share a domain, the first one's."""
    found: dict[str, Column] = {}
    for holdout in job.suite:
        if holdout.domain not in (None, job.expert.domain):
            found.setdefault(str(holdout.domain), by_digest[holdout.digest])
    return list(found.values())


def _row(column: Column) -> HoldoutRow:
    absent = Absences()
    opponent, base = column.opponent, column.base
    return HoldoutRow(
        holdout=column.holdout,
        segments=len(column.candidate.clusters),
        clusters=len(set(column.candidate.clusters)),
        tainted_clusters=column.tainted,
        candidate=absent.note("candidate", lambda: scores.bits_per_byte(column.candidate)),
        opponent=absent.note("opponent", lambda: scores.bits_per_byte(opponent)) if opponent else None,
        base=absent.note("base", lambda: scores.bits_per_byte(base)) if base else None,
        gain=absent.note("gain", lambda: scores.gain(_base(column), column.candidate)),
        absent=absent.reasons,
    )


def _base(column: Column) -> Scored:
    if column.base is None:
        raise Absent("NoBase: it was trained from a preset")
    return column.base
