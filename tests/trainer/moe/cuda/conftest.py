import ctypes
from pathlib import Path

import pytest

from .emulator import build


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[int, ctypes.CDLL]:
    """The emulated kernels by the size of clusters."""
    folder: Path = tmp_path_factory.mktemp("emulated")
    return {cluster: build(cluster, folder) for cluster in (1, 2)}
