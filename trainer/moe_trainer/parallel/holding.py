"""Committed folders that several processes hold open: they share the work of verifying, and hold the same files."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from moe_formats.format import Digest
from moe_trainer.parallel.processes import Processes
from moe_trainer.storage.committed import Committed, Stamp


def held_together(store: Path, path: str, digest: Digest, processes: Processes, folders: ExitStack) -> Path:
    """Return what ``opened`` yields (storage/committed.py); the folder stays open in ``folders``.

    All processes call it together, and each verifies a share of the large files. A JobError in any is raised in all.
    """
    held = folders.enter_context(processes.together(lambda: Committed(store, path, digest)))
    processes.together(lambda: _verify(held, processes.share()))
    hold_the_same(held, processes)
    return held.show()


def hold_the_same(held: Committed, processes: Processes) -> None:
    """Have each process that holds other files than the first one verify its own: somebody may have swapped them."""
    if processes.alone:
        return
    theirs: Mapping[str, Stamp] = processes.from_first(held.stamps())
    processes.together(lambda: held.stamps() == theirs or _verify(held, slice(None)))


def _verify(held: Committed, share: slice) -> bool:
    held.verify(share)
    return True
