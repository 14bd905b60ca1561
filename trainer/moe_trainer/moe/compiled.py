"""Compiled code, kept on disk, so that the next process on the machine need not compile it."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


class CompilationError(RuntimeError):
    """There is no compiler, or it refuses the source; the message says why, with the compiler's words."""


def kept(name: str, compile_it: Callable[[], bytes]) -> bytes:
    """Return what is stored under a name, or compile and store it; the name must depend on everything the code depends on."""
    path = _folder() / name
    stored = _load(path)
    if stored is None:
        stored = compile_it()
        _store(path, stored)
    return stored


def _folder() -> Path:
    """Return the folder of compiled code: in the container's scratch space, or else the user's cache."""
    home = os.environ.get("MOE_SCRATCH") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "moe-operator" / "kernels"


def _load(path: Path) -> bytes | None:
    """Return what was stored; None if it is missing, damaged, or could come from another user, since it will be run."""
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
    """Store compiled code; if that fails, it is compiled again next time."""
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
