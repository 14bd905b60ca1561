"""``moe-trainer snapshot``: read the sources, filter, split off the holdout, commit the rest. No torch.

    read and filter    documents to a scratch file; per document only a hash and a signature stay in memory
    data digest        of the set of documents and the splitting rule: a snapshot that exists is reused
    place              each cluster on its side, for good (splitting.py)
    remember           held-out fingerprints to the pool's registry, places to the Expert's clusters
    window             the clusters that were never held out before become the newest window
    exclude            training documents that resemble anything held out in the pool
    commit             the training side

Each step can be killed and run again: what it wrote is found and kept. Snapshots of one pool must run
one at a time; the operator sees to that. A snapshot that is reused keeps the exclusions of its day: what
the pool has held out since then counts as seen by its readers (contamination.py).
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from moe_trainer import store
from moe_trainer.data import filters
from moe_trainer.data.content import Content
from moe_trainer.data.holdouts import (
    Known,
    append_to_registry,
    encoded,
    read_known,
    read_registry,
    read_windows,
    write_known,
    write_windows,
)
from moe_trainer.data.minhash import SCHEME, NearDuplicates, signature
from moe_trainer.data.roots import files_of
from moe_trainer.data.snapshot_layout import (
    DOCUMENTS,
    FINGERPRINTS,
    RECORD,
    REPORT,
    Document,
    Fingerprint,
    SnapshotRecord,
    read_documents,
    read_fingerprints,
    read_record,
)
from moe_trainer.data.sources import SourceCount, read_source
from moe_trainer.data.splitting import Fingerprinted, Member, assign, without_near_duplicates
from moe_trainer.environment import Environment
from moe_trainer.evaluators.tasks import freeze
from moe_trainer.failure import JobError
from moe_trainer.formats import Digest, canonical_json, digest_of
from moe_trainer.job_config import SnapshotJob
from moe_trainer.job_report import SnapshotHeadline, Window
from moe_trainer.manifest import is_committed, new_folder, read_manifest, sha256_of_file, verify

#: Windows report how many segments of this many bytes they hold.
SEGMENT_BYTES = 256


@dataclass
class Intake:
    """The documents of all sources: what they say in a scratch file, the rest in memory."""

    scratch: Path
    documents: dict[str, Fingerprinted] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    counts: list[SourceCount] = field(default_factory=list)

    def contents(self) -> Iterator[tuple[str, Content]]:
        """Yield (name, content) of the documents kept, in reading order."""
        with self.scratch.open(encoding="utf-8") as file:
            for line in file:
                name, _, content = line.partition(" ")
                if name in self.documents:
                    yield name, Content.model_validate_json(content)


def run(job: SnapshotJob, environment: Environment) -> SnapshotHeadline:
    """Make the snapshot of an Expert's data, or find the one that holds the same."""
    filters.check_filters(job.filters)
    tasks = tuple(freeze(source, job.pool_uid, environment) for source in job.evaluators)
    with tempfile.TemporaryDirectory(dir=environment.scratch) as scratch:
        intake = take_in(job, environment, Path(scratch) / "documents.jsonl")
        digest = data_digest(job, intake)
        folder = store.snapshot(job.pool_uid, job.expert.uid, digest)
        if is_committed(environment.store / folder):
            print(f"data {digest}: this snapshot exists already", flush=True)
        else:
            _make(job, intake, digest, environment.store)
    return headline(environment.store, folder).model_copy(update={"tasks": tasks})


def take_in(job: SnapshotJob, environment: Environment, scratch: Path) -> Intake:
    """Read every source, drop what filters and exact duplicates say, and sign the rest."""
    intake = Intake(scratch)
    with scratch.open("w", encoding="utf-8") as file:
        for source in job.sources:
            count = SourceCount(source)
            for content in read_source(files_of(source.root, environment), count):
                name, text = content.name(), content.text
                reason = "duplicate" if name in intake.documents else filters.dropped_by(job.filters, text)
                if reason:
                    intake.dropped[reason] += 1
                    continue
                intake.documents[name] = Fingerprinted(name, signature(text))
                file.write(f"{name} {content.to_json()}\n")
            count.check()
            intake.counts.append(count)
            intake.dropped.update(count.dropped)
            print(
                f"{source.root}/{source.path}: {count.files} files, {count.documents} documents", flush=True
            )
    threshold = filters.near_duplicate_threshold(job.filters)
    if threshold is not None:
        kept = without_near_duplicates(intake.documents.values(), threshold)
        intake.dropped["nearDuplicate"] += len(intake.documents) - len(kept)
        intake.documents = {name: document for name, document in intake.documents.items() if name in kept}
    return intake


def data_digest(job: SnapshotJob, intake: Intake) -> Digest:
    """Return the identity of the data: what is read and how it is split, before any exclusion."""
    rule = {"fraction": job.holdout.fraction, "salt": job.holdout.salt, "scheme": SCHEME}
    return digest_of(canonical_json({"documents": sorted(intake.documents), "split": rule}))


def headline(root: Path, folder: str) -> SnapshotHeadline:
    """Return what the operator is told about a committed snapshot."""
    verify(root / folder)
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


def _make(job: SnapshotJob, intake: Intake, digest: Digest, root: Path) -> None:
    known_path = root / store.clusters(job.pool_uid, job.expert.uid)
    known = read_known(known_path)
    places = assign(intake.documents.values(), known, job.holdout)
    for name, document in intake.documents.items():
        known[name] = (places[name], document.signature)
    registry = root / store.held_out_registry(job.pool_uid)
    append_to_registry(registry, _fingerprints(known, [n for n, (m, _) in known.items() if m.held_out]))
    write_known(known_path, known)
    windows = _add_window(job, intake, places, root)
    excluded = _excluded(intake, places, registry)
    _commit(job, intake, places, excluded, digest, windows, root)


