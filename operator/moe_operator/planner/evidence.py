"""What Jobs found out about a revision, from the trainer's formats to its status."""

from moe_formats.job_report import EvaluateHeadline, TrainHeadline
from moe_formats.resources.base import Interval
from moe_formats.resources.evaluator import AccuracyStatus
from moe_formats.resources.expert_revision import ArtefactStatus, DecisionStatus, Evidence, ExpertRevision
from moe_formats.resources.expert_status import Scores


def artefact_of(headline: TrainHeadline) -> ArtefactStatus:
    """Return what training committed."""
    return ArtefactStatus(
        path=headline.path,
        digest=headline.digest,
        report=headline.report,
        steps=headline.steps,
        tokens=headline.tokens,
        final_loss=headline.final_loss,
        parameters=headline.parameters,
        resumed_from=headline.resumed_from,
    )


def evidence_of(headline: EvaluateHeadline, current: ExpertRevision | None) -> Evidence:
    """Return what was measured of a revision; ``current`` is what it was compared with."""

    def interval(name: str) -> Interval | None:
        measured = getattr(headline, name)
        return Interval.model_validate(measured.model_dump()) if measured is not None else None

    absent = {name: why[:256] for name, why in list(headline.absent.items())[:16]}
    return Evidence(
        report=headline.report,
        current=current.metadata.name if current is not None else None,
        delta=headline.delta,
        noise_floor=headline.noise_floor,
        decisions=[DecisionStatus.model_validate(item.model_dump()) for item in headline.decisions[:8]],
        scores=Scores(
            bits_per_byte=interval("bits_per_byte"),
            gain=interval("gain"),
            specialization_score=interval("specialization_score"),
            forgetting=interval("forgetting"),
            next_byte_accuracy=headline.next_byte_accuracy,
            next_byte_interval=interval("next_byte_interval"),
            accuracies=[AccuracyStatus.model_validate(item.model_dump()) for item in headline.accuracies[:4]],
            absent=absent,
            contamination=headline.contamination,
        ),
        row=headline.row,
        base_row=headline.base_row,
    )
