import pytest

from moe_operator.subset import is_subset


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
