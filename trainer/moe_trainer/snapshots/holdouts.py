"""What a pool remembers about held-out text: its scheme, each Expert's clusters and windows, and the pool's registry.

All of it survives a kill at any moment: scheme, clusters and windows are replaced as a whole; the registry, which the
Experts of a pool share, is only appended to, and a line that was cut short is skipped.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from moe_formats import store
from moe_formats.data_scheme import FIRST, Scheme
from moe_formats.failure import JobError
from moe_formats.format import Format
from moe_formats.job_report import Window
from moe_trainer import limits
from moe_trainer.deduplication.catalogue import Catalogue, Rows
from moe_trainer.deduplication.fingerprints import (
    Placement,
    fingerprint_lines,
    known_lines,
    names_in,
    read_known_documents,
    read_registry,
    take_up,
)
from moe_trainer.deduplication.sorting import Index, by_name
from moe_trainer.storage.files import append_to, exists, read_file, replace_file, replacing


class PoolScheme(Format):
    """The content of ``scheme.json``."""

    scheme: Scheme


def scheme_of(root: Path, pool_uid: str, new: Scheme) -> Scheme:
    """Return a pool's scheme: what it recorded, or ``new`` if it has no documents yet.

    Raises JobError (SchemeUnsupported) for a scheme that this version does not know.
    """
    try:
        text = read_file(root, store.scheme(pool_uid), limits.CONFIG_BYTES)
        return PoolScheme.model_validate_json(text).scheme
    except FileNotFoundError:
        begun = (store.experts(pool_uid), store.held_out_registry(pool_uid))
        return FIRST if any(exists(root, path) for path in begun) else new
    except ValidationError:
        raise JobError(
            "SchemeUnsupported",
            f"{store.scheme(pool_uid)} in the pool's store names no scheme that this version of the trainer knows: upgrade the "
            "trainer, or create another pool.",
        ) from None


def record_scheme(root: Path, pool_uid: str, scheme: Scheme) -> None:
    """Record a pool's scheme before its first document is placed; pools of the first scheme record none."""
    path = store.scheme(pool_uid)
    if scheme != FIRST and not exists(root, path):
        replace_file(root, path, PoolScheme(scheme=scheme).to_json().encode())


def read_clusters(root: Path, path: str, catalogue: Catalogue, scheme: Scheme) -> tuple[Rows, Placement]:
    """Add the documents that an Expert has seen before to a catalogue, unless they are in it already.

    Returns the rows of all of them, ascending, and their placement; none before the Expert's first snapshot.
    """
    there = Index(catalogue.names, np.arange(len(catalogue)))
    rows, places = take_up(catalogue, read_known_documents(root, path, scheme), there)
    order = np.argsort(rows)
    return rows[order], places.of(order)


def write_clusters(
    root: Path, path: str, catalogue: Catalogue, rows: Rows, places: Placement, scheme: Scheme
) -> None:
    """Write which documents an Expert has seen; ``places`` covers the whole catalogue."""
    with replacing(root, path) as file:
        file.writelines(known_lines(catalogue, by_name(catalogue.names, rows), places, scheme))


def read_windows(root: Path, path: str) -> list[Window]:
    """Return an Expert's windows, oldest first."""
    try:
        return [
            Window.model_validate_json(line)
            for line in read_file(root, path, limits.WINDOWS_BYTES).splitlines()
        ]
    except FileNotFoundError:
        return []


def write_windows(root: Path, path: str, windows: Iterable[Window]) -> None:
    """Replace the list of an Expert's windows."""
    replace_file(root, path, b"".join(window.to_json().encode() + b"\n" for window in windows))


def append_to_registry(root: Path, path: str, catalogue: Catalogue, rows: Rows, places: Placement) -> None:
    """Append the rows that the registry does not have yet, and write them through to the disk.

    ``places`` covers the whole catalogue.
    """
    have = names_in(read_registry(root, path))
    new = rows[~np.isin(catalogue.names[rows], have)]
    if not len(new):
        return
    with append_to(root, path) as file:
        file.write(b"\n")  # ends a line that a kill may have cut short
        file.writelines(fingerprint_lines(catalogue, by_name(catalogue.names, new), places))
        file.flush()
        os.fsync(file.fileno())
