from __future__ import annotations

from typing import Any

import pytest

from moe_local.agent.environment import ConfigurationError
from moe_local.agent.security import asked_group, asked_user, memory_limit

from .conftest import MakePod

MAIN: dict[str, Any] = {"name": "main", "command": ["true"]}


@pytest.mark.parametrize(
    ("shared", "own", "user"),
    [
        ({}, {}, None),
        ({"runAsUser": 5}, {}, 5),
        ({"runAsUser": 5}, {"runAsUser": 6}, 6),
        ({"runAsUser": 0, "runAsNonRoot": True}, {"runAsUser": 6}, 6),
        ({"runAsNonRoot": True}, {}, None),
        ({"runAsNonRoot": True}, {"runAsUser": 0, "runAsNonRoot": False}, 0),
        ({}, {"runAsUser": 0}, 0),
    ],
)
def test_the_container_decides_before_the_pod(
    make_pod: MakePod, shared: dict[str, Any], own: dict[str, Any], user: int | None
) -> None:
    pod = make_pod(securityContext=shared, containers=[{**MAIN, "securityContext": own}])
    assert asked_user(pod, pod.spec.containers[0]) == user


@pytest.mark.parametrize(
    ("shared", "own"),
    [
        ({"runAsUser": 0, "runAsNonRoot": True}, {}),
        ({"runAsNonRoot": True}, {"runAsUser": 0}),
        ({"runAsUser": 0}, {"runAsNonRoot": True}),
    ],
)
def test_root_is_refused_where_a_pod_must_not_be_root(
    make_pod: MakePod, shared: dict[str, Any], own: dict[str, Any]
) -> None:
    pod = make_pod(securityContext=shared, containers=[{**MAIN, "securityContext": own}])
    with pytest.raises(
        ConfigurationError, match=r'breaks non-root policy \(pod: "pod-1_team\(u-1\)", container: main\)'
    ):
        asked_user(pod, pod.spec.containers[0])


def test_groups_are_asked_for_likewise(make_pod: MakePod) -> None:
    pod = make_pod(securityContext={"runAsGroup": 7}, containers=[MAIN])
    assert asked_group(pod, pod.spec.containers[0]) == 7


@pytest.mark.parametrize(
    ("limits", "size"), [({}, 0), ({"memory": "64Mi"}, 64 << 20), ({"memory": "1.5G"}, 1_500_000_000)]
)
def test_a_memory_limit_is_in_bytes(make_pod: MakePod, limits: dict[str, str], size: int) -> None:
    pod = make_pod(containers=[{**MAIN, "resources": {"limits": limits}}])
    assert memory_limit(pod.spec.containers[0]) == size