def _add_window(job: SnapshotJob, intake: Intake, places: dict[str, Member], root: Path) -> list[Window]:
    """Return the Expert's windows, with a new one for clusters that none of them holds yet.

    A window of fewer than ``min_clusters`` clusters is provisional: it is too small to judge by, so the
    next window takes its documents over and its place in the list.
    """
    listed = root / store.windows(job.pool_uid, job.expert.uid)
    windows = read_windows(listed)
    held = {f.cluster for w in windows for f in read_fingerprints(root / w.path)}
    new = {n for n in intake.documents if places[n].held_out and places[n].cluster not in held}
    if windows and not new:
        return windows
    documents = {n: _document(content, places[n]) for n, content in intake.contents() if n in new}
    if windows and windows[-1].clusters < job.holdout.min_clusters:
        provisional = root / windows.pop().path
        documents |= {d.name(): d for d in read_documents(provisional)}
    windows.append(_commit_window(job, documents, root))
    write_windows(listed, windows)
    return windows


def _commit_window(job: SnapshotJob, documents: dict[str, Document], root: Path) -> Window:
    ordered = sorted(documents.items(), key=lambda item: (item[1].cluster, item[0]))
    content = "".join(document.to_json() + "\n" for _, document in ordered).encode()
    folder = store.holdout(job.pool_uid, job.expert.uid, digest_of(content))
    with new_folder(root / folder, "holdout") as working:
        (working / DOCUMENTS).write_bytes(content)
        prints = (
            Fingerprint(document=name, cluster=document.cluster, signature=encoded(signature(document.text)))
            for name, document in ordered
        )
        _write_lines(working / FINGERPRINTS, prints)
    return Window(
        path=folder,
        digest=read_manifest(root / folder)[1],
        clusters=len({document.cluster for document in documents.values()}),
        segments=sum(max(1, len(d.text.encode()) // SEGMENT_BYTES) for d in documents.values()),
    )


def _excluded(intake: Intake, places: dict[str, Member], registry: Path) -> set[str]:
    """Return the training documents that resemble a document held out anywhere in the pool."""
    held_out = NearDuplicates()
    for fingerprint in read_registry(registry).values():
        held_out.add(fingerprint.document, fingerprint.signature_bytes())
    return {
        name
        for name, document in intake.documents.items()
        if not places[name].held_out and held_out.like(document.signature)
    }


def _commit(
    job: SnapshotJob,
    intake: Intake,
    places: dict[str, Member],
    excluded: set[str],
    digest: Digest,
    windows: list[Window],
    root: Path,
) -> None:
    """Commit the training side."""
    kept = [n for n in intake.documents if not places[n].held_out and n not in excluded]
    intake.dropped["heldOutElsewhere"] += len(excluded)
    if not kept:
        raise JobError(
            "DataEmpty",
            f"no document is left to train on, of {sum(c.documents for c in intake.counts)} read: "
            f"{_in_words(intake.dropped)}, the rest held out. Loosen spec.data.filters or add data.",
        )
    training = set(kept)
    folder = root / store.snapshot(job.pool_uid, job.expert.uid, digest)
    with new_folder(folder, "snapshot") as working:
        size = 0
        with (working / DOCUMENTS).open("w", encoding="utf-8") as file:
            for name, content in intake.contents():
                if name in training:
                    file.write(_document(content, places[name]).to_json() + "\n")
                    size += len(content.text.encode())
        known: Known = {n: (places[n], intake.documents[n].signature) for n in kept}
        _write_lines(working / FINGERPRINTS, _fingerprints(known, kept))
        record = SnapshotRecord(
            digest=digest,
            scheme=SCHEME,
            documents=len(kept),
            train_bytes=size,
            dropped={reason: number for reason, number in sorted(intake.dropped.items()) if number},
            anchor=windows[0],
            newest=windows[-1] if len(windows) > 1 else None,
        )
        (working / RECORD).write_text(record.to_json())
        (working / REPORT).write_text(_report(job, intake, record))
    print(f"snapshot {digest}: {len(kept)} documents, {size} bytes to train on", flush=True)


def _report(job: SnapshotJob, intake: Intake, record: SnapshotRecord) -> str:
    sources = [
        {
            "source": count.source.model_dump(mode="json", by_alias=True),
            "files": count.files,
            "documents": count.documents,
            "dropped": dict(count.dropped),
            "examples": count.examples,
        }
        for count in intake.counts
    ]
    snapshot = record.model_dump(mode="json", by_alias=True, exclude_none=True)
    asked = job.model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps({"job": asked, "snapshot": snapshot, "sources": sources}, indent=1, sort_keys=True)


def _document(content: Content, member: Member) -> Document:
    return Document(cluster=member.cluster, text=content.text, turns=content.turns)


def _fingerprints(known: Known, names: list[str]) -> Iterator[Fingerprint]:
    for name in sorted(names):
        member, signed = known[name]
        yield Fingerprint(document=name, cluster=member.cluster, signature=encoded(signed))


def _write_lines(path: Path, entries: Iterator[Fingerprint]) -> None:
    path.write_text("".join(entry.to_json() + "\n" for entry in entries))


def _in_words(dropped: Counter[str]) -> str:
    return (
        ", ".join(f"{number} dropped as {reason}" for reason, number in dropped.most_common() if number)
        or "none dropped"
    )
