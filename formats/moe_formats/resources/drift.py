"""What is said in an Expert's status of how far its newest text has moved away from it, and why."""

from typing import Literal

from pydantic import Field

from moe_formats.format import Digest, Format
from moe_formats.job_report import Accuracy, Interval
from moe_formats.resources.base import ShortText

#: What moved. docs/lifecycle.md has the rule of each.
DriftCause = Literal["QualityDrop", "InputShift", "DomainChanged", "TaskDrop", "RoutingShift"]

#: Largest number of windows that drift is measured on: the last ones.
MAX_WINDOWS = 4


class DriftStatus(Format):
    """How a revision does on the Expert's newest text, against its first. A number that is absent has a reason in ``absent``."""

    drifted: bool = Field(
        description="Whether the revision has drifted: `lowerBound` exceeds 0.01. It stays `true` for the same revision until "
        "`interval.value` falls below 0.005."
    )
    cause: DriftCause | None = Field(
        default=None,
        description="What moved. `DomainChanged`: the newest text is nearer to another domain. `QualityDrop`: the revision no "
        "longer fits the newest text. `InputShift`: the newest text is harder for any model, and the revision fits it as well "
        "as before. `TaskDrop`: only an evaluator's accuracy fell. `RoutingShift`: only the Expert's share of the pool's "
        "requests moved. Absent if nothing moved.",
    )
    interval: Interval | None = Field(
        default=None,
        description="Drift: the mean of ln(b_base / b_expert) over the anchor's segments minus that over the windows' segments, "
        "where b is bits per byte. 0.1 means that the revision gains about 10 % less on the newest text than on the first. "
        "Absent if it could not be computed.",
    )
    lower_bound: float | None = Field(
        default=None,
        description="One-sided lower bound of the drift at an error rate of 0.01. Absent if the drift could not be computed.",
    )
    difficulty: Interval | None = Field(
        default=None,
        description="Mean of ln b_base over the windows' segments minus that over the anchor's: above 0, the newest text is "
        "harder for the base. Absent if it could not be computed.",
    )
    difficulty_bound: float | None = Field(
        default=None,
        description="One-sided lower bound of the difficulty at an error rate of 0.01. Absent if the difficulty could not be "
        "computed.",
    )
    gain: Interval | None = Field(
        default=None,
        description="Mean of ln(b_base / b_expert) over the windows' segments. Absent if it could not be computed.",
    )
    nearest_domain: str | None = Field(
        default=None,
        max_length=63,
        description="Domain of the pool whose anchor the windows' text resembles most. Absent if it could not be computed, for "
        "example because the Expert has no domain.",
    )
    accuracies: list[Accuracy] = Field(
        default_factory=list,
        max_length=4,
        description="What the named evaluators find of the revision by their newest items. An accuracy fell if the upper end "
        "of its interval is below the lower end of the one that was measured before the revision was promoted.",
    )
    share: float | None = Field(
        default=None,
        description="Share of the pool's requests that were the Expert's in the last 24 hours, 0 to 1. It moved if it differs "
        "from shareBefore by at least 0.05 and by at least a quarter of it. Absent if the pool had fewer than 200 requests.",
    )
    share_before: float | None = Field(
        default=None,
        description="The same share over the seven days before. Absent if the pool had fewer than 200 requests.",
    )
    revision: str = Field(max_length=63, description="Name of the revision that was measured.")
    base: str | None = Field(
        default=None,
        max_length=63,
        description="Name of the base's revision that the first revision of its line was trained from. Absent for a preset.",
    )
    anchor: Digest = Field(description="SHA-256 of the anchor's manifest.")
    windows: list[Digest] = Field(
        default_factory=list,
        max_length=MAX_WINDOWS,
        description="SHA-256 of the manifests of the windows that were pooled, the oldest first.",
    )
    clusters: int = Field(
        default=0, description="Number of clusters of near-duplicate documents in these windows."
    )
    request: str = Field(
        max_length=71,
        description="What was asked for: a digest of the revision's weights, those of the base, the anchor, the newest window "
        "and the evaluators' items. Drift is measured again when it changes.",
    )
    report: Digest | None = Field(
        default=None, description="SHA-256 of the report in the store. Absent if the Job failed."
    )
    absent: dict[str, ShortText] = Field(
        default_factory=dict,
        max_length=16,
        description="Names of numbers that could not be computed, with the reason.",
    )
    time: str = Field(
        max_length=40,
        description="When the operator recorded it: RFC 3339 in UTC, for example `2026-01-31T12:00:00+00:00`.",
    )
