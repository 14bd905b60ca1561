import json

from moe_operator.cluster.reduced import reduced
from moe_operator.cluster.sound import sound


def test_what_is_large_and_never_read_is_dropped(make):
    pod = make("Pod", "a", spec={"containers": []}, status={"phase": "Running"})
    pod["metadata"]["managedFields"] = [{}]
    pod["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "kept": "1"}
    kept = reduced(pod)
    assert "spec" not in kept
    assert "managedFields" not in kept["metadata"]
    assert kept["metadata"]["annotations"] == {"kept": "1"}
    assert pod["spec"] == {"containers": []}, "the object itself is left alone"


def test_of_a_replica_set_only_whose_it_is_is_kept(make):
    replica_set = make(
        "ReplicaSet", "a", spec={"template": {}}, status={"replicas": 1}, owner="D", annotations={"x": "y"}
    )
    kept = reduced(replica_set)
    assert kept.keys() == {"apiVersion", "kind", "metadata"}
    assert "annotations" not in kept["metadata"]
    assert kept["metadata"]["ownerReferences"][0]["uid"] == "D"


def test_a_pod_in_its_nodes_network_is_still_known_as_one(make):
    kept = reduced(make("Pod", "a", spec={"hostNetwork": True, "containers": [{}]}))
    assert kept["spec"] == {"hostNetwork": True}


def test_of_a_job_the_pod_template_is_not_kept(make):
    template = {"spec": {"activeDeadlineSeconds": 5, "containers": [{"name": "trainer", "image": "i"}]}}
    job = make("Job", "a", spec={"suspend": True, "parallelism": 2, "template": template, "backoffLimit": 0})
    kept = reduced(job)
    assert kept["spec"] == {
        "suspend": True,
        "parallelism": 2,
        "template": {"spec": {"activeDeadlineSeconds": 5}},
    }
    assert job["spec"]["template"] == template, "the object itself is left alone"


def test_of_a_pod_only_what_decisions_read_is_kept(make):
    state = {
        "terminated": {"exitCode": 1, "reason": "Error", "message": "m", "containerID": "c", "startedAt": "t"}
    }
    status = {
        "phase": "Failed",
        "hostIP": "10.0.0.1",
        "conditions": [{"type": "Ready", "status": "False", "lastProbeTime": None}],
        "containerStatuses": [{"name": "trainer", "image": "i", "state": state}],
    }
    kept = reduced(sound(make("Pod", "a", status=status)))["status"]
    assert kept == {
        "phase": "Failed",
        "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [
            {"name": "trainer", "state": {"terminated": {"exitCode": 1, "reason": "Error", "message": "m"}}}
        ],
    }


def test_what_is_compared_or_parsed_as_a_whole_is_kept_as_a_whole(make):
    for kind in ("Expert", "ExpertPool", "Deployment", "Service", "ConfigMap", "PersistentVolumeClaim"):
        manifest = make(kind, "a", spec={"x": {"y": [1, "z", None, {"w": 0.5}]}}, status={"v": True})
        assert reduced(manifest) == manifest


def test_equal_texts_are_held_once(make):
    one, two = (reduced(json.loads(json.dumps(make("Job", "a", pool="some-pool")))) for _ in range(2))
    assert one["metadata"]["labels"] is not two["metadata"]["labels"]
    assert one["metadata"]["name"] is two["metadata"]["name"]
    for name, other in zip(one["metadata"]["labels"], two["metadata"]["labels"], strict=True):
        assert name is other and one["metadata"]["labels"][name] is two["metadata"]["labels"][name]


def test_what_was_observed_of_traffic_is_not_held_twice(make):
    kept = reduced(make("ConfigMap", "p-observations", data={"a": "b"}, binaryData={"traffic": "AAAA"}))
    assert "binaryData" not in kept and kept["data"] == {"a": "b"}
