"""``moe-trainer snapshot``: read the sources, filter, split off the holdout, commit the rest. No torch.

    read and filter    documents to a scratch file, signatures to another (snapshots/intake.py)
    data digest        of the set of documents and the splitting rule: a snapshot that exists is reused
    place              each cluster on its side, for good (snapshots/splitting.py)
    remember           held-out fingerprints to the pool's registry, places to the Expert's clusters
    window             the clusters that were never held out before become the newest window
    exclude            training documents that resemble anything held out in the pool
    commit             the training side

Each step can be killed and run again: what it wrote is found and kept. Snapshots of one pool must run
one at a time; the operator sees to that. A snapshot that is reused keeps the exclusions of its day: what
the pool has held out since then counts as seen by its readers (evaluation/segments.py).
"""

import hashlib
import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moe_formats import context_length, store
from moe_formats.failure import JobError
from moe_formats.format import Digest, canonical_json, digest_of
from moe_formats.job_config import SnapshotJob
from moe_formats.job_report import SnapshotHeadline, Window
from moe_trainer.deduplication.catalogue import Rows, digits_one_by_one
from moe_trainer.deduplication.fingerprints import (
    Fingerprint,
    Placement,
    fingerprint_lines,
    read_fingerprints,
    read_registry,
    take_up,
)
from moe_trainer.deduplication.minhash import SCHEME, THRESHOLD
from moe_trainer.deduplication.near_duplicates import Mask, Resembling, search
from moe_trainer.deduplication.sorting import by_name
from moe_trainer.environment import Environment
from moe_trainer.evaluators.tasks import freeze
from moe_trainer.hugging_face.importing import import_base
from moe_trainer.snapshots import filters, windows
from moe_trainer.snapshots.holdouts import (
    append_to_registry,
    read_clusters,
    read_windows,
    write_clusters,
    write_windows,
)
from moe_trainer.snapshots.intake import Intake
from moe_trainer.snapshots.layout import (
    DOCUMENTS,
    FINGERPRINTS,
    RECORD,
    REPORT,
    SnapshotRecord,
    document_line,
    read_record,
)
from moe_trainer.snapshots.splitting import assign
from moe_trainer.storage.manifest import is_committed, new_folder, sha256_of_file, verify


def run(job: SnapshotJob, environment: Environment) -> SnapshotHeadline:
    """Make the snapshot of an Expert's data, or find the one that holds the same."""
    filters.check_filters(job.filters)
    _check_weights(job)
    context_length.check(
        context_length.shortfall_of_sequences(job.context_tokens, job.segment_bytes),
        context_length.shortfall_of_preset(job.preset, job.segment_bytes),
    )
    if job.base is not None:
        import_base(job.base, job.pool_uid, job.segment_bytes, environment)
    tasks = tuple(freeze(source, job.pool_uid, environment) for source in job.evaluators)
    with tempfile.TemporaryDirectory(dir=environment.scratch) as scratch:
        intake = Intake(Path(scratch))
        with intake.catalogue:
            intake.read(job, environment)
            digest = data_digest(job, intake)
            folder = store.snapshot(job.pool_uid, job.expert.uid, digest)
            if is_committed(environment.store / folder):
                print(f"data {digest}: this snapshot exists already", flush=True)
                verify(environment.store / folder)
            else:
                _make(job, intake, digest, environment.store, Path(scratch))
    return headline(environment.store, folder).model_copy(update={"tasks": tasks})


def data_digest(job: SnapshotJob, intake: Intake) -> Digest:
    """Return the identity of the data: what is read and how it is split, before any exclusion.

    It is the digest of canonical JSON: {"documents": [names, sorted], "split": rule}, and where sources have weights
    also "weights": [weights, digests of each source's names].
    """
    names = intake.names
    names.sort()
    digest = hashlib.sha256(b'{"documents":[')
    for number, name in enumerate(digits_one_by_one(names)):
        digest.update(f'{"," if number else ""}"{name}"'.encode())
    rule = {"fraction": job.holdout.fraction, "salt": job.holdout.salt, "scheme": SCHEME}
    digest.update(f'],"split":{canonical_json(rule)}'.encode())
    if (weights := _weights(job)) is not None:
        digest.update(f',"weights":{canonical_json([weights, _by_source(intake, len(weights))])}'.encode())
    digest.update(b"}")
    return "sha256:" + digest.hexdigest()


