"""Compiled code on disk: read again where it is whole and nobody else's, made again elsewhere."""

from pathlib import Path

import pytest

from moe_trainer.moe.compiled import kept


class Compiler:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> bytes:
        self.asked += 1
        return b"compiled"


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compiler:
    monkeypatch.setenv("MOE_SCRATCH", str(tmp_path))
    return Compiler()


def stored(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "moe-operator" / "kernels").iterdir()
    return path


def test_what_was_compiled_is_read_from_disk(tmp_path: Path, compiler: Compiler) -> None:
    assert kept("name", compiler) == kept("name", compiler) == b"compiled"
    assert compiler.asked == 1
    assert stored(tmp_path).parent.stat().st_mode & 0o077 == 0
    kept("another", compiler)
    assert compiler.asked == 2


@pytest.mark.parametrize("damage", [b"", b"\x00" * 40])
def test_a_file_that_is_not_whole_is_compiled_again(
    damage: bytes, tmp_path: Path, compiler: Compiler
) -> None:
    kept("name", compiler)
    stored(tmp_path).write_bytes(damage)
    assert kept("name", compiler) == kept("name", compiler) == b"compiled"
    assert compiler.asked == 2


def test_a_file_that_others_may_write_is_never_run(tmp_path: Path, compiler: Compiler) -> None:
    kept("name", compiler)
    stored(tmp_path).chmod(0o666)
    kept("name", compiler)
    assert compiler.asked == 2


def test_a_folder_that_cannot_be_made_costs_time_only(
    tmp_path: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MOE_SCRATCH", str(tmp_path / "file"))
    assert kept("name", compiler) == b"compiled"
