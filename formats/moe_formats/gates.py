"""Limits that a delivery has to keep before a snapshot of it counts. `spec.data` asks for them, the snapshot Job applies them."""

from typing import Annotated, Literal, get_args

from pydantic import ConfigDict, Field

from moe_formats.format import Format
from moe_formats.resources.base import cel

#: Why a record is not used: it cannot be read, a filter drops it, or it is there twice. `total` is all of these together.
DropReason = Literal[
    "total",
    "binary",
    "brokenMessages",
    "brokenRecord",
    "empty",
    "missingField",
    "noAnswer",
    "notUtf8",
    "tooLarge",
    "toolCalls",
    "duplicate",
    "length",
    "characterRatio",
    "nearDuplicate",
    "language",
    "perplexity",
    "codeParses",
]

#: A share of records or documents.
Share = Annotated[float, Field(ge=0, le=1)]

_REASONS = ", ".join(f"'{reason}'" for reason in get_args(DropReason))


class Gates(Format):
    """Limits that a delivery has to keep before a snapshot of it counts. One that does not trains nothing."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                f"!has(self.maxDropped) || self.maxDropped.all(reason, reason in [{_REASONS}])",
                f"maxDropped has a limit for something that is no reason: name some of {_REASONS}",
            ),
            (
                "!has(self.minNewBytes) || !has(self.maxNewBytes) || self.minNewBytes <= self.maxNewBytes",
                "minNewBytes is larger than maxNewBytes: swap them",
            ),
        )
    )

    max_dropped: dict[str, Share] | None = Field(
        default=None,
        max_length=32,
        description="Largest share of the records read, 0 to 1, that may be dropped, by the reason under which "
        "status.snapshot.dropped counts them, for example `brokenRecord: 0.01`. `total` is about all reasons together. "
        "Default: no limit.",
    )
    max_lost: Share | None = Field(
        default=None,
        description="Largest share of the documents of the newest snapshot, 0 to 1, that may be gone from the sources. It "
        "refuses sources that were truncated or only partly copied. Default: no limit.",
    )
    min_new_bytes: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000_000_000_000,
        description="Smallest size, in bytes, of text that the Expert has never read, if there is any. Smaller deliveries are "
        "refused until enough has come together. Default: no limit.",
    )
    max_new_bytes: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000_000_000_000,
        description="Largest size, in bytes, of text that the Expert has never read. It refuses what was put into a source by "
        "mistake. It also applies to the first delivery. Default: no limit.",
    )
    max_language_shift: Share | None = Field(
        default=None,
        description="Largest share of the documents, 0 to 1, that would have to be in another language for the new text to have "
        "the languages of the Expert's first holdout: 0 is the same mix, 1 none in common. Judged on at most 1000 documents of "
        "each, and only if each has 20 or more. Default: no limit.",
    )