def _by_source(intake: Intake, sources: int) -> list[Digest]:
    """Return the digest of the names of each source's documents."""
    of_kept = intake.sources[intake.kept]
    return [digest_of(np.sort(intake.names[of_kept == number]).tobytes()) for number in range(sources)]


def _weights(job: SnapshotJob) -> tuple[float, ...] | None:
    """Return the weight of each source; None where no source has one."""
    weights = [source.weight for source in job.sources]
    if all(weight is None for weight in weights):
        return None
    return tuple(1.0 if weight is None else weight for weight in weights)


def _check_weights(job: SnapshotJob) -> None:
    if _weights(job) is not None and not any(_weights(job) or ()):
        raise JobError(
            "InvalidConfig",
            "spec.data.sources: all weights are 0, so there is nothing to train on: raise one.",
        )


def headline(root: Path, folder: str) -> SnapshotHeadline:
    """Return what the operator is told about a committed snapshot."""
    record = read_record(root / folder)
    return SnapshotHeadline(
        report="sha256:" + sha256_of_file(root / folder / REPORT),
        path=folder,
        digest=record.digest,
        documents=record.documents,
        train_bytes=record.train_bytes,
        dropped=record.dropped,
        anchor=record.anchor,
        newest=record.newest,
    )


def _make(job: SnapshotJob, intake: Intake, digest: Digest, root: Path, scratch: Path) -> None:
    places, seen = _place(job, intake, root)
    registry = root / store.held_out_registry(job.pool_uid)
    append_to_registry(registry, intake.catalogue, seen[places.held_out[seen]], places)
    write_clusters(root / store.clusters(job.pool_uid, job.expert.uid), intake.catalogue, seen, places)
    found = _add_window(job, intake, places, root, scratch)
    training = intake.kept[~places.held_out[intake.kept]]
    excluded = _like_held_out(intake, training, registry)
    _commit(job, intake, places, training[~excluded], digest, found, root)


def _place(job: SnapshotJob, intake: Intake, root: Path) -> tuple[Placement, Rows]:
    """Return the places of all rows, and the rows of every document that the Expert has ever seen, once each."""
    known, known_places = read_clusters(root / store.clusters(job.pool_uid, job.expert.uid), intake.catalogue)
    places = Placement.nowhere(len(intake.catalogue))
    places.put(known, known_places)
    is_known = np.zeros(len(intake.catalogue), dtype=np.bool_)
    is_known[known] = True
    fresh = intake.kept[~is_known[intake.kept]]
    places.put(fresh, assign(intake.catalogue, fresh, known, known_places, job.holdout))
    return places, np.concatenate((fresh, known))


def _add_window(
    job: SnapshotJob, intake: Intake, places: Placement, root: Path, scratch: Path
) -> list[Window]:
    """Return the Expert's windows, with a new one for clusters that none of them holds yet.

    A window of fewer than ``min_clusters`` clusters is provisional: it is too small to judge by, so the
    next window takes its documents over and its place in the list.
    """
    listed = root / store.windows(job.pool_uid, job.expert.uid)
    found = read_windows(listed)
    held = _clusters_of(found, root)
    rows = intake.kept[places.held_out[intake.kept]]
    new = rows[~np.isin(places.clusters[rows], held)]
    if found and not len(new):
        return found
    documents = [windows.of_rows(intake, new, places)]
    if found and found[-1].clusters < job.holdout.min_clusters:
        documents.append(windows.of_window(root / found.pop().path))
    window = windows.commit_window(
        documents,
        job.segment_bytes,
        scratch / "window",
        root,
        lambda digest: store.holdout(job.pool_uid, job.expert.uid, digest),
    )
    write_windows(listed, [*found, window])
    return [*found, window]


