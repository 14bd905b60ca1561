"""What a test can ask the small trainer to do: the Expert's seed says it, since it reaches training only."""

from enum import IntEnum


class Behaviour(IntEnum):
    """Seeds with a meaning; every other seed trains as well as it can."""

    #: The loss becomes NaN half way.
    NAN = 101
    #: The store is full half way through the first attempt.
    DISK_FULL_ONCE = 102
    #: Half way it waits until it is released (RELEASED), so that a test can strike it in the act.
    HELD = 103
    #: The first attempt is killed half way, as for want of memory.
    KILLED_ONCE = 104
    #: Weights that predict badly: trained on the reverse of the text.
    BACKWARDS = 105


#: Name of the file in the pool's store that lets every held training of the pool go on.
RELEASED = "released"
