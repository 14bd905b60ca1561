from __future__ import annotations

import pytest

from moe_local.agent.pod import Port, Probe
from moe_local.agent.probes import Tracker, port_number


def test_a_value_changes_when_enough_results_in_a_row_agree() -> None:
    tracker = Tracker(Probe(success_threshold=2, failure_threshold=3), value=False)
    results = [True, False, True, True, False, False, True, False, False, False]
    changes = [tracker.add(result) for result in results]
    assert changes == [False, False, False, True, False, False, False, False, False, True]
    assert tracker.value is False


def test_a_startup_probe_that_never_passes_is_reported_though_its_value_stays() -> None:
    tracker = Tracker(Probe(failure_threshold=2), value=False)
    assert [tracker.add(False) for _ in range(3)] == [False, True, False]


def test_a_port_is_a_number_or_a_name_of_the_container() -> None:
    ports = (Port(name="http", container_port=8080),)
    assert port_number("http", ports) == 8080
    assert port_number(9, ports) == 9
    assert port_number("81", ports) == 81
    with pytest.raises(ValueError, match="no port named 'grpc'"):
        port_number("grpc", ports)
