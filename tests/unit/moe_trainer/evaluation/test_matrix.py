"""Cells are found again only under their whole identity, and only intact."""

import os
from pathlib import Path

import pytest

from moe_formats.failure import JobError
from moe_formats.job_config import ArtefactRef, HoldoutRef
from moe_trainer.evaluation.matrix import Cell, Matrix

MODEL = ArtefactRef(revision="code-1", path="models/code", digest="sha256:" + "a" * 64)
HOLDOUT = HoldoutRef(domain="code", expert="code", path="holdouts/code", digest="sha256:" + "b" * 64)


@pytest.fixture
def matrix(tmp_path: Path) -> Matrix:
    return Matrix(tmp_path, "pool", 256)


def cell(matrix: Matrix) -> Cell:
    return Cell(
        key=matrix.key(MODEL, HOLDOUT),
        clusters=("c", "d"),
        sizes=(256, 100),
        nats=(412.0625, 0.1 + 0.2),
        hits=(120, 40),
        context_nats=(200.5, 1e-9),
    )


def test_a_cell_is_read_back_bit_for_bit(matrix: Matrix) -> None:
    matrix.write(cell(matrix))
    assert matrix.read(matrix.key(MODEL, HOLDOUT)) == cell(matrix)


def test_a_cell_that_was_never_written_is_absent(matrix: Matrix) -> None:
    assert matrix.read(matrix.key(MODEL, HOLDOUT)) is None


@pytest.mark.parametrize("changed", ["artefact", "holdout", "scorer", "device"])
def test_another_identity_is_another_cell(matrix: Matrix, changed: str) -> None:
    matrix.write(cell(matrix))
    other = "sha256:" + "c" * 64 if changed in ("artefact", "holdout") else "other"
    assert matrix.read(matrix.key(MODEL, HOLDOUT).model_copy(update={changed: other})) is None


def test_cells_of_256_bytes_keep_the_key_that_they_had_before_there_were_sizes(matrix: Matrix) -> None:
    key = matrix.key(MODEL, HOLDOUT)
    assert key.scorer == "bytes-128+256-of-256-v2"
    assert key.content_digest() == "sha256:5aa86af378c106ef2e9618973e1b1c88400c447931e02aa64885d4289a4f4836"


def test_cells_of_one_size_are_never_read_for_the_other(matrix: Matrix) -> None:
    matrix.write(cell(matrix))
    longer = Matrix(matrix.store, "pool", 3968)
    assert longer.key(MODEL, HOLDOUT).scorer == "bytes-128+3968-of-256-v2"
    assert longer.read(longer.key(MODEL, HOLDOUT)) is None


def test_pools_do_not_share_cells(matrix: Matrix) -> None:
    matrix.write(cell(matrix))
    assert Matrix(matrix.store, "other", 256).read(matrix.key(MODEL, HOLDOUT)) is None


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-10], lambda b: b.replace(b"412", b"312"), lambda b: b"", lambda b: b"\xff" + b]
)
def test_a_damaged_cell_counts_as_absent(matrix: Matrix, damage: object) -> None:
    matrix.write(cell(matrix))
    (path,) = (matrix.store / "pools/pool/cells").iterdir()
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert matrix.read(matrix.key(MODEL, HOLDOUT)) is None


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_a_pipe_or_a_link_in_the_place_of_a_cell_is_an_absent_cell_and_is_replaced(
    matrix: Matrix, tmp_path: Path, kind: str
) -> None:
    matrix.write(cell(matrix))
    (path,) = tmp_path.rglob("*.json")
    outside = tmp_path / "outside"
    path.rename(outside)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(outside)
    assert matrix.read(matrix.key(MODEL, HOLDOUT)) is None
    before = outside.read_bytes()
    matrix.write(cell(matrix))
    assert matrix.read(matrix.key(MODEL, HOLDOUT)) == cell(matrix)
    assert outside.read_bytes() == before and path.is_file() and not path.is_symlink()


@pytest.mark.parametrize("part", ["pools", "pools/pool", "pools/pool/cells"])
def test_no_cell_is_read_or_written_outside_of_the_store(tmp_path: Path, part: str) -> None:
    matrix = Matrix(tmp_path / "store", "pool", 256)
    matrix.write(cell(matrix))
    outside = tmp_path / "outside"
    (matrix.store / part).rename(outside)
    (matrix.store / part).symlink_to(outside)
    before = {path: path.stat().st_mtime_ns for path in outside.rglob("*")}
    assert matrix.read(matrix.key(MODEL, HOLDOUT)) is None
    with pytest.raises(JobError, match=r"PathNotAllowed: .* is a link that leads out of"):
        matrix.write(cell(matrix))
    assert {path: path.stat().st_mtime_ns for path in outside.rglob("*")} == before
