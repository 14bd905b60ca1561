import pytest

from moe_operator.cluster.sound import Unreadable, is_time, sound


def test_what_is_as_it_should_be_is_not_copied(make):
    for kind in ("Job", "Pod", "Deployment", "ConfigMap", "Expert", "ReplicaSet"):
        manifest = make(
            kind, "a", spec={"x": 1}, status={"conditions": [{"type": "T", "status": "True"}]}, owner="o"
        )
        assert sound(manifest) is manifest


def test_what_has_the_wrong_type_is_left_out_and_named_once(make, caplog):
    job = make(
        "Job", "sound-job", spec={"parallelism": None, "suspend": "yes", "completions": True, "other": 1}
    )
    job["metadata"]["labels"] = {"a": "1", "b": 2}
    job["status"] = {
        "conditions": [{"type": "Complete"}, 7, {"type": "Failed", "status": "True", "reason": 1}]
    }
    result = sound(job)
    assert result["spec"] == {"other": 1}
    assert result["metadata"]["labels"] == {"a": "1"}
    assert result["status"]["conditions"] == [{"type": "Failed", "status": "True"}]
    assert job["spec"]["suspend"] == "yes", "the object itself is left alone"
    sound(job)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("Job ns/sound-job: ")
    for field in ("spec.suspend", "spec.completions", "metadata.labels.*", "status.conditions[].reason"):
        assert field in said
    assert "parallelism" not in said, "null is the same as absent"


def test_an_owner_without_a_uid_is_no_owner(make):
    pod = make("Pod", "sound-pod")
    pod["metadata"]["ownerReferences"] = [{"kind": "Job", "name": "j", "controller": True}, "x"]
    assert sound(pod)["metadata"]["ownerReferences"] == []


@pytest.mark.parametrize("field", ["name", "namespace", "uid", "resourceVersion"])
@pytest.mark.parametrize("value", [None, "", 7, []])
def test_what_cannot_be_told_from_others_is_refused(make, field, value):
    pod = make("Pod", "a")
    pod["metadata"][field] = value
    with pytest.raises(Unreadable, match=f"metadata.{field}"):
        sound(pod)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("2026-01-01T00:00:00Z", True),
        ("2026-01-01T00:00:00.123456Z", True),
        ("2026-01-01T00:00:00+02:00", True),
        ("2026-01-01T00:00:00", False),
        ("0000-01-01T00:00:00Z", False),
        ("0001-01-01T00:00:00Z", False),
        ("9999-12-31T23:59:59Z", False),
        ("yesterday", False),
        (7, False),
        (None, False),
    ],
)
def test_times(text, good):
    assert is_time(text) is good
