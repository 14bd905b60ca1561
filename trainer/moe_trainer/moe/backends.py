"""The backends by name, and which of them a call of the in-layer experts or of the router gets.

Each backend states whether it can run a case, or why not; the first one in order that can is chosen. If one was asked for
by name and cannot run, that is an error with the reason; another is never chosen silently. The router uses the same
table: it is computed by the first backend that has a router of its own for the case, otherwise in plain torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from moe_trainer.moe import cuda, grouped, native, triton
from moe_trainer.moe.grouped import GroupedKernels
from moe_trainer.moe.kernels import Case, Kernels
from moe_trainer.moe.looped import LoopedKernels
from moe_trainer.moe.plain_router import PLAIN
from moe_trainer.moe.router_function import Passes, RouterCase

Backend = Literal["reference", "torch", "native", "triton", "cuda"]


@dataclass(frozen=True)
class RouterEntry:
    """A backend's own router: which cases it computes, and its two passes, imported when they are first needed."""

    suits: Callable[[RouterCase], bool]
    passes: Callable[[], Passes]


@dataclass(frozen=True)
class Entry:
    """One backend: which cases it can run, and its kernels, imported when they are first needed."""

    refusal: Callable[[Case], str | None]  #: Why it cannot run and what to do, or None if it can.
    kernels: Callable[[], Kernels]
    router: RouterEntry | None = None  #: None: it uses the plain one.
    special: "Entry | None" = None  #: Other kernels, which are better in the cases that they do not refuse.
    automatic: bool = (
        True  #: Whether it is chosen by itself where it can run; otherwise only when it is asked for.
    )


def _triton() -> Kernels:
    from moe_trainer.moe.triton.kernels import TritonKernels  # imports Triton, which not every machine has

    return TritonKernels()


def _triton_router() -> Passes:
    from moe_trainer.moe.triton.router import FUSED  # imports Triton, which not every machine has

    return FUSED


def _cuda() -> Kernels:
    from moe_trainer.moe.cuda.kernels import CudaKernels  # imports the driver's bindings

    return CudaKernels()


def _native() -> Kernels:
    from moe_trainer.moe.native.kernels import NativeKernels  # compiles, where nothing was compiled before

    return NativeKernels()


def _native_router() -> Passes:
    from moe_trainer.moe.native.router import NATIVE  # compiles, where nothing was compiled before

    return NATIVE


_FUSED_ROUTER = RouterEntry(triton.suits_router, _triton_router)

#: In order of preference. ``reference`` is not here: it has no kernels, and is only used when asked for.
#: ``cuda`` will be chosen by itself once a benchmark on a GPU has shown where it beats ``triton``; none has been run yet.
ENTRIES: dict[Backend, Entry] = {
    "cuda": Entry(cuda.refusal, _cuda, _FUSED_ROUTER, automatic=False),
    "triton": Entry(triton.refusal, _triton, _FUSED_ROUTER),
    "native": Entry(native.refusal, _native, RouterEntry(native.suits_router, _native_router)),
    "torch": Entry(lambda case: None, LoopedKernels, special=Entry(grouped.refusal, GroupedKernels)),
}


def choose(case: Case) -> Backend:
    """Return the name of the best backend that can run a case."""
    return next(name for name, entry in ENTRIES.items() if entry.automatic and entry.refusal(case) is None)


def kernels(name: Backend, case: Case) -> Kernels:
    """Return a backend's kernels; raises ValueError with the reason if it cannot run the case."""
    if name not in ENTRIES:
        raise ValueError(f"backend {name!r} is unknown: use reference, {', '.join(ENTRIES)} or None")
    entry = ENTRIES[name]
    refusal = entry.refusal(case)
    if refusal is not None:
        raise ValueError(f"backend {name!r} cannot run here: {refusal}")
    if entry.special is not None and entry.special.refusal(case) is None:
        entry = entry.special
    return entry.kernels()


def router(case: RouterCase, backend: Backend | None = None) -> Passes:
    """Return the passes of a router: those of the first backend that has a router for the case, else the plain ones.

    ``backend`` is that of the in-layer experts where it is forced; then only that backend's router is considered.
    """
    for name, entry in ENTRIES.items():
        asked = entry.automatic if backend is None else name == backend
        if asked and entry.router is not None and entry.router.suits(case):
            return entry.router.passes()
    return PLAIN
