"""``moe-trainer matrix``: fill the full matrix of a pool, every model on the anchor of every domain, and write it as a table.

    verify every digest → fill stale cells, one model after the other → leave out tainted clusters → write matrix.json

A cell that was filled before is not computed again, so usually only models and domains that are new cost anything. The same
cells give the same bytes.
"""

from contextlib import ExitStack

from pydantic import Field

from moe_formats import store
from moe_formats.format import Format, digest_of
from moe_formats.job_config import ArtefactRef, ExpertRef, HoldoutRef, MatrixJob
from moe_formats.job_report import Interval, MatrixHeadline
from moe_trainer.environment import Environment
from moe_trainer.evaluation import scores
from moe_trainer.evaluation.matrix import Cell
from moe_trainer.evaluation.scores import Absences, Scored
from moe_trainer.evaluation.segments import scorer_version
from moe_trainer.measurement import Measurement
from moe_trainer.storage.committed import Committed
from moe_trainer.storage.committing import new_folder
from moe_trainer.storage.files import write_file

MATRIX = "matrix.json"


class Entry(Format):
    """One model on the anchor of one domain."""

    expert: str = Field(description="Name of the Expert.")
    revision: str = Field(description="Name of its revision.")
    domain: str = Field(description="Domain of the anchor.")
    anchor_of: str = Field(description="Name of the Expert whose first holdout it is.")
    bits_per_byte: Interval | None = Field(
        default=None, description="Bits per byte with its 95 % interval. Absent if it could not be computed."
    )
    absent: str | None = Field(default=None, description="Why bitsPerByte is absent.")


class FullMatrix(Format):
    """The content of ``matrix.json``: bits per byte of every model on the anchor of every domain."""

    scorer: str = Field(description="Version of segments and scoring; part of every cell's identity.")
    device: str
    entries: tuple[Entry, ...] = Field(description="By model, then by domain.")


def run(job: MatrixJob, environment: Environment) -> MatrixHeadline:
    """Fill the matrix and commit the table.

    Raises JobError (ArtefactCorrupt) if a model, holdout or snapshot is gone or is not what its digest says.
    """
    measurement = Measurement(job.pool_uid, job.segment_bytes, environment)
    with ExitStack() as folders:
        measurement.open(folders, job.models, job.suite, trained_on=job.trained_on)
        tainted = {holdout.digest: measurement.tainted(holdout) for holdout in job.suite}
        entries = tuple(
            _entry(expert, model, holdout, cells[holdout.digest], tainted[holdout.digest])
            for expert, model in zip(job.experts, job.models, strict=True)
            for cells in (measurement.cells(model, job.suite),)
            for holdout in job.suite
        )
    table = FullMatrix(
        scorer=scorer_version(job.segment_bytes), device=measurement.matrix.device, entries=entries
    )
    text = table.to_json().encode()
    folder = store.matrix(job.pool_uid, digest_of(text))
    with new_folder(environment.store, folder, "matrix") as working:
        write_file(working / MATRIX, text)
    with Committed(environment.store, folder) as held:  # the same table may have been committed before
        held.verify()
    return MatrixHeadline(
        path=f"{folder}/{MATRIX}",
        digest=digest_of(text),
        cells=len(entries),
        absent=sum(entry.bits_per_byte is None for entry in entries),
    )


def _entry(
    expert: ExpertRef, model: ArtefactRef, holdout: HoldoutRef, cell: Cell, tainted: frozenset[str]
) -> Entry:
    absent = Absences()
    bits = absent.note("bitsPerByte", lambda: scores.bits_per_byte(Scored.clean(cell, tainted)))
    return Entry(
        expert=expert.name,
        revision=model.revision,
        domain=holdout.domain or "",
        anchor_of=holdout.expert,
        bits_per_byte=bits,
        absent=absent.reasons.get("bitsPerByte"),
    )
