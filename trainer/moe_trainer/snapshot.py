"""``moe-trainer snapshot``: read the sources, filter, split off the holdout, commit the rest. No torch.

    read and filter    write documents to a scratch file, signatures to another (snapshots/intake.py)
    judge              refuse a delivery that exceeds a limit, before anything is stored (snapshots/delivery.py)
    data digest        identify the set of documents and the splitting rule; an existing snapshot is reused
    place              decide for each cluster whether it is held out, permanently (snapshots/splitting.py)
    remember           add held-out fingerprints to the pool's registry, and placements to the Expert's clusters
    window             make clusters that are held out for the first time the newest window
    exclude            leave out training documents that resemble anything held out in the pool
    commit             write the training side

Each step can be killed and run again: what it wrote before is found and kept. Snapshots of one pool must run one at a
time; the operator ensures that. A reused snapshot keeps the exclusions from when it was made: what the pool has held
out since then counts as seen by models that were trained on it (evaluation/segments.py).
"""

import hashlib
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moe_formats import context_length, store
from moe_formats.failure import JobError
from moe_formats.format import Digest, canonical_json, digest_of
from moe_formats.job_config import SnapshotJob
from moe_formats.job_report import SnapshotHeadline, Unreadable, Window
from moe_trainer.deduplication.catalogue import Rows, digits_one_by_one
from moe_trainer.deduplication.fingerprints import (
    Placement,
    read_fingerprints,
    read_registry,
    take_up,
)
from moe_trainer.deduplication.minhash import THRESHOLD
from moe_trainer.deduplication.near_duplicates import Mask, Resembling, search
from moe_trainer.environment import Environment
from moe_trainer.evaluation.round_trip import unreadable
from moe_trainer.evaluation.segments import cut
from moe_trainer.evaluators.tasks import freeze
from moe_trainer.hugging_face.importing import import_base, stored_tokenizer
from moe_trainer.methods.adapter import checkpoint_of
from moe_trainer.snapshots import filters, windows
from moe_trainer.snapshots.delivery import check_delivery
from moe_trainer.snapshots.holdouts import (
    append_to_registry,
    read_clusters,
    read_windows,
    record_scheme,
    scheme_of,
    write_clusters,
    write_windows,
)
from moe_trainer.snapshots.intake import Intake
from moe_trainer.snapshots.layout import (
    FINGERPRINTS,
    RECORD,
    REPORT,
    SnapshotRecord,
    read_documents,
)
from moe_trainer.snapshots.splitting import assign
from moe_trainer.snapshots.training_side import commit_training_side, source_weights
from moe_trainer.storage.committed import Committed, opened
from moe_trainer.storage.committing import is_committed
from moe_trainer.text.tokenizer import Tokenizer


def run(job: SnapshotJob, environment: Environment) -> SnapshotHeadline:
    """Make the snapshot of an Expert's data, or find an existing one of the same data; return its headline."""
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
        intake = Intake(Path(scratch), scheme_of(environment.store, job.pool_uid, job.new_pool_scheme))
        with intake.catalogue:
            intake.read(job, environment)
            check_delivery(job, intake, environment.store)
            digest = data_digest(job, intake)
            folder = store.snapshot(job.pool_uid, job.expert.uid, digest)
            if is_committed(environment.store, folder):
                print(f"data {digest}: this snapshot exists already", flush=True)
                with Committed(environment.store, folder) as held:
                    held.verify()
            else:
                _make(job, intake, digest, environment.store, Path(scratch))
    made = headline(environment.store, folder)
    return made.model_copy(update={"tasks": tasks, "unreadable": _unreadable(job, made, environment)})


def _unreadable(job: SnapshotJob, made: SnapshotHeadline, environment: Environment) -> Unreadable | None:
    """Return what of the newest holdout cannot be measured with the base's tokenizer: it is found before training is paid for.

    If the base is another Expert, its tokenizer may be impossible to read, which that Expert says itself; here it only
    means that the tokenizer could not be tried.
    """
    if job.base is None and job.root_base is None and job.base_artefact is None:
        return None
    window = made.newest or made.anchor
    with opened(environment.store, window.path, window.digest) as holdout:
        segments = cut(read_documents(holdout), job.segment_bytes)
    try:
        found = unreadable(_tokenizer(job, environment), segments)
    except JobError as error:
        if error.retryable or job.base is not None:
            raise
        found = Unreadable(segments=0, of=len(segments), why=error.message[:300])
    if found is not None:
        what = "cannot be measured" if found.segments else "could be tried"
        print(f"{found.segments} of {found.of} held-out segments {what}: {found.why}", flush=True)
    return found


def _tokenizer(job: SnapshotJob, environment: Environment) -> Tokenizer:
    """Return the tokenizer of the base, whatever that is."""
    if (base := job.base_artefact) is not None:
        return stored_tokenizer(environment.store, *checkpoint_of(environment.store, base.path, base.digest))
    checkpoint = job.base or job.root_base
    assert checkpoint is not None
    import_base(checkpoint, job.pool_uid, job.segment_bytes, environment)
    path = store.imported(job.pool_uid, checkpoint.digest)
    return stored_tokenizer(environment.store, path, checkpoint.digest)


