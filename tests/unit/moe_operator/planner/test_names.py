"""Names are short enough, and attempts are read back from them."""

import pytest

from moe_operator.planner.names import (
    attempt_of,
    distill_job_name,
    evaluate_job_name,
    expert_of,
    revision_of,
    snapshot_job_name,
    training_job_name,
)

LONGEST = "a" * 40


@pytest.mark.parametrize(
    "name",
    [
        training_job_name(f"{LONGEST}-12345", 12),
        evaluate_job_name(f"{LONGEST}-12345", 12),
    ],
)
def test_names_of_indexed_jobs_leave_room_for_the_index_of_a_pod(name: str) -> None:
    assert len(name) <= 61


def test_names_of_other_jobs_are_labels() -> None:
    assert len(snapshot_job_name(LONGEST, "request", 12)) <= 63
    assert len(distill_job_name(LONGEST, "roster", 12)) <= 63


@pytest.mark.parametrize("attempt", [1, 2, 11])
def test_attempts_are_read_back(attempt: int) -> None:
    for name in (
        training_job_name("code-1", attempt),
        evaluate_job_name("code-1", attempt),
        *(snapshot_job_name("code", str(request), attempt) for request in range(50)),
    ):
        assert attempt_of(name) == attempt


def test_the_end_of_a_digest_is_never_taken_for_an_attempt() -> None:
    assert attempt_of("code-snapshot-a1234567") == 1
    assert attempt_of("code-snapshot-e1234567") == 1


def test_a_revision_says_whose_it_is() -> None:
    assert expert_of("number-theory-12") == "number-theory"


@pytest.mark.parametrize(
    ("job", "revision"),
    [
        (training_job_name("code-1", 12), "code-1"),
        (evaluate_job_name("code-a1-12", 3), "code-a1-12"),
        (snapshot_job_name("code-1-a1", "request", 1), None),
        (distill_job_name("code-1", "roster", 2), None),
        ("code-1", None),
    ],
)
def test_a_jobs_name_says_which_revision_it_works_for(job: str, revision: str | None) -> None:
    assert revision_of(job) == revision
