"""Compiles the C sources for this machine and loads them; the result is kept on disk (moe/compiled.py)."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from moe_trainer.moe.compiled import CompilationError, kept

FOLDER = Path(__file__).parent
OPTIONS = ("-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC", "-lm")
#: A compiler that takes longer than this, in seconds, is taken to hang.
PATIENCE_SECONDS = 60.0

_POINTER, _SIZE = ctypes.c_void_p, ctypes.c_int64
#: Result type and argument types of each function.
_FUNCTIONS: dict[str, tuple[type | None, ...]] = {
    "swiglu": (None, *[_POINTER] * 3, _SIZE),
    "swiglu_backward": (None, *[_POINTER] * 7, _SIZE, _SIZE),
    "route": (ctypes.c_double, *[_POINTER] * 9),
    "route_backward": (None, *[_POINTER] * 9),
    "gather_rows": (None, *[_POINTER] * 3, *[_SIZE] * 3),
    "order_slots": (None, _POINTER, _SIZE, _SIZE, *[_POINTER] * 3),
}


@cache
def library() -> ctypes.CDLL:
    """Return the library with the functions of the C sources. Raises CompilationError."""
    compiler = _compiler()
    options = (*OPTIONS, _for_this_machine())
    code = kept(f"{_digest(compiler, options)}.so", lambda: _compiled(compiler, options))
    with tempfile.TemporaryDirectory() as folder:  # a loaded library no longer needs its file
        path = Path(folder) / "native.so"
        path.write_bytes(code)
        try:
            loaded = ctypes.CDLL(str(path))
        except OSError as error:
            raise CompilationError(
                f"the library that {compiler} compiled cannot be loaded ({error})"
            ) from None
    for name, (result, *arguments) in _FUNCTIONS.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


@cache
def unavailable() -> str | None:
    """Return why the library is not available, or None if it is."""
    try:
        library()
    except (CompilationError, OSError) as error:
        return str(error)
    return None


def _compiler() -> str:
    wanted = os.environ.get("CC")
    found = (
        shutil.which(wanted) if wanted else shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    )
    if found is None:
        raise CompilationError(f"it needs a C compiler, and there is no {wanted or 'cc, gcc or clang'}")
    return found


def _for_this_machine() -> str:
    """Return the option that lets a compiler use all instructions of this CPU."""
    return "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"


def _digest(compiler: str, options: tuple[str, ...]) -> str:
    """Return a digest of all that the result depends on: sources, options, compiler, and this CPU's instructions."""
    source = (path.read_text() for path in sorted(FOLDER.glob("*.[ch]")))
    parts = [*source, *options, compiler, str(Path(compiler).stat().st_mtime_ns), _processor()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features"))}))


def _compiled(compiler: str, options: tuple[str, ...]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "native.so"
        command = [compiler, *map(str, sorted(FOLDER.glob("*.c"))), *options, "-o", str(path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            raise CompilationError(f"{compiler} took longer than {PATIENCE_SECONDS:.0f} s") from None
        if done.returncode:
            first = next(iter(done.stderr.splitlines()), f"exit status {done.returncode}")
            raise CompilationError(f"{compiler} cannot compile it ({first})")
        return path.read_bytes()
