"""Why a grade Job has no result: the grader's fault, or ours."""

from datetime import UTC, datetime
from typing import Any

import pytest

from moe_formats.job_report import EXIT_INPUT_ERROR, Failure
from moe_formats.resources.reasons import Reason
from moe_operator.planner.attempts import POD_FAILURE_POLICY, incident_of
from moe_operator.state import ObservedJob, ObservedPod, Role

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def graded(
    *,
    headline: Failure | None = None,
    pods: bool = True,
    failure: tuple[str, str] | None = None,
    **pod: Any,
) -> ObservedJob:
    observed = ObservedPod("p", "u", "Failed", False, NOW, **pod)
    return ObservedJob(
        name="code-1-g1",
        uid="u1",
        role=Role.GRADE,
        revision="code-1",
        created=NOW,
        suspended=False,
        state="Failed",
        pods=(observed,) if pods else (),
        headline=headline,
        failure=failure,
    )


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (
            graded(container="grader-1-py-test", exit_code=3, message="no such\x1b[31m module\n"),
            ["grader py-test", "exit code 3: no such [31m module"],
        ),
        (graded(container="grader-0-pytest", exit_code=EXIT_INPUT_ERROR), ["exit code 64"]),
        (
            graded(
                container="grader-0-pytest",
                exit_code=137,
                ended=("DeadlineExceeded", "Pod was active on the node longer than the specified deadline"),
            ),
            ["grader pytest was not done in time", "longer than"],
        ),
        (
            graded(container="grade", ended=("Evicted", 'Usage of EmptyDir volume "gradings" exceeds')),
            ["was stopped", 'EmptyDir volume "gradings"'],
        ),
        (graded(pods=False), ["the pod of code-1-g1 is gone"]),
    ],
)
def test_whatever_a_grader_does_is_said_and_never_counted(job: ObservedJob, words: list[str]) -> None:
    incident = incident_of(job)
    assert (incident.reason, incident.counts, incident.final) == (Reason.GRADER_FAILED, False, False)
    for part in words:
        assert part in incident.message


def test_output_that_the_trainer_refuses_is_the_graders_fault() -> None:
    said = Failure(reason="GraderFailed", message="grader pytest: its output lacks 2 ids", retryable=True)
    incident = incident_of(graded(container="grade", exit_code=1, headline=said))
    assert (incident.reason, incident.counts, incident.final) == (Reason.GRADER_FAILED, False, False)


def test_our_own_containers_fail_as_in_any_other_job() -> None:
    crashed = incident_of(graded(container="handout", exit_code=1))
    assert (crashed.reason, crashed.counts, crashed.final) == (Reason.JOB_FAILED, True, False)
    corrupt = Failure(reason="ArtefactCorrupt", message="altered")
    assert incident_of(graded(container="handout", exit_code=64, headline=corrupt)).final
    assert incident_of(graded(pods=False, failure=(POD_FAILURE_POLICY, "exit code 64"))).final


def test_a_lost_node_is_nobodys_fault() -> None:
    lost = graded(container="grader-0-pytest", exit_code=137, disrupted=True)
    assert incident_of(lost).reason is Reason.RETRYING
