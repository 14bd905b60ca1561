from typing import Any

import pytest

from moe_operator.subset import is_as_desired, is_subset, replacement


@pytest.mark.parametrize(
    ("desired", "live"),
    [
        ({"a": 1}, {"a": 1, "default": 2}),
        ({"a": {"b": "x"}}, {"a": {"b": "x", "c": "y"}}),
        ({"args": ["a", "b"]}, {"args": ["a", "b"]}),
        (
            {"ports": [{"name": "http", "port": 80}]},
            {"ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
        ),
        ({"requests": {"cpu": "1000m", "memory": "1024Mi"}}, {"requests": {"cpu": "1", "memory": "1Gi"}}),
        ({"labels": {}, "list": []}, {}),
    ],
)
def test_what_the_server_adds_is_no_drift(desired, live):
    assert is_subset(desired, live)


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
        ({"env": [{"name": "A", "value": "1"}]}, {"env": [{"name": "A", "value": "1"}, {"name": "ADDED"}]}),
        ({"requests": {"cpu": "2"}}, {"requests": {"cpu": "1"}}),
        ({"paused": True}, {"paused": False}),
    ],
)
def test_an_edited_or_missing_value_is_drift(desired, live):
    assert not is_subset(desired, live)


@pytest.mark.parametrize(
    ("desired", "live", "same"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, {}, False),
        ({"a": [{"x": 1}]}, {"a": [{"x": 1, "y": 2}]}, True),
        ({"a": [1]}, {"a": [1, 2]}, False),
        ({"a": {}}, {}, True),
        ({"requests": {"cpu": "0.5"}}, {"requests": {"cpu": "500m"}}, True),
        ({"limits": {"memory": "1024Mi"}}, {"limits": {"memory": "1Gi"}}, True),
        ({"limits": {"memory": "1Gi"}}, {"limits": {"memory": "1G"}}, False),
        ({"limits": {"memory": "1Gi"}}, {"limits": {}}, False),
    ],
)
def test_desired_must_be_a_subset_of_live(desired: object, live: object, same: bool) -> None:
    assert is_subset(desired, live) is same


@pytest.mark.parametrize(
    ("desired", "live", "change"),
    [
        ({"spec": {"selector": {"a": "1"}}}, {"spec": {"selector": {"a": "1"}, "type": "ClusterIP"}}, None),
        (
            {"spec": {"selector": {"a": "1"}}},
            {"spec": {"selector": {"a": "1", "b": "2"}, "type": "ClusterIP"}},
            {"spec": {"selector": {"a": "1", "b": None}}},
        ),
        (
            {"selector": {"matchLabels": {"a": "1"}}},
            {"selector": {"matchLabels": {"a": "1", "b": "2"}}},
            {"selector": {"matchLabels": {"a": "1", "b": None}}},
        ),
        ({"spec": {}}, {"spec": {"nodeSelector": {"a": "1"}}}, {"spec": {"nodeSelector": {"a": None}}}),
        ({"spec": {}}, {"spec": {"nodeSelector": {}}}, None),
        ({"data": {"a": "1"}}, {"data": {"a": "0", "b": "2"}}, {"data": {"a": "1", "b": None}}),
        ({"data": {}}, {"binaryData": {"b": "2"}}, {"data": {}, "binaryData": {"b": None}}),
        ({"metadata": {"labels": {"a": "1"}}}, {"metadata": {"labels": {"a": "1", "b": "2"}}}, None),
        ({"limits": {"memory": "1Gi"}}, {"limits": {"memory": "1024Mi", "cpu": "1"}}, None),
        ({"list": [1]}, {"list": [1, 2]}, {"list": [1]}),
    ],
)
def test_a_map_that_is_ours_alone_holds_nothing_else(desired: Any, live: Any, change: Any) -> None:
    assert is_as_desired(desired, live) is (change is None)
    if change is not None:
        assert replacement(desired, live) == change
