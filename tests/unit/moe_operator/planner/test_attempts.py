"""What has become of a piece of work, from the Jobs that attempted it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from moe_formats.job_report import EXIT_INPUT_ERROR, Failure, TrainHeadline
from moe_formats.resources.reasons import Reason
from moe_operator.planner.attempts import POD_FAILURE_POLICY, assess, incident_of
from moe_operator.planner.times import LAST_RETRY
from moe_operator.state import ObservedJob, ObservedPod, Role

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
DIGEST = "sha256:" + "0" * 64
DONE = TrainHeadline(report=DIGEST, path="p", digest=DIGEST, steps=1, tokens=1, final_loss=1.0, parameters=1)


def pod(phase: str = "Failed", **fields: Any) -> ObservedPod:
    return ObservedPod("p", "u", phase, False, NOW, **fields)


def job(attempt: int = 1, state: str = "Failed", **fields: Any) -> ObservedJob:
    fields.setdefault("finished", NOW - timedelta(hours=1) if state in ("Failed", "Succeeded") else None)
    return ObservedJob(
        name=f"code-1-a{attempt}",
        uid=f"u{attempt}",
        role=Role.TRAIN,
        created=NOW - timedelta(hours=2),
        suspended=state == "Suspended",
        state=state,  # type: ignore[arg-type]
        **fields,
    )


def work(*jobs: ObservedJob, **options: Any) -> Any:
    return assess(jobs, expect=TrainHeadline, now=NOW, **options)


def test_nothing_made_yet_is_wanted() -> None:
    assert (work().state, work().number) == ("Wanted", 1)


def test_attempts_whose_jobs_are_gone_are_counted() -> None:
    assert work(made=3).number == 4


def test_a_result_counts_whatever_came_after() -> None:
    found = work(job(1, "Succeeded", headline=DONE), job(2, "Running"))
    assert (found.state, found.number) == ("Done", 1)


def test_the_result_of_a_gang_counts_while_others_of_it_still_end() -> None:
    ended, ending = pod("Succeeded", exit_code=0), pod("Running")
    assert work(job(1, "Running", pods=(ended, ending), headline=DONE, width=2)).state == "Done"


def test_a_gang_that_lost_a_pod_fails_as_a_whole_and_the_next_waits_for_its_other_pods() -> None:
    lost = job(1, pods=(pod("Failed", disrupted=True), pod("Running")), width=2)
    assert work(lost).state == "Ending"
    gone = job(1, pods=(pod("Failed", disrupted=True), pod("Succeeded", exit_code=0)), width=2)
    found = work(gone)
    assert (found.state, found.number, found.incident.counts) == ("Wanted", 2, False)


def test_a_job_under_way_is_waited_for() -> None:
    assert work(job(1), job(2, "Running")).state == "Running"
    assert work(job(1, "Suspended")).state == "Running"


def test_the_next_attempt_comes_only_when_the_old_pods_are_gone() -> None:
    assert work(job(pods=(pod("Running"),))).state == "Ending"
    assert work(orphans=[pod("Running")]).state == "Ending"
    assert work(job(pods=(pod("Failed", exit_code=1),))).state == "Wanted"


def test_an_input_error_fails_at_once() -> None:
    by_headline = work(job(headline=Failure(reason="LossNotFinite", message="step 7")))
    assert (by_headline.state, by_headline.incident.reason) == ("Failed", Reason.LOSS_NOT_FINITE)
    assert work(job(pods=(pod(exit_code=64),))).state == "Failed"
    assert work(job(failure=("PodFailurePolicy", "exit code 64"))).state == "Failed"


def test_no_incident_says_what_changes_how_it_is_shown() -> None:
    said = Failure(reason="DataUnreadable", message="file a\x1b[31m\u202e.txt\nis bad")
    incident = incident_of(job(headline=said))
    assert incident.message.isprintable() and "is bad" in incident.message


def test_incidents_are_limited_and_disruptions_are_not() -> None:
    lost = [job(attempt, pods=(pod(exit_code=137, disrupted=True),)) for attempt in range(1, 9)]
    assert work(*lost, limit=2).state == "Wanted"
    failed = [job(attempt, pods=(pod(exit_code=1),)) for attempt in (1, 2)]
    assert work(*failed, limit=2).state == "Failed"
    assert work(*failed, limit=3).number == 3


def test_the_last_incident_counts_only_once_the_fate_of_every_pod_is_known() -> None:
    """The peers of a pod end long before anybody knows that its node is lost: then it is deleted, but has not ended."""
    lost_peer = Failure(reason="PeerLost", message="a peer is gone", retryable=True)
    told = pod("Failed", exit_code=75, message="")
    silent = pod("Running", deleting=True)
    before = [job(attempt) for attempt in (1, 2, 3)]
    found = work(*before, job(4, pods=(told, silent), headline=lost_peer, width=2))
    assert (found.state, found.number) == ("Ending", 5)
    noted = job(4, pods=(told,), headline=lost_peer, width=2, taken="code-1-a4 lost its node")
    assert (work(*before, noted).state, work(*before, noted).incident.counts) == ("Wanted", False)
    ended = job(4, pods=(told, pod("Failed", exit_code=137)), headline=lost_peer, width=2)
    assert work(*before, ended).state == "Failed"


def test_wrong_input_fails_at_once_whatever_the_other_pods_do() -> None:
    wrong = Failure(reason="LossNotFinite", message="step 7")
    assert work(job(1, pods=(pod("Running", deleting=True),), headline=wrong, width=2)).state == "Failed"


def test_what_an_evicted_pod_and_its_peers_say_does_not_make_it_a_failure() -> None:
    said = Failure(reason="PeerLost", message="another process is gone", retryable=True)
    evicted = [
        job(n, headline=said, pods=(pod(exit_code=1), pod(exit_code=1, disrupted=True))) for n in range(1, 9)
    ]
    assert work(*evicted, limit=2).state == "Wanted"
    wrong = Failure(reason="LossNotFinite", message="step 7")
    assert work(job(headline=wrong, pods=(pod(exit_code=1, disrupted=True),))).state == "Failed"


def test_a_full_disk_is_waited_out() -> None:
    full = [
        job(attempt, headline=Failure(reason="DiskFull", message="", retryable=True))
        for attempt in range(1, 9)
    ]
    assert work(*full, limit=2).state == "Wanted"


def test_waits_double_and_are_capped() -> None:
    waits = []
    for count in range(1, 12):
        jobs = [job(attempt, pods=(pod(exit_code=1),), finished=NOW) for attempt in range(1, count + 1)]
        waits.append(work(*jobs, limit=99).wait)
    assert waits[:3] == [10, 20, 40]
    assert waits[-1] == LAST_RETRY.total_seconds()


def test_a_headline_may_come_a_little_after_the_end_of_its_job() -> None:
    assert work(job(1, "Succeeded", finished=NOW)).state == "Ending"
    assert work(job(1, "Succeeded", finished=NOW - timedelta(seconds=11))).state != "Ending"


def test_a_success_without_a_readable_report_is_an_incident() -> None:
    found = work(job(1, "Succeeded", pods=(pod("Succeeded", exit_code=0),)))
    assert (found.state, found.number) == ("Wanted", 2)
    assert "no readable report" in found.incident.message


def test_the_last_words_of_a_pod_are_passed_on() -> None:
    found = work(job(pods=(pod(exit_code=137, exit_reason="OOMKilled", message="before the end\n"),)))
    assert "exit code 137 (OOMKilled): before the end" in found.incident.message


LATE = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")


@pytest.mark.parametrize("headline", [None, Failure(reason="Interrupted", message="SIGTERM", retryable=True)])
def test_a_job_that_ran_too_long_is_not_tried_again_whatever_it_said_at_its_end(
    headline: Failure | None,
) -> None:
    late = job(pods=(pod(exit_code=143, ended=LATE),), headline=headline, deadline=2_592_000)
    found = work(late)
    assert (found.state, found.incident.reason) == ("Failed", Reason.DEADLINE_EXCEEDED)
    assert found.incident.message == (
        "code-1-a1 was stopped because it ran longer than its deadline of 2592000 s. Give it less to do, or raise "
        "deadlineSeconds.train in the chart's values"
    )


def test_one_pod_of_a_gang_that_ran_too_long_is_enough() -> None:
    late = job(pods=(pod(exit_code=1), pod(exit_code=143, ended=LATE)), width=2)
    assert work(late).incident.reason is Reason.DEADLINE_EXCEEDED


def test_a_result_that_came_in_time_counts_even_if_the_pod_was_stopped() -> None:
    assert work(job(pods=(pod(exit_code=143, ended=LATE),), headline=DONE)).state == "Done"


def test_a_pod_that_filled_the_disk_of_its_node_says_which_limit() -> None:
    full = ("Evicted", 'Usage of EmptyDir volume "scratch" exceeds the limit "50Gi". ')
    found = work(job(pods=(pod(exit_code=137, ended=full),)))
    assert (found.state, found.incident.reason) == ("Wanted", Reason.JOB_FAILED)
    for part in (
        'EmptyDir volume "scratch" exceeds the limit "50Gi"',
        "ephemeral-storage",
        "hardware profile",
    ):
        assert part in found.incident.message
    assert work(*(job(number, pods=(pod(ended=full),)) for number in range(1, 5))).state == "Failed"


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


def test_a_job_whose_pods_contradict_each_other_is_attempted_again_without_end() -> None:
    doubt = "pods a and b both claim to be pod 0"
    jobs = [job(number, state="Failed", doubt=doubt) for number in range(1, 9)]
    incident = incident_of(jobs[-1])
    assert (incident.reason, incident.message) == (Reason.REPORT_CONTESTED, doubt)
    assert (incident.counts, incident.final) == (False, False)
    assert work(*jobs).state in ("Backoff", "Wanted")
    by_rule = job(state="Failed", doubt=doubt, failure=("PodFailurePolicy", "exit code 64"))
    assert not incident_of(by_rule).final, "somebody else's pod may have ended with that code"
