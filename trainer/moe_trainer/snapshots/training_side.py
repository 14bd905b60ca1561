"""Committing the training side of a snapshot: its documents, their fingerprints, its record and its report."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moe_formats import store
from moe_formats.failure import JobError
from moe_formats.format import Digest
from moe_formats.job_config import SnapshotJob
from moe_formats.job_report import Window
from moe_trainer.deduplication.catalogue import Rows, digits_one_by_one
from moe_trainer.deduplication.fingerprints import Placement, fingerprint_lines
from moe_trainer.deduplication.sorting import by_name
from moe_trainer.snapshots.intake import Intake
from moe_trainer.snapshots.layout import (
    DOCUMENTS,
    FINGERPRINTS,
    RECORD,
    REPORT,
    SnapshotRecord,
    document_line,
)
from moe_trainer.storage.committing import new_folder
from moe_trainer.storage.files import write_file


def source_weights(job: SnapshotJob) -> tuple[float, ...] | None:
    """Return the weight of each source; None if no source has one."""
    weights = [source.weight for source in job.sources]
    if all(weight is None for weight in weights):
        return None
    return tuple(1.0 if weight is None else weight for weight in weights)


def commit_training_side(
    job: SnapshotJob,
    intake: Intake,
    places: Placement,
    training: Rows,
    digest: Digest,
    found: list[Window],
    root: Path,
) -> None:
    """Commit the documents to train on, with fingerprints, record and report; raises JobError (DataEmpty) if none is left."""
    held_out = int(places.held_out[intake.kept].sum())
    if excluded := len(intake.kept) - held_out - len(training):
        intake.dropped["heldOutElsewhere"] = excluded
    if not len(training):
        raise JobError(
            "DataEmpty",
            f"of {sum(c.documents for c in intake.counts)} documents read, none is left to train on: "
            f"{_in_words(intake.dropped)}, the rest held out. Loosen spec.data.filters or add data.",
        )
    wanted = np.zeros(len(intake.sizes), dtype=np.bool_)
    wanted[training] = True
    weights = source_weights(job)
    _check_every_source(job, weights, intake.sources[training])
    folder = store.snapshot(job.pool_uid, job.expert.uid, digest)
    with new_folder(root, folder, "snapshot") as working:
        with (working / DOCUMENTS).open("xb") as file:
            for (row, content), cluster in zip(
                intake.lines(wanted), digits_one_by_one(places.clusters[training]), strict=True
            ):
                file.write(document_line(cluster, content, int(intake.sources[row]) if weights else None))
        ordered = by_name(intake.catalogue.names, training)
        with (working / FINGERPRINTS).open("xb") as file:
            file.writelines(fingerprint_lines(intake.catalogue, ordered, places))
        record = SnapshotRecord(
            digest=digest,
            scheme=intake.scheme,
            documents=len(training),
            train_bytes=int(intake.sizes[training].sum()),
            dropped=dict(sorted(intake.dropped.items())),
            weights=weights,
            anchor=found[0],
            newest=found[-1] if len(found) > 1 else None,
        )
        write_file(working / RECORD, record.to_json())
        write_file(working / REPORT, _report(job, intake, record, intake.sources[training]))
    print(
        f"snapshot {digest}: {record.documents} documents, {record.train_bytes} bytes to train on", flush=True
    )


def _check_every_source(
    job: SnapshotJob, weights: tuple[float, ...] | None, sources: NDArray[np.int16]
) -> None:
    """Raise JobError (DataEmpty) for a source with a weight but without a document to train on."""
    for number, (source, weight) in enumerate(zip(job.sources, weights or (), strict=False)):
        if weight and not (sources == number).any():
            raise JobError(
                "DataEmpty",
                f"spec.data.sources[{number}] ({source.root}/{source.path}) has weight {weight}, but no document of it "
                "is left to train on: all are dropped, held out, or in a source before it. Give it weight 0 or remove it.",
            )


def _report(job: SnapshotJob, intake: Intake, record: SnapshotRecord, trained: NDArray[np.int16]) -> str:
    """Return the report for people; ``trained`` has the source's number for each document to train on."""
    sources = [
        {
            "source": count.source.model_dump(mode="json", by_alias=True),
            "files": count.files,
            "documents": count.documents,
            "dropped": dict(count.dropped),
            "examples": count.examples,
            "fieldsPassedOver": dict(count.passed_over),
            "trained": int((trained == number).sum()),
        }
        for number, count in enumerate(intake.counts)
    ]
    snapshot = record.model_dump(mode="json", by_alias=True, exclude_none=True)
    asked = job.model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps({"job": asked, "snapshot": snapshot, "sources": sources}, indent=1, sort_keys=True)


def _in_words(dropped: Counter[str]) -> str:
    return (
        ", ".join(f"{number} dropped as {reason}" for reason, number in dropped.most_common() if number)
        or "none dropped"
    )
