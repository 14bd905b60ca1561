"""Compiled code, kept on disk: for the next process on a machine, it is there already."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


class CompilationError(RuntimeError):
    """There is no compiler, or it refuses the source; the message says why, with the compiler's words."""


def kept(name: str, compile_it: Callable[[], bytes]) -> bytes:
    """Return what was stored under a name, or else compile and store it; a name says all that it depends on."""
    path = _folder() / name
    stored = _load(path)
    if stored is None:
        stored = compile_it()
        _store(path, stored)
    return stored


def _folder() -> Path:
    """Return where compiled kernels are kept: the container's scratch space, or the user's cache."""
    home = os.environ.get("MOE_SCRATCH") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "moe-operator" / "kernels"


def _load(path: Path) -> bytes | None:
    """Return what was stored, or None if it is not there, not whole, or may be someone else's: it is run."""
    try:
        owner = path.stat()
        content = path.read_bytes()
    except OSError:
        return None
    if owner.st_uid != os.geteuid() or owner.st_mode & 0o022:
        return None
    check, stored = content[:32], content[32:]
    return stored if hashlib.sha256(stored).digest() == check else None


def _store(path: Path, stored: bytes) -> None:
    """Keep a compiled kernel; where that is not possible, it will be compiled again next time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                file.write(hashlib.sha256(stored).digest() + stored)
                file.close()
                os.replace(file.name, path)
            except OSError:
                Path(file.name).unlink(missing_ok=True)
    except OSError:
        return
