"""What an adapter says of itself, and verifying it together with its base. Imports no torch."""

from pathlib import Path

from pydantic import Field, ValidationError

from moe_trainer import manifest
from moe_trainer.failure import JobError
from moe_trainer.formats import Digest, Format
from moe_trainer.job_config import ArtefactRef, MethodName

#: The file by which an artefact is an adapter.
ADAPTER = "adapter.json"


class AdapterRecord(Format):
    """What an adapter needs to be a model again."""

    method: MethodName
    base: ArtefactRef = Field(description="The checkpoint that it was trained beside; it fits no other.")


def verify(store: Path, path: str, digest: Digest) -> AdapterRecord | None:
    """Check every byte of an artefact and of its base; return what an adapter says of itself, or None.

    Raises JobError (ArtefactCorrupt), which says what an adapter's base has become if it is not its own.
    """
    manifest.verify(store / path, digest)
    if not (store / path / ADAPTER).exists():
        return None
    record = _record(store / path)
    try:
        manifest.verify(store / record.base.path, record.base.digest)
    except JobError as error:
        raise manifest.corrupt(
            store / path,
            f"it is an adapter for {record.base.revision} ({record.base.digest}) and fits no other base, but "
            f"that one is not there: {error.message}",
        ) from None
    return record


def checkpoint_of(store: Path, path: str) -> Path:
    """Return the folder of the checkpoint that an artefact is or needs; nothing is verified."""
    return store / (_record(store / path).base.path if (store / path / ADAPTER).exists() else path)


def _record(folder: Path) -> AdapterRecord:
    try:
        return AdapterRecord.model_validate_json((folder / ADAPTER).read_text())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise manifest.corrupt(
            folder, f"{ADAPTER}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from None
