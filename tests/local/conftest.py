"""A real control plane for the tests of this folder, in a state folder of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from moe_local.cluster import LocalCluster


@pytest.fixture(scope="session")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where every cluster of the session lives; whatever a test left running in it is stopped at the end."""
    root = tmp_path_factory.mktemp("clusters")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOE_LOCAL_STATE", str(root))
        yield root
        for folder in root.glob("*/"):
            LocalCluster(folder.name).down(delete=True)
