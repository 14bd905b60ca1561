"""``moe-trainer evaluate``: the evidence for one candidate revision.

    verify every digest → fill stale cells of the matrix → leave out tainted clusters → compute scores → run evaluators

The operator only compares the numbers in the report. A Job that was killed and runs again reuses the cells that were
filled, and writes the same report, byte for byte.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from moe_formats.format import digest_of
from moe_formats.job_config import EvaluateJob, HoldoutRef
from moe_formats.job_report import EvaluateHeadline
from moe_trainer.environment import Environment
from moe_trainer.evaluation.evidence import Against, Column, weigh
from moe_trainer.evaluation.matrix import unigram_cell, unigram_nats
from moe_trainer.evaluation.report import EvaluationReport, committed_report
from moe_trainer.evaluation.scores import Absent, Scored
from moe_trainer.evaluation.segments import scorer_version
from moe_trainer.evaluators.accuracy import Judged, weigh_answers
from moe_trainer.measurement import Cells, Measurement
from moe_trainer.snapshots.layout import read_documents


def run(job: EvaluateJob, environment: Environment) -> EvaluateHeadline:
    """Evaluate a candidate, or return the headline of an evaluation that was committed before.

    Raises JobError (ArtefactCorrupt) if a model, holdout or snapshot is not what its digest says.
    """
    return committed_report(
        environment.store,
        job.candidate.path,
        f"{scorer_version(job.segment_bytes)} {job.to_json()}",
        lambda: Evaluation(job, environment).report(),
    )


class Evaluation:
    """One run of an evaluate Job over the folders of a store."""

    def __init__(self, job: EvaluateJob, environment: Environment) -> None:
        self.job = job
        self.measurement = Measurement(job.pool_uid, job.segment_bytes, environment)
        self.root, self.matrix = self.measurement.root, self.measurement.matrix
        #: The holdouts of the comparisons, with the own anchor first, then the rest of the suite; each once.
        holdouts = [*(comparison.holdout for comparison in job.comparisons), *job.suite]
        self.holdouts = list({holdout.digest: holdout for holdout in holdouts}.values())
        self.compared = {comparison.holdout.digest for comparison in job.comparisons}

    def report(self) -> EvaluationReport:
        """Verify everything that is read, fill the stale cells, and compute the scores and differences."""
        with ExitStack() as folders:
            self.measurement.open(folders, self.job.models, self.holdouts, self.job.tasks)
            return self._weighed()

    def _weighed(self) -> EvaluationReport:
        candidate = self.measurement.cells(self.job.candidate, self.holdouts)
        base = self.measurement.cells(self.job.base, self.holdouts) if self.job.base else {}
        against, opponent = self._opponent([h for h in self.holdouts if h.digest in self.compared])
        columns = [self._column(holdout, candidate, opponent, base) for holdout in self.holdouts]
        report = weigh(self.job, columns, against, device=self.matrix.device, noise_floor=self._noise_floor())
        return report.model_copy(update=self._accuracies(report.absent))

    def _opponent(self, holdouts: Sequence[HoldoutRef]) -> tuple[Against, Cells]:
        """Score the opponent: the current revision, or the base if there is none, or a byte-unigram model."""
        if self.job.current:
            return "current", self.measurement.cells(self.job.current, holdouts)
        if self.job.base:
            return "base", self.measurement.cells(self.job.base, holdouts)
        trained_on = self.measurement.texts(snapshot.path for snapshot in self.job.candidate.ancestry)
        nats_of_byte = unigram_nats(document.text for path in trained_on for document in read_documents(path))
        stand_in = self.job.candidate.model_copy(update={"digest": digest_of(repr(nats_of_byte))})
        return "unigram", {
            holdout.digest: unigram_cell(
                nats_of_byte, self.measurement.segments(holdout), self.matrix.key(stand_in, holdout)
            )
            for holdout in holdouts
        }

    def _noise_floor(self) -> float:
        """Return by how much ln(b) of the current revision on the own anchor changes when it is scored again.

        On a CPU scoring gives the same bits every time (tests/trainer/evaluation), so it is 0 there.
        """
        if self.matrix.device == "cpu":
            return 0.0
        model, anchor = self.job.current or self.job.candidate, self.job.comparisons[0].holdout
        first = self.measurement.cells(model, [anchor])[anchor.digest]
        (again,) = self.measurement.scored(model, [anchor])
        return abs(float(np.log(again.nats_S / first.nats_S).mean()))

    def _accuracies(self, absent: dict[str, str]) -> dict[str, Any]:
        """Return the report's fields on evaluators: accuracies, reasons for absent ones, and those left to a grader."""
        found, ungraded, opponent = [], [], self.job.opponent
        for tasks in self.job.tasks:
            try:
                own = self.measurement.answers(self.job.candidate, tasks)
                others = self.measurement.answers(opponent, tasks) if opponent else None
            except Absent as reason:
                absent = absent | {f"accuracy.{tasks.evaluator}": str(reason)}
                continue
            if own.right is None:
                ungraded.append(tasks.evaluator)
                continue
            compared = Judged(others, others.right or ()) if others else None
            judged = Judged(own, own.right)
            found.append(weigh_answers(tasks.evaluator, judged, compared, self.job.against))
        return {"accuracies": tuple(found), "absent": absent, "ungraded": tuple(ungraded)}

    def _column(self, holdout: HoldoutRef, candidate: Cells, opponent: Cells, base: Cells) -> Column:
        tainted = self.measurement.tainted(holdout)
        all_cells = [
            cells[holdout.digest] for cells in (candidate, opponent, base) if holdout.digest in cells
        ]
        unreadable = frozenset(number for cell in all_cells for number in cell.unreadable)

        def clean(cells: Cells) -> Scored | None:
            cell = cells.get(holdout.digest)
            return Scored.clean(cell, tainted, unreadable) if cell else None

        return Column(
            holdout=holdout,
            candidate=Scored.clean(candidate[holdout.digest], tainted, unreadable),
            opponent=clean(opponent),
            base=clean(base),
            tainted=len(tainted),
        )
