"""What a test can ask the small trainer to do: the Expert's seed says it, since it reaches training only."""

from enum import IntEnum


class Behaviour(IntEnum):
    """Seeds with a meaning; every other seed trains as well as it can."""

    #: The loss becomes NaN half way.
    NAN = 101
    #: The store is full half way through the first attempt.
    DISK_FULL_ONCE = 102
    #: Each step takes a tenth of a second.
    SLOW = 103
    #: The first attempt is killed half way, as for want of memory.
    KILLED_ONCE = 104
    #: Weights that predict badly: trained on the reverse of the text.
    BACKWARDS = 105
