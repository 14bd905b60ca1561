"""Turns the headlines of Jobs into what a revision's status records of them."""

from moe_formats.job_report import EvaluateHeadline, TrainHeadline
from moe_formats.resources.expert_revision import ArtefactStatus, Evidence, ExpertRevision
from moe_formats.resources.expert_status import Scores


def artefact_of(headline: TrainHeadline) -> ArtefactStatus:
    """Return the part of a training Job's headline that a revision's status records."""
    return ArtefactStatus.model_validate(headline.model_dump(include=set(ArtefactStatus.model_fields)))


def evidence_of(headline: EvaluateHeadline, current: ExpertRevision | None) -> Evidence:
    """Return what was measured of a revision; ``current`` is the revision that it was compared with, if any.

    Lists and texts are cut to the lengths that the CRD allows.
    """
    scores = {name: getattr(headline, name) for name in Scores.model_fields}
    absent = {name: why[:256] for name, why in list(headline.absent.items())[:16]}
    return Evidence(
        report=headline.report,
        current=current.metadata.name if current is not None else None,
        delta=headline.delta,
        noise_floor=headline.noise_floor,
        decisions=list(headline.decisions[:8]),
        scores=Scores(**scores | {"accuracies": headline.accuracies[:4], "absent": absent}),
        row=headline.row,
        base_row=headline.base_row,
    )