def data_digest(job: SnapshotJob, intake: Intake) -> Digest:
    """Return the identity of the data: which documents were read and how they are split, before any exclusion.

    It is the digest of the canonical JSON {"documents": [sorted names], "split": rule}; if sources have weights, also
    with "weights": [weights, digest of each source's names].
    """
    names = intake.names
    names.sort()
    digest = hashlib.sha256(b'{"documents":[')
    for number, name in enumerate(digits_one_by_one(names)):
        digest.update(f'{"," if number else ""}"{name}"'.encode())
    rule = {"fraction": job.holdout.fraction, "salt": job.holdout.salt, "scheme": intake.scheme}
    digest.update(f'],"split":{canonical_json(rule)}'.encode())
    if (weights := source_weights(job)) is not None:
        digest.update(f',"weights":{canonical_json([weights, _by_source(intake, len(weights))])}'.encode())
    digest.update(b"}")
    return "sha256:" + digest.hexdigest()


def _by_source(intake: Intake, sources: int) -> list[Digest]:
    """Return, for each source, the digest of its documents' names."""
    of_kept = intake.sources[intake.kept]
    return [digest_of(np.sort(intake.names[of_kept == number]).tobytes()) for number in range(sources)]


def _check_weights(job: SnapshotJob) -> None:
    if source_weights(job) is not None and not any(source_weights(job) or ()):
        raise JobError(
            "InvalidConfig",
            "spec.data.sources: all weights are 0, so there is nothing to train on: raise one.",
        )


def headline(root: Path, folder: str) -> SnapshotHeadline:
    """Return the headline of a committed snapshot."""
    with Committed(root, folder) as held:
        record = SnapshotRecord.model_validate_json(held.read(RECORD))
        report = digest_of(held.read(REPORT))
    return SnapshotHeadline(
        report=report,
        path=folder,
        digest=record.digest,
        documents=record.documents,
        train_bytes=record.train_bytes,
        dropped=record.dropped,
        anchor=record.anchor,
        newest=record.newest,
    )


def _make(job: SnapshotJob, intake: Intake, digest: Digest, root: Path, scratch: Path) -> None:
    record_scheme(root, job.pool_uid, intake.scheme)
    places, seen = _place(job, intake, root)
    registry = store.held_out_registry(job.pool_uid)
    append_to_registry(root, registry, intake.catalogue, seen[places.held_out[seen]], places)
    clusters = store.clusters(job.pool_uid, job.expert.uid)
    write_clusters(root, clusters, intake.catalogue, seen, places, intake.scheme)
    found = _add_window(job, intake, places, root, scratch)
    training = intake.kept[~places.held_out[intake.kept]]
    excluded = _like_held_out(intake, training, root, registry)
    commit_training_side(job, intake, places, training[~excluded], digest, found, root)


def _place(job: SnapshotJob, intake: Intake, root: Path) -> tuple[Placement, Rows]:
    """Return the placement of all rows, and the rows of all documents that the Expert has ever seen, each once."""
    clusters = store.clusters(job.pool_uid, job.expert.uid)
    known, known_places = read_clusters(root, clusters, intake.catalogue, intake.scheme)
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
    """Return the Expert's windows, with a new one for clusters that are in none of them yet.

    A window of fewer than ``min_clusters`` clusters is too small to decide by, so it is provisional: the next window
    takes over its documents and its place in the list.
    """
    listed = store.windows(job.pool_uid, job.expert.uid)
    found = read_windows(root, listed)
    held = _clusters_of(found, root)
    rows = intake.kept[places.held_out[intake.kept]]
    new = rows[~np.isin(places.clusters[rows], held)]
    if found and not len(new):
        return found
    documents = [windows.of_rows(intake, new, places)]
    if found and found[-1].clusters < job.holdout.min_clusters:
        documents.append(windows.of_window(root, found.pop()))
    window = windows.commit_window(
        documents,
        job.segment_bytes,
        scratch / "window",
        root,
        lambda digest: store.holdout(job.pool_uid, job.expert.uid, digest),
    )
    write_windows(root, listed, [*found, window])
    return [*found, window]


def _clusters_of(found: list[Window], root: Path) -> NDArray[np.bytes_]:
    ids = bytearray()
    for window in found:
        with opened(root, window.path, window.digest) as folder:
            for fingerprint in read_fingerprints(folder, FINGERPRINTS):
                ids += bytes.fromhex(fingerprint.cluster)
    return np.unique(np.frombuffer(ids, dtype="S8"))


def _like_held_out(intake: Intake, training: Rows, root: Path, registry: str) -> Mask:
    """Return which training documents resemble a document that is held out anywhere in the pool."""
    held_out, _ = take_up(intake.catalogue, read_registry(root, registry))
    rows = np.concatenate((training, held_out))
    resembling = Resembling(rows >= len(intake.sizes))
    search(intake.catalogue, rows, THRESHOLD, resembling)
    return resembling.found[: len(training)]
