import logging

import pytest

from moe_operator.cluster.confine import LONGEST_ERROR, confined, name_of


def test_a_failure_is_logged_once_with_the_objects_name_and_goes_no_further(make, caplog):
    pod = make("Pod", "confined-once")
    for _ in range(3):
        with confined(pod, "reading it"):
            raise KeyError("podIP")
    with confined(make("Pod", "confined-too"), "reading it"):
        raise KeyError("podIP")
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == 2
    assert said[0].startswith("Pod ns/confined-once: reading it failed (KeyError in test_confine.py:")
    assert said[1].startswith("Pod ns/confined-too")


def test_a_huge_error_is_cut(make, caplog):
    with confined(make("Pod", "confined-huge"), "reading it"):
        raise ValueError("x" * 1_000_000)
    assert len(caplog.records[-1].getMessage()) < LONGEST_ERROR + 200


def test_an_interruption_is_not_kept_back(make):
    with pytest.raises(KeyboardInterrupt), confined(make("Pod", "x"), "reading it"):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("about", "name"),
    [
        (None, "an object ?/?"),
        ([], "an object ?/?"),
        ({"kind": "Pod", "metadata": None}, "Pod ?/?"),
        ({"kind": "Pod", "metadata": {"name": ["x"], "namespace": 7}}, "Pod 7/['x']"),
    ],
)
def test_whatever_it_is_has_a_name(about, name):
    assert name_of(about) == name
