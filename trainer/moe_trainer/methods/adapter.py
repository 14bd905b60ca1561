"""The record of an adapter, and verifying an adapter together with its base. Imports no torch.

Nothing is read by the path of an artefact: only what its manifest lists (storage/committed.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field

from moe_formats.failure import JobError
from moe_formats.format import Digest, Format
from moe_formats.job_config import ArtefactRef
from moe_formats.training_spec import MethodName
from moe_trainer.storage.committed import Committed, opened
from moe_trainer.storage.manifest import corrupt, read_format

#: An artefact with this file is an adapter.
ADAPTER = "adapter.json"


class AdapterRecord(Format):
    """What is needed to make an adapter a model again."""

    method: MethodName
    base: ArtefactRef = Field(description="The checkpoint beside which it was trained; it fits no other.")


def read(store: Path, path: str, digest: Digest) -> AdapterRecord | None:
    """Return the record of an adapter, which is verified; None for a checkpoint. No other file is verified here.

    Raises JobError (ArtefactCorrupt).
    """
    with Committed(store, path, digest) as held:
        if ADAPTER not in held.manifest.files:
            return None
        return read_format(held.show(), ADAPTER, AdapterRecord)


def verify(store: Path, path: str, digest: Digest) -> AdapterRecord | None:
    """Check every byte of an artefact, and of the base if it is an adapter; return the adapter's record, else None.

    Raises JobError (ArtefactCorrupt).
    """
    record = read(store, path, digest)
    with opened(store, path, digest):
        if record is None:
            return None
    with needing_base(store / path, record), opened(store, record.base.path, record.base.digest):
        return record


@contextmanager
def needing_base(folder: Path, record: AdapterRecord) -> Iterator[None]:
    """Turn an error in the base into one that names the adapter that needs this base and fits no other."""
    try:
        yield
    except JobError as error:
        raise corrupt(
            folder,
            f"it is an adapter for {record.base.revision} ({record.base.digest}) and fits no other base, but that "
            f"base cannot be used: {error.message}",
        ) from None


def checkpoint_of(store: Path, path: str, digest: Digest) -> tuple[str, Digest]:
    """Return path and digest of the checkpoint that an artefact is, or that it needs as base; raises what ``read`` raises."""
    record = read(store, path, digest)
    return (path, digest) if record is None else (record.base.path, record.base.digest)
