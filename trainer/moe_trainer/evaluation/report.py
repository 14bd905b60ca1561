"""The report that an evaluate Job leaves in the store, and the headline made from it. Imports nothing heavy."""

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
from moe_trainer.storage.committed import Committed
from moe_trainer.storage.committing import is_committed, new_folder
from moe_trainer.storage.files import write_file

REPORT = "report.json"


class HoldoutRow(Format):
    """The bits per byte of the Job's models on one holdout: their entries in the specialization matrix."""

    holdout: HoldoutRef
    segments: int = Field(description="Number of segments in clean clusters.")
    clusters: int = Field(description="Number of clusters that no model of the Job was trained on.")
    tainted_clusters: int = Field(
        description="Number of clusters that were left out because some model was trained on them."
    )
    candidate: Interval | None = None
    opponent: Interval | None = Field(default=None, description="What the candidate was compared with.")
    base: Interval | None = None
    gain: Interval | None = Field(default=None, description="Mean ln(b_base / b_candidate).")
    absent: dict[str, str] = Field(
        default_factory=dict, description="The reason for each score that is absent, by its name."
    )


class EvaluationReport(Format):
    """Everything that an evaluate Job found. The same Job on the same machine gives the same bytes."""

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
    next_byte_interval: Interval | None = Field(
        default=None, description="Next-byte accuracy with its interval."
    )
    accuracies: tuple[Accuracy, ...] = ()
    gradings: tuple[Grading, ...] = Field(default=(), description="The graders that judged answers.")
    ungraded: tuple[str, ...] = Field(
        default=(), description="Evaluators whose answers a grader still has to judge."
    )
    absent: dict[str, str] = Field(
        default_factory=dict, description="The reason for each score that is absent, by its name."
    )
    contamination: Contamination | None = Field(
        default=None,
        description="Set if it is not known what all models of the Job were trained on: one of them may have been trained "
        "on clusters that are not left out here.",
    )
    suite: Digest

    def headline(self, digest: Digest, path: str) -> EvaluateHeadline:
        """Return the headline for the operator; ``digest`` is that of report.json, ``path`` its folder."""
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
    """Return the headline of the report on ``what``, which is stored with an artefact; make it if it is not there yet.

    Raises JobError (ArtefactCorrupt) if an existing report was altered.
    """
    path = evaluation_path(artefact, what)
    text = committed_text(root, path, make)
    return EvaluationReport.model_validate_json(text).headline(digest_of(text), path)


def evaluation_path(artefact: str, what: str) -> str:
    """Return the folder of the report on ``what``, beside the artefact that is measured."""
    return f"{Path(artefact).parent.as_posix()}/evaluations/{store.short(digest_of(what))}"


def committed_text(root: Path, path: str, make: Callable[[], Format]) -> bytes:
    """Return the text of the report in a folder of the store; make it if it is not there yet.

    Raises JobError (ArtefactCorrupt) if an existing report was altered.
    """
    if not is_committed(root, path):
        report = make()
        with new_folder(root, path, "evaluation") as working:
            write_file(working / REPORT, report.to_json().encode())
    with Committed(root, path) as held:
        return held.read(REPORT)


def _that_fits(headline: EvaluateHeadline) -> EvaluateHeadline:
    """Return a headline that fits into a termination message: first without rows, then with shortened reasons.

    The report keeps everything, and the gate does not read what is left out.
    """
    if len(headline.to_json().encode()) > MAX_HEADLINE_BYTES:
        absent = headline.absent | {"row": "TooLong: many domains; report.json has it"}
        headline = headline.model_copy(update={"row": {}, "base_row": {}, "absent": absent})
    if len(headline.to_json().encode()) > MAX_HEADLINE_BYTES:
        absent = {name: reason[:80] for name, reason in headline.absent.items()}
        headline = headline.model_copy(update={"absent": absent})
    return headline
