"""The record of an adapter, and verifying an adapter together with its base. Imports no torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field

from moe_formats.failure import JobError
from moe_formats.format import Digest, Format
from moe_formats.job_config import ArtefactRef
from moe_formats.training_spec import MethodName
from moe_trainer.storage.manifest import corrupt, read_format, read_manifest
from moe_trainer.storage.manifest import verify as verify_folder

#: An artefact with this file is an adapter.
ADAPTER = "adapter.json"


class AdapterRecord(Format):
    """What is needed to make an adapter a model again."""

    method: MethodName
    base: ArtefactRef = Field(description="The checkpoint beside which it was trained; it fits no other.")


def read(store: Path, path: str, digest: Digest) -> AdapterRecord | None:
    """Verify an adapter and return its record; return None for a checkpoint, which is not verified here.

    Raises JobError (ArtefactCorrupt).
    """
    manifest, _ = read_manifest(store / path)
    if ADAPTER not in manifest.files:
        return None
    verify_folder(store / path, digest)
    return _record(store / path)


def verify(store: Path, path: str, digest: Digest) -> AdapterRecord | None:
    """Check every byte of an artefact, and of the base if it is an adapter; return the adapter's record, else None.

    Raises JobError (ArtefactCorrupt).
    """
    record = read(store, path, digest)
    if record is None:
        verify_folder(store / path, digest)
        return None
    with needing_base(store / path, record):
        verify_folder(store / record.base.path, record.base.digest)
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


def checkpoint_of(store: Path, path: str) -> Path:
    """Return the folder of the checkpoint that an artefact is, or that it needs as base; nothing is verified."""
    return store / (_record(store / path).base.path if (store / path / ADAPTER).exists() else path)


def _record(folder: Path) -> AdapterRecord:
    return read_format(folder, ADAPTER, AdapterRecord)
