"""The folder of a cluster that has never been started."""

from pathlib import Path

import pytest

from moe_local.folder import ClusterFolder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterFolder:
    monkeypatch.setenv("MOE_LOCAL_STATE", str(tmp_path / "state"))
    folder = ClusterFolder.named("first")
    folder.make()
    return folder
