"""A served revision keeps the pod template that its Deployment was made with."""

import json
from typing import Any

import pytest

from moe_operator.builders.server import PROFILE, TEMPERATURE, TEMPLATE, frozen

LABELS = {"role": "server", "revision": "code-1"}


def deployment(image: str, profile: str = "cpu", temperature: str | None = None) -> dict[str, Any]:
    containers = [{"name": "server", "image": image}]
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": containers}}
    annotations = {TEMPLATE: json.dumps(template), PROFILE: profile}
    if temperature is not None:
        annotations[TEMPERATURE] = temperature
    return {
        "metadata": {"annotations": annotations},
        "spec": {"selector": {"matchLabels": LABELS}, "template": template},
    }


def test_the_template_of_a_served_revision_stays_as_it_was_made() -> None:
    assert frozen(deployment("new"), deployment("old")) == deployment("old")
    assert frozen(deployment("new"), None) == deployment("new")


def test_another_profile_in_the_spec_makes_a_new_template() -> None:
    assert frozen(deployment("new", "gpu"), deployment("old", "cpu")) == deployment("new", "gpu")


def test_another_temperature_in_the_spec_or_none_makes_a_new_template() -> None:
    cold, warm = deployment("new", temperature="0.2"), deployment("old", temperature="0.7")
    assert frozen(cold, warm) == cold
    assert frozen(deployment("new"), warm) == deployment("new")
    assert frozen(deployment("new", temperature="0.7"), warm) == warm


@pytest.mark.parametrize(
    "recorded",
    [
        "",
        "not JSON",
        "[" * 100_000,
        "null",
        "[]",
        "7",
        "{}",
        json.dumps({"metadata": {"labels": LABELS}, "spec": None}),
        json.dumps({"metadata": {"labels": LABELS}, "spec": {"containers": []}}),
        json.dumps({"metadata": {"labels": LABELS}, "spec": {"containers": [1]}}),
        json.dumps({"metadata": {"labels": []}, "spec": {"containers": [{"name": "server"}]}}),
        json.dumps({"metadata": {"labels": {"role": "other"}}, "spec": {"containers": [{"name": "server"}]}}),
    ],
)
def test_a_recorded_template_that_cannot_be_used_is_replaced(recorded: str) -> None:
    live = deployment("old")
    live["metadata"]["annotations"][TEMPLATE] = recorded
    assert frozen(deployment("new"), live) == deployment("new")
