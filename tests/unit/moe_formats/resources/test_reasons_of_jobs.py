"""Every reason that a Job or a server can report is one that the API knows and docs/reasons.md explains."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from moe_formats import failure
from moe_formats.resources.reasons import Reason

ROOT = Path(__file__).parents[4]
ERRORS = {"JobError", "TransientError"}
#: Reasons that are not written where the error is made.
ELSEWHERE = {"PEER_LOST": failure.PEER_LOST}


def errors() -> Iterator[tuple[str, ast.expr]]:
    """Yield every place where an error of a Job is made, with the expression of its reason."""
    for package in ("trainer/moe_trainer", "formats/moe_formats", "web/moe_web"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node.args[0]


def reasons_of(expression: ast.expr) -> list[str]:
    """Return the reasons that an expression can stand for; none if it passes on another error's."""
    if isinstance(expression, ast.IfExp):
        return reasons_of(expression.body) + reasons_of(expression.orelse)
    if isinstance(expression, ast.Constant):
        return [str(expression.value)]
    if isinstance(expression, ast.Name):
        return [ELSEWHERE[expression.id]]
    assert isinstance(expression, ast.Attribute) and expression.attr == "reason", ast.unparse(expression)
    return []


@pytest.mark.parametrize(("place", "expression"), [pytest.param(*found, id=found[0]) for found in errors()])
def test_a_reason_that_a_job_reports_has_a_meaning(place: str, expression: ast.expr) -> None:
    for reason in reasons_of(expression):
        assert Reason(reason).meaning, place


def test_there_are_many() -> None:
    assert len(list(errors())) > 80


def test_what_escapes_a_command_is_one_of_them() -> None:
    assert Reason(failure.from_exception(ValueError("x")).reason).meaning
    assert Reason(failure.from_exception(OSError(28, "full")).reason).meaning