def _clusters_of(found: list[Window], root: Path) -> NDArray[np.bytes_]:
    ids = bytearray()
    for window in found:
        for fingerprint in read_fingerprints(root / window.path / FINGERPRINTS, Fingerprint):
            ids += bytes.fromhex(fingerprint.cluster)
    return np.unique(np.frombuffer(ids, dtype="S8"))


def _like_held_out(intake: Intake, training: Rows, registry: Path) -> Mask:
    """Return which training documents resemble a document held out anywhere in the pool."""
    held_out, _ = take_up(intake.catalogue, read_registry(registry))
    rows = np.concatenate((training, held_out))
    resembling = Resembling(rows >= len(intake.sizes))
    search(intake.catalogue, rows, THRESHOLD, resembling)
    return resembling.found[: len(training)]


def _commit(
    job: SnapshotJob,
    intake: Intake,
    places: Placement,
    training: Rows,
    digest: Digest,
    found: list[Window],
    root: Path,
) -> None:
    """Commit the training side."""
    held_out = int(places.held_out[intake.kept].sum())
    if excluded := len(intake.kept) - held_out - len(training):
        intake.dropped["heldOutElsewhere"] = excluded
    if not len(training):
        raise JobError(
            "DataEmpty",
            f"no document is left to train on, of {sum(c.documents for c in intake.counts)} read: "
            f"{_in_words(intake.dropped)}, the rest held out. Loosen spec.data.filters or add data.",
        )
    wanted = np.zeros(len(intake.sizes), dtype=np.bool_)
    wanted[training] = True
    weights = _weights(job)
    _check_every_source(job, weights, intake.sources[training])
    folder = root / store.snapshot(job.pool_uid, job.expert.uid, digest)
    with new_folder(folder, "snapshot") as working:
        with (working / DOCUMENTS).open("wb") as file:
            for (row, content), cluster in zip(
                intake.lines(wanted), digits_one_by_one(places.clusters[training]), strict=True
            ):
                file.write(document_line(cluster, content, int(intake.sources[row]) if weights else None))
        ordered = by_name(intake.catalogue.names, training)
        with (working / FINGERPRINTS).open("wb") as file:
            file.writelines(fingerprint_lines(intake.catalogue, ordered, places))
        record = SnapshotRecord(
            digest=digest,
            scheme=SCHEME,
            documents=len(training),
            train_bytes=int(intake.sizes[training].sum()),
            dropped=dict(sorted(intake.dropped.items())),
            weights=weights,
            anchor=found[0],
            newest=found[-1] if len(found) > 1 else None,
        )
        (working / RECORD).write_text(record.to_json())
        (working / REPORT).write_text(_report(job, intake, record, intake.sources[training]))
    print(
        f"snapshot {digest}: {record.documents} documents, {record.train_bytes} bytes to train on", flush=True
    )


def _check_every_source(
    job: SnapshotJob, weights: tuple[float, ...] | None, sources: NDArray[np.int16]
) -> None:
    """Raise JobError (DataEmpty) for a source that has a weight and no document to train on."""
    for number, (source, weight) in enumerate(zip(job.sources, weights or (), strict=False)):
        if weight and not (sources == number).any():
            raise JobError(
                "DataEmpty",
                f"spec.data.sources[{number}] ({source.root}/{source.path}) has weight {weight}, but no document of it "
                "is left to train on: all are dropped, held out, or in a source before it. Give it weight 0 or remove it.",
            )


def _report(job: SnapshotJob, intake: Intake, record: SnapshotRecord, trained: NDArray[np.int16]) -> str:
    """Return the report for people; ``trained`` is the number of the source of each document to train on."""
    sources = [
        {
            "source": count.source.model_dump(mode="json", by_alias=True),
            "files": count.files,
            "documents": count.documents,
            "dropped": dict(count.dropped),
            "examples": count.examples,
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
