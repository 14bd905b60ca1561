import pytest
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
