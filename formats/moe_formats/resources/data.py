"""What an Expert learns from: where it lies, what is dropped of it, and what is read beside it."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from moe_formats.format import Format
from moe_formats.names import Name
from moe_formats.resources.base import StorePath, cel


class DataSource(Format):
    """Files to read documents from."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "has(self.store) != has(self.claim)",
                "a source needs exactly one of store and claim: keep one and remove the other",
            ),
            (
                "self.format == 'messages' || self.messagesField == 'messages'",
                "messagesField belongs to format messages: remove it, or change the format",
            ),
            (
                "self.format != 'messages' || self.textField == 'text'",
                "textField belongs to formats text and jsonl: name messagesField instead",
            ),
        )
    )

    store: Name | None = Field(
        default=None,
        description="A data store that the platform's owner defined in the chart's values.",
    )
    claim: Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")] | None = Field(
        default=None, description="A PersistentVolumeClaim of this namespace, mounted read-only."
    )
    path: StorePath = Field(
        description="Glob beneath the store, for example `mathematics/*.jsonl.gz`. Relative; `..` and links that "
        "lead out are refused. Files are read by their names: `.jsonl` and `.ndjson` hold a record a line, "
        "`.parquet` a record a row, any other one text; `.gz`, `.bz2`, `.xz` and `.zst` after it: compressed."
    )
    weight: float | None = Field(
        default=None,
        ge=0,
        le=1e6,
        description="Share of what is trained on, among the weights of all sources; a small source with a large "
        "weight is read more often. Default: 1 where another source has a weight; where none has, every document "
        "is read as often.",
    )
    format: Literal["text", "jsonl", "messages"] = Field(
        default="text",
        description="What a document is. `text`: a text, of a record or of a whole file. `messages`: the "
        "conversation of a record, learnt from the assistant's words only. `jsonl`: a text a line, whatever the "
        "files are called. Default: text.",
    )
    text_field: str = Field(
        default="text",
        max_length=64,
        description="Field or column of a record that holds the text. Default: text.",
    )
    messages_field: str = Field(
        default="messages",
        max_length=64,
        description="Field or column of a record that holds the messages: a list of `role` (system, user or "
        "assistant) and `content`. Default: messages.",
    )


class DataFilter(Format):
    """A rule that drops documents; drops are counted under its name."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.threshold) || self.name == 'nearDuplicate'",
                "threshold belongs to nearDuplicate: remove it",
            ),
            (
                "!has(self.min) || !(self.name in ['nearDuplicate', 'codeParses'])",
                "min belongs to length, characterRatio, perplexity and language: remove it",
            ),
            (
                "!has(self.max) || self.name in ['length', 'characterRatio', 'perplexity']",
                "max belongs to length, characterRatio and perplexity: remove it",
            ),
            (
                "has(self.min) || has(self.max) || !(self.name in ['length', 'characterRatio', 'perplexity'])",
                "the filter has no bound: give min, max or both",
            ),
            (
                "has(self.languages) == (self.name == 'language')",
                "filter language needs languages, and no other filter has them: list codes such as en, or remove them",
            ),
            (
                "!has(self.language) || self.name == 'codeParses'",
                "language belongs to codeParses: list languages for filter language",
            ),
            ("!has(self.min) || !has(self.max) || self.min <= self.max", "min is larger than max: swap them"),
        )
    )

    name: Literal["length", "characterRatio", "nearDuplicate", "language", "perplexity", "codeParses"] = (
        Field(
            description="`length`: bytes of a document. `characterRatio`: share of letters, digits and spaces. "
            "`nearDuplicate`: estimated Jaccard similarity to a document already kept. `language`: the likeliest of a "
            "text, by py3langid. `perplexity`: how surprising a document is beside the others of this Expert, in bits "
            "per byte of a trigram model of bytes. `codeParses`: it is code of a language by its syntax; nothing is run."
        )
    )
    min: float | None = Field(
        default=None,
        ge=0,
        le=1e12,
        description="Smallest value kept: bytes, a share of 0 to 1, bits per byte, or the probability of the "
        "language. Default: any; language: 0.5.",
    )
    max: float | None = Field(
        default=None,
        ge=0,
        le=1e12,
        description="Largest value kept: bytes, a share of 0 to 1, or bits per byte. Default: any.",
    )
    threshold: float | None = Field(
        default=None,
        ge=0.5,
        le=1,
        description="nearDuplicate: similarity from which on the later document is dropped. Default: 0.8.",
    )
    languages: list[Annotated[str, Field(pattern=r"^[a-z]{2,3}$", max_length=3)]] | None = Field(
        default=None,
        min_length=1,
        max_length=16,
        description="language: codes of ISO 639-1 to keep, for example `en`. Default: none.",
    )
    language: Literal["python"] | None = Field(
        default=None, description="codeParses: the language. Default: python."
    )


class Replay(Format):
    """Text of the base's own training, mixed into the Expert's, so that it is not forgotten."""

    share: float = Field(
        gt=0, lt=1, description="Share of every batch. What the pool has held out is left out."
    )


class Data(Format):
    """What the Expert learns from."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!self.sources.exists(s, has(s.weight)) || self.sources.exists(s, !has(s.weight) || s.weight > 0.0)",
                "all weights of the sources are 0, so there is nothing to train on: raise one",
            )
        )
    )

    sources: list[DataSource] = Field(min_length=1, max_length=32, description="Where documents come from.")
    filters: list[DataFilter] = Field(
        default_factory=list, max_length=16, description="Rules applied in order. Default: none."
    )
    replay: Replay | None = Field(
        default=None,
        description="Text of the base mixed in. The base must be an Expert. Default: none.",
    )
    refresh: Literal["never", "hourly", "daily", "weekly"] = Field(
        default="never",
        description="How often the sources are read again. New documents make a revision (cause NewData); "
        "unchanged data ends at the snapshot and costs no training. Default: never.",
    )
