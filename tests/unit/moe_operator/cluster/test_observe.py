import json

import pytest

from moe_formats.job_report import Failure
from moe_operator.cluster.job_pods import JobPods
from moe_operator.cluster.observe import observed_gateway, observed_job, observed_pod, observed_server
from moe_operator.state import ObservedGateway

DIGEST = "sha256:" + "0" * 64


def conditions(*types):
    return [{"type": type_, "status": "True", "reason": "R", "message": "M"} for type_ in types]


def ended(message="", code=0, reason="Completed"):
    return [{"state": {"terminated": {"exitCode": code, "reason": reason, "message": message}}}]


def trusted(*pods):
    """Return pods of a Job that are all believed: test_job_pods.py tests which are."""
    return JobPods(pods, pods)


def a_job(make, *, suspend=False, types=()):
    return make(
        "Job",
        "j",
        role="train",
        revision="e-1",
        spec={"suspend": suspend},
        status={"conditions": conditions(*types)},
    )


@pytest.mark.parametrize(
    ("suspend", "types", "state"),
    [
        (True, (), "Suspended"),
        (True, ("Suspended",), "Suspended"),
        (False, (), "Running"),
        (False, ("FailureTarget",), "Running"),
        (False, ("SuccessCriteriaMet",), "Running"),
        (False, ("SuccessCriteriaMet", "Complete"), "Succeeded"),
        (False, ("FailureTarget", "Failed"), "Failed"),
    ],
)
def test_the_state_of_a_job(make, suspend, types, state):
    job = observed_job(a_job(make, suspend=suspend, types=types), trusted(), None)
    assert job.state == state
    assert job.failure == (("R", "M") if state == "Failed" else None)


def test_the_headline_of_the_newest_pod_that_left_one(make):
    def pod(name, day, message, code):
        status = {"phase": "Failed", "containerStatuses": ended(message, code)}
        return make("Pod", name, created=f"2026-01-0{day}T00:00:00Z", status=status)

    def failure(text):
        return Failure(reason="LossNotFinite", message=text).to_json()

    pods = [pod("b", 2, failure("new"), 1), pod("a", 1, failure("old"), 1), pod("c", 3, "no headline", 137)]
    job = observed_job(a_job(make), trusted(*pods), None)
    assert isinstance(job.headline, Failure)
    assert job.headline.message == "new"
    assert [pod.name for pod in job.pods] == ["a", "b", "c"]


def test_what_a_gang_reports_is_a_result_before_a_cause_before_its_echoes(make):
    def pods(*messages):
        status = [{"phase": "Failed", "containerStatuses": ended(message, 1)} for message in messages]
        return [
            make("Pod", f"p{day}", created=f"2026-01-0{day}T00:00:00Z", status=status[day - 1])
            for day in range(1, len(messages) + 1)
        ]

    echo = Failure(reason="PeerLost", message="gone", retryable=True).to_json()
    cause = Failure(reason="LossNotFinite", message="step 7").to_json()
    assert (
        observed_job(a_job(make), trusted(*pods(cause, echo, echo)), None).headline.reason == "LossNotFinite"
    )
    assert observed_job(a_job(make), trusted(*pods(echo, echo)), None).headline.reason == "PeerLost"


def test_an_unreadable_headline_is_none(make):
    pods = [make("Pod", "a", status={"phase": "Succeeded", "containerStatuses": ended('{"kind": "train"')})]
    assert observed_job(a_job(make), trusted(*pods), None).headline is None


UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}


def waits(reason, message=""):
    return [{"state": {"waiting": {"reason": reason, "message": message}}}]


@pytest.mark.parametrize(
    ("status", "waiting"),
    [
        ({"phase": "Pending", "conditions": [UNSCHEDULABLE]}, ("Unschedulable", "0/1 nodes")),
        ({"phase": "Pending", "containerStatuses": waits("ErrImagePull", "no")}, ("ErrImagePull", "no")),
        ({"phase": "Pending", "containerStatuses": waits("ContainerCreating")}, None),
        (
            {"phase": "Running", "containerStatuses": waits("CrashLoopBackOff", "x")},
            ("CrashLoopBackOff", "x"),
        ),
        ({}, None),
    ],
)
def test_why_a_pod_waits(make, status, waiting):
    assert observed_pod(make("Pod", "a", status=status)).waiting == waiting


def test_how_a_pod_ended(make):
    status = {
        "phase": "Failed",
        "containerStatuses": ended("last words", 137, "OOMKilled"),
        "conditions": conditions("DisruptionTarget"),
    }
    pod = observed_pod(make("Pod", "a", status=status))
    assert (pod.exit_code, pod.exit_reason, pod.message, pod.disrupted) == (
        137,
        "OOMKilled",
        "last words",
        True,
    )


