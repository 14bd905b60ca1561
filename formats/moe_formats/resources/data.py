"""`spec.data` of an Expert: where its documents are, which of them are dropped, and what is mixed in."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from moe_formats.format import Format
from moe_formats.gates import Gates
from moe_formats.job_config import DocumentFormat, FilterName
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
                "has(self.format) && self.format == 'messages'"
                " || !has(self.messagesField) || self.messagesField == 'messages'",
                "messagesField belongs to format messages: remove it, or change the format",
            ),
            (
                "!has(self.format) || self.format != 'messages' || !has(self.textField) || self.textField == 'text'",
                "textField belongs to formats text and jsonl: name messagesField instead",
            ),
        )
    )

    store: Name | None = Field(
        default=None,
        description="Data store to read from, one of those that the platform's owner defined in the chart's values. "
        "Give either this or claim. Default: none.",
    )
    claim: Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")] | None = Field(
        default=None,
        description="PersistentVolumeClaim in this namespace to read from, mounted read-only. It needs the label "
        "`moe-operator.dev/use: source`, unless a data store that the namespace may use names it. Give either this or "
        "store. Default: none.",
    )
    path: StorePath = Field(
        description="Glob of files, relative to the store or claim, for example `mathematics/*.jsonl.gz`. `..`, and links "
        "that lead out of the store, are refused. The name of a file says how it is read: `.jsonl` and `.ndjson` have "
        "one record per line, `.parquet` one record per row, and any other file is one text. `.gz`, `.bz2`, `.xz` or "
        "`.zst` at the end says that it is compressed."
    )
    weight: float | None = Field(
        default=None,
        ge=0,
        le=1e6,
        description="Weight of this source in the training mix, relative to the weights of the other sources. A small "
        "source with a large weight is read more often. Default: 1 if another source has a weight; "
        "if none has, every document is read equally often.",
    )
    format: DocumentFormat = Field(
        default="text",
        description="What a document is. `text` is the text of a record, or of a whole file. `messages` is the conversation "
        "of a record, of which only the assistant's words are learnt. `jsonl` is the text of a line of JSON, whatever "
        "the file is called.",
    )
    text_field: str = Field(
        default="text",
        max_length=64,
        description="Field or column of a record that holds the text.",
    )
    messages_field: str = Field(
        default="messages",
        max_length=64,
        description="Field or column of a record that holds the messages: a list of objects with `role` (system, user or "
        "assistant) and `content`. Read by format messages only.",
    )


class DataFilter(Format):
    """A rule that drops documents. The documents that it drops are counted under its name."""

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

    name: FilterName = Field(
        description="What is measured of a document. `length`: its bytes. `characterRatio`: its share of letters, "
        "digits and spaces. `nearDuplicate`: its estimated Jaccard similarity to a document that was kept before. "
        "`language`: its most probable language, by py3langid. `perplexity`: how surprising it is compared with the "
        "Expert's other documents, in bits per byte of a trigram model of bytes. `codeParses`: whether it parses as "
        "code; nothing is executed."
    )
    min: float | None = Field(
        default=None,
        ge=0,
        le=1e12,
        description="Smallest value that is kept. Unit: bytes (length), a share of 0 to 1 (characterRatio), bits per byte "
        "(perplexity), the probability of the language (language). Not for other filters. Default: no limit, but 0.5 "
        "for language.",
    )
    max: float | None = Field(
        default=None,
        ge=0,
        le=1e12,
        description="Largest value that is kept. Unit: bytes (length), a share of 0 to 1 (characterRatio), bits per byte "
        "(perplexity). Not for other filters. Default: no limit.",
    )
    threshold: float | None = Field(
        default=None,
        ge=0.5,
        le=1,
        description="Similarity at which the later of two documents is dropped, 0.5 to 1. Only for filter nearDuplicate. "
        "Default: 0.8.",
    )
    languages: list[Annotated[str, Field(pattern=r"^[a-z]{2,3}$", max_length=3)]] | None = Field(
        default=None,
        min_length=1,
        max_length=16,
        description="ISO 639-1 codes of the languages to keep, for example `en`. Required for filter language, and not "
        "allowed for others. Default: none.",
    )
    language: Literal["python"] | None = Field(
        default=None,
        description="Programming language that a document must parse as. Only for filter codeParses. Default: python.",
    )


class Replay(Format):
    """Text that the base was trained on, mixed into the Expert's own so that it is not forgotten."""

    share: float = Field(
        gt=0,
        lt=1,
        description="Share of every batch that is replayed text. Text that the pool has held out is never replayed.",
    )


class RefreshSchedule(Format):
    """Times of day at which the sources are read again."""

    cron: str = Field(
        max_length=100,
        pattern=r"^[0-9A-Za-z*,/#-]+( +[0-9A-Za-z*,/#-]+){4}$",
        description="When the sources are due, as in a crontab: minute, hour, day of the month, month and day of the week. "
        "`0 3 * * 1-5` is 03:00 from Monday to Friday.",
    )
    time_zone: str = Field(
        default="UTC",
        max_length=64,
        pattern=r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$",
        description="Time zone of the clock that cron is about, by its name in the IANA database, for example `Europe/Berlin`. "
        "Where that clock is put forward, a time that it skips is due at the end of the gap; where it is put back, a time that "
        "comes twice is due once, unless the minute or the hour of cron begins with `*`.",
    )


class Data(Format):
    """The documents that an Expert learns from."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.refreshSchedule) || !has(self.refresh) || self.refresh == 'never'",
                "refreshSchedule and refresh both say when the sources are read again: remove one of them",
            ),
            (
                "!self.sources.exists(s, has(s.weight)) || self.sources.exists(s, !has(s.weight) || s.weight > 0.0)",
                "all weights of the sources are 0, so there is nothing to train on: give one a weight above 0",
            ),
        )
    )

    sources: list[DataSource] = Field(
        min_length=1, max_length=32, description="Where the documents come from."
    )
    filters: list[DataFilter] = Field(
        default_factory=list,
        max_length=16,
        description="Rules that drop documents. Whatever their order here, rules about single documents are applied first, "
        "then perplexity, then nearDuplicate. Default: none.",
    )
    replay: Replay | None = Field(
        default=None,
        description="Mixes in text that the base was trained on, so that it is not forgotten. The base must be an Expert. "
        "Default: no replay.",
    )
    refresh: Literal["never", "realTime", "hourly", "daily", "weekly"] = Field(
        default="never",
        description="How often the sources are read again, counted from the Expert's creation; `realTime` is every 60 seconds. "
        "Times that pass while a revision is being made, or while nothing may start, are made up for by one reading. New "
        "documents lead to a new revision (cause NewData). If the data is unchanged, nothing is trained.",
    )
    refresh_schedule: RefreshSchedule | None = Field(
        default=None,
        description="Times at which the sources are read again, for example every night. Give either this or refresh. "
        "Default: none.",
    )
    gates: Gates | None = Field(
        default=None,
        description="Limits that a delivery has to keep before a snapshot of it counts. One that does not is refused with "
        "numbers, trains nothing, and leaves the newest snapshot as it is. Default: any delivery counts.",
    )
