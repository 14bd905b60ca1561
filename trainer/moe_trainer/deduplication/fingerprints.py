"""Files of fingerprints, one per line, read into a catalogue and written from it a few thousand at a time."""

import os
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from moe_formats.data_scheme import Scheme
from moe_formats.failure import JobError
from moe_formats.format import Format
from moe_trainer import limits
from moe_trainer.deduplication.catalogue import Catalogue, Names, Rows, digits_of, names_of, no_names
from moe_trainer.deduplication.minhash import BINS
from moe_trainer.deduplication.near_duplicates import Mask
from moe_trainer.deduplication.sorting import Index
from moe_trainer.storage.files import open_file
from moe_trainer.storage.manifest import lines_of
from moe_trainer.untrusted import lines

#: Bytes of a cluster's id: 16 hexadecimal digits.
CLUSTER_BYTES = 8

_LINES_AT_ONCE = 4096


@dataclass(frozen=True)
class Placement:
    """Where documents belong: the cluster of each, and whether that cluster is held out."""

    clusters: NDArray[np.bytes_]
    held_out: Mask

    @classmethod
    def nowhere(cls, documents: int) -> "Placement":
        """Return an empty placement for a number of documents."""
        return cls(np.zeros(documents, dtype=f"S{CLUSTER_BYTES}"), np.zeros(documents, dtype=np.bool_))

    def of(self, rows: Rows | Mask) -> "Placement":
        """Return the placement of some documents."""
        return Placement(self.clusters[rows], self.held_out[rows])

    def put(self, rows: Rows, places: "Placement") -> None:
        """Set the placement of some documents."""
        self.clusters[rows] = places.clusters
        self.held_out[rows] = places.held_out


class Fingerprint(Format):
    """What is kept of a document so that it and its near-duplicates can be recognised without its text."""

    document: str = Field(
        description="The document's name: 32 hexadecimal digits of the SHA-256 of its content."
    )
    cluster: str
    signature: str = Field(description="Its MinHash signature in base64 (deduplication/minhash.py).")


class KnownDocument(Fingerprint):
    """A line of ``clusters.jsonl``: a document that an Expert has read, and whether it is held out, which never changes."""

    held_out: bool
    scheme: int = Field(description="Version of the scheme that placed it.")


def read_fingerprints(folder: Path, name: str) -> Iterator[Fingerprint]:
    """Yield the fingerprints in a file of a committed folder, which must have been opened (storage/committed.py).

    Raises JobError (ArtefactCorrupt) for a line that is too long.
    """
    for line in lines_of(folder, name, limits.FINGERPRINT_BYTES):
        yield Fingerprint.model_validate_json(line)


def read_known_documents(root: Path, path: str, scheme: Scheme) -> Iterator[KnownDocument]:
    """Yield the lines of ``clusters.jsonl`` in a store; none if there is not a file.

    Raises JobError: ArtefactCorrupt for a line that is not one, SchemeUnsupported for a document that another scheme placed.
    """
    with suppress(FileNotFoundError), open_file(root, path) as file:
        for number, line in enumerate(lines(file, limits.FINGERPRINT_BYTES), start=1):
            if line is not None and not line.strip():
                continue
            try:
                entry = KnownDocument.model_validate_json(line or b"")
            except ValidationError:
                raise JobError(
                    "ArtefactCorrupt",
                    f"line {number} of {path} in the pool's store is not a document that was seen before. It was altered; "
                    "restore the file from a backup.",
                ) from None
            if entry.scheme != scheme:
                raise JobError(
                    "SchemeUnsupported",
                    f"{Path(path).name} has scheme {entry.scheme}, but its pool has scheme {scheme}: restore the pool's "
                    "scheme.json, or create another pool.",
                )
            yield entry


def read_registry(root: Path, path: str, until: int | None = None) -> Iterator[Fingerprint]:
    """Yield the fingerprints in a registry in a store, or in its first ``until`` bytes.

    A line that a kill cut short is skipped, and one that is too long for a fingerprint is too.
    """
    with suppress(FileNotFoundError), open_file(root, path) as file:
        for line in lines(file, limits.FINGERPRINT_BYTES):
            if until is not None and file.tell() > until:
                return
            with suppress(ValidationError):  # the attempt after the kill has appended it again
                yield Fingerprint.model_validate_json(line or b"")


def registry_bytes(root: Path, path: str) -> int:
    """Return the size of a registry in a store; 0 if there is none yet."""
    try:
        with open_file(root, path) as file:
            return os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return 0


def names_in(fingerprints: Iterable[Fingerprint]) -> Names:
    """Return the names of fingerprints."""
    parts, waiting = [no_names()], iter(fingerprints)
    while some := [entry.document for entry in islice(waiting, _LINES_AT_ONCE)]:
        parts.append(names_of(some))
    return np.concatenate(parts)


def take_up(
    catalogue: Catalogue, fingerprints: Iterable[Fingerprint], there: Index | None = None
) -> tuple[Rows, Placement]:
    """Add fingerprints to a catalogue, except those that are ``there``; return the rows and the placement of all."""
    rows, clusters, held_out = [np.empty(0, dtype=np.int64)], bytearray(), bytearray()
    waiting = iter(fingerprints)
    while some := list(islice(waiting, _LINES_AT_ONCE)):
        signed = b"".join(b64decode(entry.signature) for entry in some)
        signatures = np.frombuffer(signed, dtype="<u4").reshape(-1, BINS)
        names = names_of([entry.document for entry in some])
        found = np.full(len(names), -1) if there is None else there.find(names)
        new = found < 0
        found[new] = catalogue.append(names[new], signatures[new])
        rows.append(found)
        clusters += bytes.fromhex("".join(entry.cluster for entry in some))
        held_out += bytes(map(_is_held_out, some))
    places = Placement(
        np.frombuffer(clusters, dtype=f"S{CLUSTER_BYTES}"), np.frombuffer(held_out, dtype=np.bool_)
    )
    return np.concatenate(rows), places


def fingerprint_lines(catalogue: Catalogue, rows: Rows, places: Placement) -> Iterator[bytes]:
    """Yield the fingerprints of rows as lines, in their order; ``places`` covers the whole catalogue."""
    return _written(catalogue, rows, places, None)


def known_lines(catalogue: Catalogue, rows: Rows, places: Placement, scheme: Scheme) -> Iterator[bytes]:
    """Yield rows as lines of ``clusters.jsonl``; ``places`` covers the whole catalogue."""
    return _written(catalogue, rows, places, scheme)


def _written(catalogue: Catalogue, rows: Rows, places: Placement, scheme: Scheme | None) -> Iterator[bytes]:
    for start in range(0, len(rows), _LINES_AT_ONCE):
        some = rows[start : start + _LINES_AT_ONCE]
        documents, clusters = digits_of(catalogue.names[some]), digits_of(places.clusters[some])
        for document, cluster, held_out, signed in zip(
            documents, clusters, places.held_out[some].tolist(), catalogue.signatures(some), strict=True
        ):
            more = f',"heldOut":{str(held_out).lower()},"scheme":{scheme}' if scheme else ""
            signature = b64encode(signed).decode()
            yield (
                f'{{"cluster":"{cluster}","document":"{document}"{more},"signature":"{signature}"}}\n'
            ).encode()


def _is_held_out(entry: Fingerprint) -> bool:
    return isinstance(entry, KnownDocument) and entry.held_out
