"""Cells are found again only under their whole identity, and only intact."""

from pathlib import Path

import pytest

from moe_trainer.evaluation.matrix import Cell, Matrix
from moe_trainer.job_config import ArtefactRef, HoldoutRef

MODEL = ArtefactRef(revision="code-1", path="models/code", digest="sha256:" + "a" * 64)
HOLDOUT = HoldoutRef(domain="code", expert="code", path="holdouts/code", digest="sha256:" + "b" * 64)


@pytest.fixture
def matrix(tmp_path: Path) -> Matrix:
    return Matrix(tmp_path, "pool")


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


def test_pools_do_not_share_cells(matrix: Matrix) -> None:
    matrix.write(cell(matrix))
    assert Matrix(matrix.store, "other").read(matrix.key(MODEL, HOLDOUT)) is None


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-10], lambda b: b.replace(b"412", b"312"), lambda b: b"", lambda b: b"\xff" + b]
)
def test_a_damaged_cell_counts_as_absent(matrix: Matrix, damage: object) -> None:
    matrix.write(cell(matrix))
    (path,) = (matrix.store / "pools/pool/cells").iterdir()
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert matrix.read(matrix.key(MODEL, HOLDOUT)) is None
