from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_local.agent import quantity
from moe_local.agent.admission import refusal, requests

CAPACITY = {"cpu": "2", "memory": "4Gi", "pods": "3"}


def asking(make_pod: Any, cpu: str, memory: str = "1Gi") -> Any:
    return make_pod(containers=[{"name": "main", "resources": {"requests": {"cpu": cpu, "memory": memory}}}])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500m", "0.5"),
        ("2", "2"),
        ("4Gi", str(4 * 2**30)),
        ("1e3", "1000"),
        ("1.5k", "1500"),
        ("1E", "1" + "0" * 18),
    ],
)
def test_quantities(text: str, value: str) -> None:
    assert quantity.parse(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "x", "1 Gi", "1KiB", "--1", "1e"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        quantity.parse(text)


@given(st.integers(0, 10**6), st.sampled_from(["1", "1m", "1k", "1Ki", "7"]))
def test_units_are_rounded_up(milli: int, divisor: str) -> None:
    units = quantity.in_units_of(f"{milli}m", divisor)
    one = quantity.parse(divisor)
    assert units * one >= Decimal(milli) / 1000 > (units - 1) * one


def test_a_pod_fits_until_a_resource_is_used_up(make_pod: Any) -> None:
    pod = asking(make_pod, "1")
    assert refusal(pod, [pod], CAPACITY) is None
    refused = refusal(pod, [pod, pod], CAPACITY)
    assert refused is not None
    assert (refused.reason, refused.phase) == ("OutOfcpu", "Failed")
    assert "requested: 1, used: 2, capacity: 2" in refused.message
    small = asking(make_pod, "10m")
    full = refusal(small, [small, small, small], CAPACITY)
    assert full is not None
    assert full.reason == "OutOfpods"


def test_an_extended_resource_that_the_node_lacks_is_refused(make_pod: Any) -> None:
    pod = make_pod(containers=[{"name": "main", "resources": {"limits": {"nvidia.com/gpu": "1"}}}])
    refused = refusal(pod, [], CAPACITY)
    assert refused is not None
    assert refused.reason == "OutOfnvidia.com/gpu"


def test_init_containers_count_where_they_are_greedier(make_pod: Any) -> None:
    containers = [{"name": n, "resources": {"requests": {"cpu": "500m"}}} for n in ("a", "b")]
    init = [{"name": "i", "resources": {"requests": {"cpu": "3"}}}]
    assert requests(make_pod(containers=containers))["cpu"] == 1
    assert requests(make_pod(containers=containers, initContainers=init))["cpu"] == 3
