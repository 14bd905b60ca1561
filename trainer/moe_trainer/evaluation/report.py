"""What an evaluate Job leaves in the store: the evidence behind a headline. Imports nothing heavy."""

from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from moe_formats import store
from moe_formats.format import Digest, Format, digest_of
from moe_formats.job_config import Contamination, EvaluateJob, Grading, HoldoutRef
from moe_formats.job_report import (
    MAX_HEADLINE_BYTES,
    Accuracy,
    Decision,
    EvaluateHeadline,
    Interval,
    Ungraded,
)
from moe_trainer.storage import manifest

REPORT = "report.json"


class HoldoutRow(Format):
    """The models of the Job on one holdout: their entries in the specialization matrix, bits per byte."""

    holdout: HoldoutRef
    segments: int = Field(description="Segments of clean clusters.")
    clusters: int = Field(description="Clusters that no model of the Job was trained on.")
    tainted_clusters: int = Field(description="Clusters that were left out because some model was.")
    candidate: Interval | None = None
    opponent: Interval | None = Field(default=None, description="What stood for the current revision.")
    base: Interval | None = None
    gain: Interval | None = Field(default=None, description="Mean ln(b_base / b_candidate).")
    absent: dict[str, str] = Field(
        default_factory=dict, description="Score name to the reason for its absence."
    )


class EvaluationReport(Format):
    """Everything an evaluate Job found. The same Job on the same machine gives the same bytes."""

    job: EvaluateJob
    scorer: str = Field(description="Version of segments and scoring; part of every cell's identity.")
    device: str
    rows: tuple[HoldoutRow, ...] = Field(description="Comparisons first, then the rest of the suite.")
    decisions: tuple[Decision, ...]
    delta: float
    noise_floor: float
    bits_per_byte: Interval | None = None
    gain: Interval | None = None
    specialization_score: Interval | None = None
    forgetting: Interval | None = None
    next_byte_accuracy: float | None = None
    next_byte_interval: Interval | None = Field(default=None, description="The same, with its interval.")
    accuracies: tuple[Accuracy, ...] = ()
    gradings: tuple[Grading, ...] = Field(default=(), description="Who judged the evaluators of graders.")
    ungraded: tuple[str, ...] = Field(
        default=(), description="Evaluators whose answers a grader has to judge."
    )
    absent: dict[str, str] = Field(
        default_factory=dict, description="Score name to the reason for its absence."
    )
    contamination: Contamination | None = Field(
        default=None,
        description="Set where not all is known that some model of the Job was trained on: it may have been trained on "
        "clusters that are not left out here.",
    )
    suite: Digest

    def headline(self, digest: Digest, path: str) -> EvaluateHeadline:
        """Return what travels to the operator; ``digest`` is that of report.json, ``path`` its folder."""
        suite = {holdout.digest for holdout in self.job.suite}
        domains = {row.holdout.domain: row for row in self.rows if row.holdout.digest in suite}
        return _that_fits(
            EvaluateHeadline(
                report=digest,
                decisions=self.decisions,
                delta=self.delta,
                noise_floor=self.noise_floor,
                bits_per_byte=self.bits_per_byte,
                gain=self.gain,
                specialization_score=self.specialization_score,
                forgetting=self.forgetting,
                next_byte_accuracy=self.next_byte_accuracy,
                next_byte_interval=self.next_byte_interval,
                accuracies=self.accuracies,
                ungraded=Ungraded(path=path, evaluators=self.ungraded) if self.ungraded else None,
                row={name: row.candidate.value for name, row in domains.items() if name and row.candidate},
                base_row={name: row.base.value for name, row in domains.items() if name and row.base},
                absent=self.absent,
                contamination=self.contamination,
                suite=self.suite,
            )
        )


def committed_report(
    root: Path, artefact: str, what: str, make: Callable[[], EvaluationReport]
) -> EvaluateHeadline:
    """Return the headline of the report on ``what`` beside an artefact; it is made unless it was before.

    Raises JobError (ArtefactCorrupt) if it was made and has changed since.
    """
    path = f"{Path(artefact).parent.as_posix()}/evaluations/{store.short(digest_of(what))}"
    folder = root / path
    if manifest.is_committed(folder):
        manifest.verify(folder)
    else:
        report = make()
        with manifest.new_folder(folder, "evaluation") as working:
            manifest.write_file(working / REPORT, report.to_json().encode())
    text = (folder / REPORT).read_bytes()
    return EvaluationReport.model_validate_json(text).headline(digest_of(text), path)


def _that_fits(headline: EvaluateHeadline) -> EvaluateHeadline:
    """Return a headline that fits a termination message: first without rows, then with short reasons.

    The report has everything; the gate reads nothing of what goes.
    """
    if len(headline.to_json().encode()) > MAX_HEADLINE_BYTES:
        absent = headline.absent | {"row": "TooLong: many domains; report.json has it"}
        headline = headline.model_copy(update={"row": {}, "base_row": {}, "absent": absent})
    if len(headline.to_json().encode()) > MAX_HEADLINE_BYTES:
        absent = {name: reason[:80] for name, reason in headline.absent.items()}
        headline = headline.model_copy(update={"absent": absent})
    return headline
