"""What a pool remembers about held-out text: the clusters of each Expert, its windows, the registry.

All three survive a kill at any instant: clusters and windows are replaced whole; the registry, which
the Experts of a pool share, is only ever appended to, and a line that was cut short is skipped.
"""

import os
from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, ValidationError

from moe_trainer.data.minhash import SCHEME
from moe_trainer.data.snapshot_layout import Fingerprint
from moe_trainer.data.splitting import Member
from moe_trainer.failure import JobError
from moe_trainer.job_report import Window
from moe_trainer.manifest import replace_file


class KnownDocument(Fingerprint):
    """A line of ``clusters.jsonl``: a document that an Expert has had, and the side it is on for good."""

    held_out: bool
    scheme: int = Field(description="Version of the scheme that placed it.")


Known = dict[str, tuple[Member, bytes]]


def read_known(path: Path) -> Known:
    """Return what an Expert has seen: document hash to place and signature; empty before its first snapshot."""
    known: Known = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        entry = KnownDocument.model_validate_json(line)
        if entry.scheme != SCHEME:
            raise JobError(
                "SchemeUnsupported", f"{path.name} has scheme {entry.scheme}; this program reads {SCHEME}."
            )
        known[entry.document] = (Member(entry.cluster, entry.held_out), entry.signature_bytes())
    return known


def write_known(path: Path, known: Known) -> None:
    """Replace what an Expert has seen."""
    entries = (
        KnownDocument(
            document=name,
            cluster=member.cluster,
            signature=encoded(signed),
            held_out=member.held_out,
            scheme=SCHEME,
        )
        for name, (member, signed) in sorted(known.items())
    )
    replace_file(path, _lines(entries))


def read_windows(path: Path) -> list[Window]:
    """Return an Expert's windows, oldest first."""
    return (
        [Window.model_validate_json(line) for line in path.read_text().splitlines()] if path.exists() else []
    )


def write_windows(path: Path, windows: Iterable[Window]) -> None:
    """Replace the list of an Expert's windows."""
    replace_file(path, _lines(windows))


def read_registry(path: Path) -> dict[str, Fingerprint]:
    """Return the fingerprint of every document that any Expert of the pool ever held out, by document."""
    found = {}
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            fingerprint = Fingerprint.model_validate_json(line)
        except ValidationError:
            continue  # cut short by a kill; the attempt after it has appended it again
        found[fingerprint.document] = fingerprint
    return found


def append_to_registry(path: Path, fingerprints: Iterable[Fingerprint]) -> None:
    """Add fingerprints that the registry does not have, and write them through to the disk."""
    have = read_registry(path)
    new = _lines(f for f in fingerprints if f.document not in have)
    if not new:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(b"\n" + new)  # the newline ends a line that a kill may have cut short
        file.flush()
        os.fsync(file.fileno())


def encoded(signature: bytes) -> str:
    """Return a signature as it is written in a Fingerprint."""
    return b64encode(signature).decode()


def _lines(entries: Iterable[Fingerprint | Window]) -> bytes:
    return b"".join(entry.to_json().encode() + b"\n" for entry in entries)
