"""A run's data: its snapshot, and what is rehearsed and replayed of others, as token streams that every process maps.

The first process writes them, once for all attempts; the others wait for it.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from moe_formats import store
from moe_formats.failure import JobError
from moe_formats.format import Digest
from moe_formats.job_config import SnapshotRef, TrainJob
from moe_trainer.parallel.processes import Processes, first_alone
from moe_trainer.snapshots.layout import Document, SnapshotRecord, read_documents, read_record
from moe_trainer.storage.committed import opened
from moe_trainer.storage.files import drop
from moe_trainer.storage.manifest import corrupt
from moe_trainer.streaming.rehearsal import Rehearsal
from moe_trainer.streaming.replay import Replay, registry_seen
from moe_trainer.streaming.tokens import Planned, Streams, open_streams, write_streams
from moe_trainer.text.tokenizer import Tokenizer

#: An upper bound of a token's mean number of bytes in any tokenizer, to estimate how much text a run reads.
BYTES_PER_TOKEN = 8


def read_data(
    job: TrainJob, root: Path, tokenizer: Tokenizer, processes: Processes, inputs: Digest
) -> Streams:
    """Return the run's streams; ``inputs`` is the digest of everything that determines the run's bits.

    Raises JobError: ArtefactCorrupt for a damaged snapshot, InvalidConfig for replay without text of a base,
    DataEmpty for a stream without a token, or a snapshot to rehearse along with that has nothing new.
    """
    path = f"{tokens_folder(job)}/{store.short(inputs)}"
    first_alone(processes, lambda alive: _write(job, root, tokenizer, path, alive))
    return open_streams(root, path)


def tokens_folder(job: TrainJob) -> str:
    """Return the folder of a revision's tokens, which is no longer needed once the revision is trained."""
    return store.revision(job.pool_uid, job.expert.uid, job.inputs_digest) + "/tokens"


def drop_tokens(job: TrainJob, root: Path) -> None:
    """Remove the tokens that ``read_data`` wrote."""
    drop(root, tokens_folder(job))


def _write(job: TrainJob, root: Path, tokenizer: Tokenizer, path: str, alive: Callable[[], None]) -> None:
    with ExitStack() as folders:
        snapshot = folders.enter_context(_opened(job.data, root))
        _write_from(snapshot, job, root, tokenizer, path, folders, alive)


def _write_from(
    snapshot: Path,
    job: TrainJob,
    root: Path,
    tokenizer: Tokenizer,
    path: str,
    folders: ExitStack,
    alive: Callable[[], None],
) -> None:
    record = read_record(snapshot)
    share = 1 - job.training.replay_share
    rehearsal = _rehearsal(job, root, snapshot, folders) if job.rehearsal else None
    added: list[tuple[Planned, Rehearsal | Replay]] = []
    if rehearsal is not None and job.rehearsal is not None and job.rehearsal.share:
        added.append((Planned("rehearsal", share * job.rehearsal.share, rehearsed=True), rehearsal))
        share *= 1 - job.rehearsal.share
    own = _own_streams(record, share, rehearsal.sources() if rehearsal and record.weights else None)
    numbers = {planned.source: number for number, planned in enumerate(own)}
    replay = _replay(job, root, snapshot, record, folders) if job.training.replay_share else None
    if replay is not None:
        added.append((Planned("replay", job.training.replay_share, replayed=True), replay))
    planned = [*own, *(stream for stream, _ in added)]

    def documents() -> Iterator[tuple[int, Document]]:
        for document in read_documents(snapshot) if rehearsal is None else rehearsal.new_documents():
            number = numbers.get(document.source)
            if number is not None:
                yield number, document
        for number, (_, text) in enumerate(added, start=len(own)):
            for document in text.documents():
                yield number, document

    excluded = replay.excluded if replay else {}
    write_streams(root, path, planned, documents(), tokenizer, excluded=excluded, alive=alive)


@contextmanager
def _opened(ref: SnapshotRef, root: Path) -> Iterator[Path]:
    with opened(root, ref.path) as folder:
        found = read_record(folder).digest
        if found != ref.digest:
            raise corrupt(folder, f"its data has digest {found}, not {ref.digest} as expected")
        yield folder


def _own_streams(
    record: SnapshotRecord, share: float, among: Collection[int | None] | None = None
) -> list[Planned]:
    """Return the streams of a snapshot: one per source with a weight, or one for all if no source has a weight.

    With ``among``, only sources that are in there have text to read.
    """
    if record.weights is None:
        return [Planned("data", share)]
    weights = [
        weight if among is None or number in among else 0.0 for number, weight in enumerate(record.weights)
    ]
    total = sum(weights)
    if not total:
        raise JobError(
            "DataEmpty",
            "data.sources: all new text is in sources of weight 0, so there is nothing to train on: raise a weight.",
        )
    return [
        Planned(f"source-{number}", share * weight / total, source=number)
        for number, weight in enumerate(weights)
        if weight
    ]


def _rehearsal(job: TrainJob, root: Path, snapshot: Path, folders: ExitStack) -> Rehearsal:
    """Return what is new in a snapshot and what is rehearsed: as much text as the run will read of it."""
    assert job.rehearsal is not None
    first = folders.enter_context(_opened(job.rehearsal.rehearsed, root))
    known = folders.enter_context(_opened(job.rehearsal.known, root))
    read = job.rehearsal.max_steps * job.training.batch_tokens * BYTES_PER_TOKEN
    return Rehearsal(snapshot, first, known, read * job.rehearsal.share)


def _replay(job: TrainJob, root: Path, own: Path, record: SnapshotRecord, folders: ExitStack) -> Replay:
    """Return the documents to replay: as much text as the run will read, or all if the base has less.

    The snapshots that they are read from stay open in ``folders``.
    """
    ours = store.expert(job.pool_uid, job.expert.uid) + "/"
    ancestry = job.parent.ancestry if job.parent else ()
    theirs = [ref for ref in ancestry if not ref.path.startswith(ours)]
    if not theirs:
        raise JobError(
            "InvalidConfig",
            f"data.replay.share is {job.training.replay_share}, but {job.expert.name} has no base that was trained in "
            "this pool, so there is no text to replay: remove data.replay, or take an Expert as base.",
        )
    registry = store.held_out_registry(job.pool_uid)
    until = registry_seen(root, f"{tokens_folder(job)}/registry.json", registry)
    share = job.training.replay_share
    own_bytes = record.train_bytes * job.training.max_epochs
    steps = job.rehearsal.max_steps if job.rehearsal else job.training.max_steps
    if steps is not None:
        own_bytes = steps * job.training.batch_tokens * BYTES_PER_TOKEN * (1 - share)
    snapshots = [folders.enter_context(_opened(ref, root)) for ref in theirs]
    return Replay(own, snapshots, root, registry, until, own_bytes * share / (1 - share))
