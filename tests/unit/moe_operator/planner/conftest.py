import sys
from pathlib import Path

import pytest

# world.py lies beside the tests and is imported by its name.
sys.path.insert(0, str(Path(__file__).parent))

from world import World


@pytest.fixture(scope="module")
def served() -> World:
    """Return a pool whose two Experts both serve."""
    world = World()
    world.pool()
    world.expert("general")
    world.expert("code")
    world.settle()
    return world
