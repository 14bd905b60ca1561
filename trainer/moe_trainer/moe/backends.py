"""The backends by name, and which of them a call gets.

A backend says why it cannot run a case, or that it can; the first in order that can is chosen. One that
was asked for by name and cannot run is an error with that reason, never a silent other choice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from moe_trainer.moe.grouped import GroupedKernels
from moe_trainer.moe.kernels import Case, Kernels

Backend = Literal["reference", "torch"]


@dataclass(frozen=True)
class Entry:
    """One backend: whether it can run a case, and its kernels, imported when they are first needed."""

    refusal: Callable[[Case], str | None]  #: The reason why not and what to do, or None.
    kernels: Callable[[], Kernels]


#: In order of preference. ``reference`` is not here: it has no kernels, and is only used when asked for.
ENTRIES: dict[Backend, Entry] = {"torch": Entry(lambda case: None, GroupedKernels)}


def choose(case: Case) -> Backend:
    """Return the name of the best backend that can run a case."""
    return next(name for name, entry in ENTRIES.items() if entry.refusal(case) is None)


def kernels(name: Backend, case: Case) -> Kernels:
    """Return a backend's kernels; raises ValueError with the reason if it cannot run the case."""
    refusal = ENTRIES[name].refusal(case)
    if refusal is not None:
        raise ValueError(f"backend {name!r} cannot run here: {refusal}")
    return ENTRIES[name].kernels()
