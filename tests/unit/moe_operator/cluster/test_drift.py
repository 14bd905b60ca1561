import pytest

from moe_operator.cluster.drift import APPLIED, drifted, stamped


@pytest.mark.parametrize(
    ("desired", "live"),
    [
        ({"a": 1}, {"a": 1, "default": 2}),
        ({"a": {"b": "x"}}, {"a": {"b": "x", "c": "y"}}),
        ({"args": ["a", "b"]}, {"args": ["a", "b"]}),
        ({"env": [{"name": "A", "value": "1"}]}, {"env": [{"name": "B"}, {"name": "A", "value": "1"}]}),
        (
            {"ports": [{"name": "http", "port": 80}]},
            {"ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
        ),
        ({"cpu": "1000m", "memory": "1024Mi"}, {"cpu": "1", "memory": "1Gi"}),
        ({"cpu": 1}, {"cpu": "1"}),
        ({"readOnly": False, "labels": {}, "list": []}, {}),
    ],
)
def test_what_the_server_and_others_add_is_no_drift(desired, live):
    assert not drifted(desired, live)


@pytest.mark.parametrize(
    ("desired", "live"),
    [
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {}),
        ({"a": {"b": 1}}, {"a": "text"}),
        ({"args": ["a", "b"]}, {"args": ["a"]}),
        ({"args": ["a", "b"]}, {"args": ["b", "a"]}),
        ({"env": [{"name": "A", "value": "1"}]}, {"env": [{"name": "A", "value": "2"}]}),
        ({"env": [{"name": "A", "value": "1"}]}, {"env": []}),
        ({"cpu": "2"}, {"cpu": "1"}),
        ({"paused": True}, {"paused": False}),
    ],
)
def test_an_edited_or_missing_value_is_drift(desired, live):
    assert drifted(desired, live)


def test_a_field_that_is_no_longer_asked_for_is_drift():
    before = stamped({"metadata": {"name": "a"}, "data": {"kept": "1", "dropped": "2"}})
    now = stamped({"metadata": {"name": "a"}, "data": {"kept": "1"}})
    assert drifted(now, before)
    assert not drifted(before, before)


def test_the_stamp_depends_on_the_manifest_only():
    manifest = {"metadata": {"name": "a", "annotations": {"x": "y"}}, "data": {"b": "1", "a": "2"}}
    reordered = {"data": {"a": "2", "b": "1"}, "metadata": {"annotations": {"x": "y"}, "name": "a"}}
    assert (
        stamped(manifest)["metadata"]["annotations"][APPLIED]
        == stamped(reordered)["metadata"]["annotations"][APPLIED]
    )
    assert APPLIED not in manifest["metadata"]["annotations"]
