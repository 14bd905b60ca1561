import pytest

from moe_operator.cluster.job_pods import TRACKING, bears_marks, job_pods


@pytest.fixture
def job(make):
    return make("Job", "e-1-a1", uid="J", spec={"completions": 1, "completionMode": "NonIndexed"})


def ended(phase="Succeeded"):
    return {"phase": phase}


def names(pods):
    return [pod["metadata"]["name"] for pod in pods]


def test_a_pod_of_the_job_controller_is_believed_before_and_after_it_is_counted(job, job_pod):
    pod = job_pod(job, status=ended())
    assert names(job_pods(job, [pod]).believed) == ["e-1-a1-x7k2p"]
    del pod["metadata"]["finalizers"]
    assert job_pods(job, [pod]).believed == (), "nobody has counted it"
    for status in ({"succeeded": 1}, {"uncountedTerminatedPods": {"succeeded": [pod["metadata"]["uid"]]}}):
        assert job_pods({**job, "status": status}, [pod]).believed == (pod,)
    for status in ({"failed": 1}, {"succeeded": 0}, {"uncountedTerminatedPods": {"succeeded": ["another"]}}):
        assert job_pods({**job, "status": status}, [pod]).believed == ()


@pytest.mark.parametrize(
    "forged",
    [
        {"marks": {}},
        {"marks": {"batch.kubernetes.io/job-name": "e-1-a1"}},
        {
            "marks": {
                "batch.kubernetes.io/job-name": "e-1-a1",
                "batch.kubernetes.io/controller-uid": "another",
            }
        },
        {"name": "promoted-worthy"},
    ],
)
def test_a_pod_that_only_names_the_job_as_its_controller_is_not_its_pod(job, job_pod, forged):
    found = job_pods(job, [job_pod(job, status=ended(), **forged)])
    assert (found.pods, found.believed, found.doubt) == ((), (), None)


def test_two_pods_that_claim_one_place_are_both_not_believed(job, job_pod):
    real, forged = job_pod(job, status={"phase": "Running"}), job_pod(job, "zzzzz", status=ended())
    found = job_pods(job, [real, forged])
    assert (names(found.pods), found.believed) == (["e-1-a1-x7k2p", "e-1-a1-zzzzz"], ())
    assert "e-1-a1-x7k2p and e-1-a1-zzzzz both claim to be pod 0 of Job e-1-a1" in (found.doubt or "")


def test_a_gang_has_one_pod_per_place(make, job_pod):
    gang = make(
        "Job", "g", spec={"completions": 3, "completionMode": "Indexed"}, status={"completedIndexes": "0,2"}
    )
    pods = [job_pod(gang, index=index, status=ended(), finalizers=None) for index in range(3)]
    assert names(job_pods(gang, pods).believed) == ["g-0-x7k2p", "g-2-x7k2p"], "1 is not counted"
    beyond = job_pod(gang, index=3, status=ended())
    assert job_pods(gang, [beyond]).believed == ()
    second = job_pod(gang, "zzzzz", index=0, status=ended())
    found = job_pods(gang, [*pods, second])
    assert names(found.believed) == ["g-2-x7k2p"]
    assert "claim to be pod 0" in (found.doubt or "")


@pytest.mark.parametrize("text", ["0-999999999", "0-", "-", "x", "1-0", "9" * 50, "0,,2", "٣"])
def test_an_absurd_list_of_indexes_is_read_quickly(make, job_pod, text):
    job = make(
        "Job", "g", spec={"completions": 2, "completionMode": "Indexed"}, status={"completedIndexes": text}
    )
    found = job_pods(job, [job_pod(job, index=1, status=ended(), finalizers=None)])
    assert len(found.believed) == (text == "0-999999999"), "only this list has index 1 in it"


def test_long_names_are_cut_as_the_job_controller_cuts_them(make, job_pod):
    job = make("Job", "e" * 63, uid="J")
    pod = job_pod(job, name="e" * 58 + "abcde")
    assert bears_marks(pod, job["metadata"]["name"], "J")
    indexed = job_pod(job, index=12, name="e" * 54 + "-12-abcde")
    assert bears_marks(indexed, job["metadata"]["name"], "J")


def test_the_finalizer_is_the_one_of_the_job_controller():
    assert TRACKING == "batch.kubernetes.io/job-tracking"
