"""The kernels' own source on a CPU: compiled with emulated instructions (emulation/ptx.cuh), called with ctypes."""

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from moe_trainer.moe.cuda.compile import SOURCE, Kernel
from moe_trainer.moe.cuda.launch import Argument, TensorMap, pack

EMULATION = Path(__file__).parent / "emulation"
COMPILER = next((path for name in ("g++", "clang++") if (path := shutil.which(name))), None)

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on this machine")


class _TensorMap(ctypes.Structure):
    """TensorMap of emulation/ptx.cuh."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("sizes", ctypes.c_uint64 * 4),
        ("strides", ctypes.c_uint64 * 3),
        ("box", ctypes.c_uint32 * 4),
    )


def _encode(tensor_map: TensorMap) -> _TensorMap:
    strides = (2 * stride for stride in tensor_map.strides)
    return _TensorMap(
        tensor_map.address,
        (ctypes.c_uint64 * 4)(*tensor_map.sizes),
        (ctypes.c_uint64 * 3)(*strides),
        (ctypes.c_uint32 * 4)(*tensor_map.box),
    )


def build(cluster: int, folder: Path, source: Path = SOURCE) -> ctypes.CDLL:
    """Compile the kernels for the CPU, with clusters of one size."""
    assert COMPILER is not None
    library = folder / f"emulated_{cluster}.so"
    folders = [f"-I{EMULATION}", f"-I{source}"]
    options = ["-std=c++17", "-O1", "-fPIC", "-shared", f"-DMOE_CLUSTER={cluster}"]
    subprocess.run(
        [COMPILER, *options, *folders, str(EMULATION / "emulator.cpp"), "-o", str(library)], check=True
    )
    return ctypes.CDLL(str(library))


@dataclass(frozen=True)
class Emulator:
    """A launch on an emulated device of a few multiprocessors.

    ``late`` does every copy and every product at the last moment that the program allows, else at once;
    ``seed`` draws the order in which threads run.
    """

    libraries: dict[int, ctypes.CDLL]  #: By the size of clusters.
    cluster: int
    multiprocessors: int = 4
    late: bool = False
    seed: int = 0

    def __call__(self, kernel: Kernel, arguments: Sequence[Argument]) -> None:
        """Run a kernel; raises RuntimeError with what went wrong in it."""
        values, pointers = pack(arguments, _encode)
        message = ctypes.create_string_buffer(256)
        failed = self.libraries[self.cluster].emulate(
            kernel.name.encode(),
            self.multiprocessors,
            self.seed,
            int(self.late),
            pointers,
            message,
            ctypes.c_size_t(len(message)),
        )
        if failed:
            raise RuntimeError(f"{kernel.name}: {message.value.decode()}")
        del values
