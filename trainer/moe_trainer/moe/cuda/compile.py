# mypy: disable-error-code="import-untyped"
"""Compiles the kernels for sm_90a with NVRTC, once for each source and compiler: the result is kept on disk."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from cuda.bindings import nvrtc

from moe_trainer.moe.compiled import CompilationError, kept

SOURCE = Path(__file__).parent / "source"
ARCHITECTURE = "sm_90a"
#: The assembler reports registers and spills in the log.
OPTIONS = (f"--gpu-architecture={ARCHITECTURE}", "--std=c++17", "--ptxas-options=--verbose")

KernelName = Literal["up", "down", "d_hidden"]


@dataclass(frozen=True)
class Kernel:
    """A kernel and how it is built."""

    name: KernelName
    cluster: Literal[1, 2]  #: Number of blocks that share the weights they read.


#: Everything that may be launched.
KERNELS = tuple(
    Kernel(name, cluster) for name in ("up", "down", "d_hidden") for cluster in (1, 2)
)  # fmt: skip


@dataclass(frozen=True)
class Binary:
    """A compiled kernel."""

    cubin: bytes
    log: str  #: The output of compiler and assembler: registers, spills, warnings.


def headers() -> dict[str, str]:
    """Return the text of every header, by the name under which it is included."""
    return {path.name: path.read_text() for path in sorted(SOURCE.glob("*.cuh"))}


def compile_kernel(kernel: Kernel) -> Binary:
    """Compile one kernel; needs no GPU. Raises CompilationError."""
    included = headers()
    program = _call(
        nvrtc.nvrtcCreateProgram,
        (SOURCE / f"{kernel.name}.cu").read_bytes(),
        f"{kernel.name}.cu".encode(),
        len(included),
        [text.encode() for text in included.values()],
        [name.encode() for name in included],
    )
    options = [option.encode() for option in (*OPTIONS, f"--define-macro=MOE_CLUSTER={kernel.cluster}")]
    (result,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    log = _read(program, nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog).rstrip(b"\0").decode()
    if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise CompilationError(
            f"{kernel.name}.cu does not compile for {ARCHITECTURE} ({result.name}):\n{log}"
        )
    cubin = _read(program, nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN)
    nvrtc.nvrtcDestroyProgram(program)
    return Binary(cubin, log)


@cache
def cubin(kernel: Kernel) -> bytes:
    """Return a compiled kernel, from disk if this compiler has compiled this source before."""
    return kept(f"{digest(kernel)}.cubin", lambda: compile_kernel(kernel).cubin)


def digest(kernel: Kernel) -> str:
    """Return the identity of a compiled kernel: a digest of its sources, options and compiler."""
    version = ".".join(map(str, nvrtc.nvrtcVersion()[1:]))
    parts = [repr(kernel), repr(OPTIONS), version, (SOURCE / f"{kernel.name}.cu").read_text()]
    parts += [f"{name}\0{text}" for name, text in headers().items()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _read(program: Any, size: Any, content: Any) -> bytes:
    buffer = bytes(_call(size, program))
    _call(content, program, buffer)
    return buffer


def _call(function: Any, *arguments: Any) -> Any:
    """Call NVRTC; raises CompilationError if it reports anything but success."""
    result, *values = function(*arguments)
    if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise CompilationError(f"NVRTC failed with {result.name}")
    return values[0] if values else None