@pytest.mark.parametrize(
    ("phase", "ready", "containers_ready", "lost"),
    [
        ("Running", "False", "True", True),
        ("Running", "True", "True", False),
        ("Running", "False", "False", False),
        ("Pending", "False", "True", False),
        ("Failed", "False", "True", False),
    ],
)
def test_a_pod_whose_node_no_longer_reports_is_lost_with_it(make, phase, ready, containers_ready, lost):
    """The node controller sets Ready to False and nothing else; a kubelet sets both conditions together."""
    found = [{"type": "Ready", "status": ready}, {"type": "ContainersReady", "status": containers_ready}]
    pod = observed_pod(make("Pod", "a", status={"phase": phase, "conditions": found}))
    assert pod.lost is lost


def a_server(make, *, replicas=1, status=None, config=None):
    env = [{"name": "MOE_SERVE_CONFIG", "value": config or json.dumps({"artefact": {"digest": DIGEST}})}]
    template = {"spec": {"containers": [{"env": env}]}}
    return make(
        "Deployment",
        "e-1",
        role="server",
        revision="e-1",
        spec={"replicas": replicas, "template": template},
        status=status or {},
    )


def test_a_server_is_known_by_the_revision_that_it_serves(make):
    server = observed_server(a_server(make), [])
    assert server.name == "e-1"


def test_a_ready_gateway_that_has_not_answered_reports_none(make):
    ready = {"phase": "Running", "conditions": conditions("Ready")}
    pods = [
        make("Pod", "a", uid="1", status=ready),
        make("Pod", "b", uid="2", status=ready),
        make("Pod", "c", uid="3", status={"phase": "Pending"}),
        make("Pod", "d", uid="4", status=ready, deleted="2026-01-01T00:00:00Z"),
    ]
    gateway = observed_gateway(make("Deployment", "g", spec={}), pods, {"1": "sha256:x"})
    assert dict(gateway.reported) == {"a": "sha256:x", "b": None}
    assert observed_gateway(None, [], {}) == ObservedGateway()


def init(name, state):
    return {"name": name, "state": state}


def test_an_init_container_that_fails_speaks_for_its_pod(make):
    status = {
        "phase": "Failed",
        "reason": "DeadlineExceeded",
        "message": "too long",
        "initContainerStatuses": [
            init("handout", {"terminated": {"exitCode": 0}}),
            init("grader-0-pytest", {"terminated": {"exitCode": 3, "reason": "Error", "message": "oh"}}),
        ],
        "containerStatuses": [init("grade", {"waiting": {"reason": "PodInitializing"}})],
    }
    pod = observed_pod(make("Pod", "a", status=status))
    assert (pod.container, pod.exit_code, pod.message) == ("grader-0-pytest", 3, "oh")
    assert pod.ended == ("DeadlineExceeded", "too long")


def test_an_init_container_that_cannot_start_says_why(make):
    status = {
        "phase": "Pending",
        "initContainerStatuses": [
            init("handout", {"terminated": {"exitCode": 0}}),
            init("grader-0-pytest", {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}),
        ],
        "containerStatuses": [init("grade", {"waiting": {"reason": "PodInitializing"}})],
    }
    assert observed_pod(make("Pod", "a", status=status)).waiting == ("ErrImagePull", "no such image")
    running = {**status, "initContainerStatuses": [init("handout", {"running": {}})]}
    pod = observed_pod(make("Pod", "a", status=running))
    assert (pod.container, pod.waiting) == ("grade", None)


def test_what_a_grader_says_is_never_taken_for_a_report(make):
    forged = Failure(reason="LossNotFinite", message="forged").to_json()

    def pod(container):
        states = [init(container, {"terminated": {"exitCode": 1, "message": forged}})]
        return make("Pod", "a", status={"phase": "Failed", "initContainerStatuses": states})

    assert observed_job(a_job(make), trusted(pod("grader-0-pytest")), None).headline is None
    assert observed_job(a_job(make), trusted(pod("handout")), None).headline.message == "forged"


def test_of_a_pod_that_is_not_believed_only_that_it_is_there_counts(make):
    failure = Failure(reason="LossNotFinite", message="forged").to_json()
    status = {"phase": "Failed", "reason": "DeadlineExceeded", "containerStatuses": ended(failure, 64)}
    job = observed_job(a_job(make), JobPods((make("Pod", "a", status=status),), (), "two pods"), None)
    (pod,) = job.pods
    assert (job.headline, job.doubt) == (None, "two pods")
    assert (pod.phase, pod.exit_code, pod.message, pod.ended) == ("Failed", None, "", None)
