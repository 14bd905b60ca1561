from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from moe_local.agent.environment import Facts
from moe_local.agent.pod import Pod

MakePod = Callable[..., Pod]


@pytest.fixture
def make_pod() -> MakePod:
    """A pod with one container `main`, changed by fields of its spec and metadata."""

    def make(
        *, metadata: dict[str, Any] | None = None, status: dict[str, Any] | None = None, **spec: Any
    ) -> Pod:
        container = {"name": "main", "image": "moe-operator/trainer", "command": ["true"]}
        body = {
            "metadata": {"name": "pod-1", "namespace": "team", "uid": "u-1", **(metadata or {})},
            "spec": {"nodeName": "local", "containers": [container], **spec},
            "status": status or {},
        }
        return Pod.model_validate(body)

    return make


@pytest.fixture
def facts() -> Facts:
    return Facts("127.77.0.9", "127.0.0.1", "127.0.0.1", 6443, {"cpu": "8", "memory": "16Gi"})
