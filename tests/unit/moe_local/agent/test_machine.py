from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moe_local.agent.cgroups import Cgroups
from moe_local.agent.machine import POD_USER, Isolation

GROUPS = Cgroups(Path("/g"), Path("/g"))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"kind": "mapped"}, []),
        ({"kind": "own", "agent_user": 1000}, []),
        ({"kind": "own", "agent_user": 0}, ["user 0 of this machine"]),
        (
            {"kind": "own", "agent_user": 1000, "own_processes": False},
            ["names and arguments of all processes"],
        ),
        ({"kind": "", "agent_user": 0, "cgroups": GROUPS}, ["pods run as root"]),
        ({"kind": "", "agent_user": 1000}, ["the cluster's keys", "memory limits"]),
    ],
)
def test_what_is_lacking_is_said_and_nothing_else(found: dict[str, Any], words: list[str]) -> None:
    lacks = Isolation(**found).lacks
    assert len(lacks) == len(words)
    assert all(word in sentence for word, sentence in zip(words, lacks, strict=True))


def test_pods_of_root_are_another_user_under_the_id_that_they_ask_for() -> None:
    identity = Isolation("mapped", agent_user=0).identity(1234, None)
    assert identity == {
        "kind": "mapped",
        "user": 1234,
        "group": POD_USER,
        "machineUser": POD_USER,
        "machineGroup": POD_USER,
    }


def test_pods_of_an_ordinary_user_are_that_user() -> None:
    isolation = Isolation("own", agent_user=1000, agent_group=1001)
    assert isolation.owner is None
    identity = isolation.identity(None, None)
    assert (identity["user"], identity["group"]) == (1000, 1001)
