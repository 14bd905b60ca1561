"""`status.pipelines` of a pool: what was read in a day, and what the revisions made of it gained."""

from datetime import datetime

from pydantic import Field

from moe_formats.format import Format
from moe_formats.resources.base import ShortText


class PipelinesStatus(Format):
    """How the data of the pool's Experts develop. A number that is absent has a reason in ``absent``."""

    until: datetime | None = Field(
        default=None,
        description="When the last of these was: a snapshot with new text (the hour in which it was recorded), or a promotion. "
        "Numbers of 24 hours are about those before. Absent if there was neither.",
    )
    active: int = Field(
        description="Number of Experts whose sources are read again by themselves and that are not paused."
    )
    documents: int = Field(
        description="Number of documents by which the Experts' snapshots grew in these 24 hours."
    )
    bytes: int = Field(
        description="Size of the training text by which the Experts' snapshots grew in these 24 hours, in bytes."
    )
    promotions: int = Field(
        description="Number of revisions that were promoted in these 24 hours and compared with the revision before."
    )
    improvement: float | None = Field(
        default=None,
        description="Mean of 1 - b_new / b_old over these promotions, where b is bits per byte on the newest window: 0.1 is 10 % "
        "better. Absent if there were none.",
    )
    specialization: dict[str, float] = Field(
        default_factory=dict,
        max_length=64,
        description="Specialization score of each Expert for which it was measured, 0.5 (none) to 1.",
    )
    absent: dict[str, ShortText] = Field(
        default_factory=dict, max_length=16, description="Names of numbers that are absent, with the reason."
    )
