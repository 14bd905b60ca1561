"""Expert: a model specialised in a domain, from its data to its serving."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from moe_operator.api.base import ApiModel, DigestText, Interval, Name, ObjectMeta, ShortText, StorePath, cel
from moe_operator.api.conditions import Condition
from moe_operator.api.evaluator import AccuracyStatus, AccuracyTarget, EvaluatorName, TaskSetStatus
from moe_operator.api.expert_base import Base
from moe_operator.api.training import Training


class DataSource(ApiModel):
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


class DataFilter(ApiModel):
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


class Replay(ApiModel):
    """Text of the base's own training, mixed into the Expert's, so that it is not forgotten."""

    share: float = Field(
        gt=0, lt=1, description="Share of every batch. What the pool has held out is left out."
    )


class Data(ApiModel):
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


class Targets(ApiModel):
    """What the Expert has to reach; judged by the unfavourable end of each interval."""

    specialization_score: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Smallest lower bound of the specialization score, 0.5 (none) to 1. Default: no target.",
    )
    gain: float | None = Field(
        default=None,
        ge=0,
        le=10,
        description="Smallest lower bound of the mean gain over the base on the own domain, as ln(b_base / b_expert); "
        "0.12 is about 12 %. Default: no target.",
    )
    bits_per_byte: float | None = Field(
        default=None,
        gt=0,
        le=8,
        description="Largest upper bound of bits per byte on the own anchor. Default: no target.",
    )
    accuracy: AccuracyTarget | None = Field(
        default=None, description="Smallest accuracy by a named evaluator of the pool. Default: no target."
    )


class Promotion(ApiModel):
    """What the gate asks beyond its fixed clauses."""

    enforcement: Literal["Report", "Serve"] = Field(
        default="Report",
        description="`Serve`: unmet targets keep a first revision from serving. `Report`: they only show in "
        "TargetsMet. Default: Report.",
    )
    max_forgetting: float | None = Field(
        default=None,
        ge=0,
        le=8,
        description="Largest upper bound of forgetting: mean over the other domains of b_expert - b_base, in bits "
        "per byte. Default: not limited.",
    )
    evaluators: list[EvaluatorName] = Field(
        default_factory=list,
        max_length=3,
        description="Evaluators of the pool by which a revision must not be inferior to the one before it, beside "
        "that of `targets.accuracy`. Default: none.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    accuracy_margin: float = Field(
        default=0.05,
        gt=0,
        le=1,
        description="How much accuracy a revision may lose at the lower end of the interval and still not be "
        "inferior. Below about 1.5 / items nothing can be shown. Default: 0.05.",
    )


class Serving(ApiModel):
    """How the promoted revision is served."""

    replicas: int = Field(
        default=1,
        ge=0,
        le=64,
        description="Servers of the promoted revision; `kubectl scale` sets it. Default: 1.",
    )
    profile: Name = Field(default="cpu", description="Hardware profile of the servers. Default: cpu.")
    temperature: float | None = Field(
        default=None,
        ge=0,
        le=2,
        description="Sampling temperature of requests that give none; 0 takes the most probable token. A change restarts "
        "the servers and trains nothing. Default: what the artefact's generation_config.json says, 1 for a preset.",
    )


class ExpertSpec(ApiModel):
    """What the user wants."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "self.pool == oldSelf.pool",
                "pool is immutable: delete the Expert and create it in the other pool",
            ),
            (
                "has(self.domain) == has(oldSelf.domain) && (!has(self.domain) || self.domain == oldSelf.domain)",
                "domain is immutable, since holdouts and scores belong to it: create another Expert",
            ),
            (
                "!has(self.targets) || !has(self.targets.specializationScore) || has(self.domain)",
                "targets.specializationScore needs a domain: set spec.domain or remove the target",
            ),
            (
                "self.training.balancing.against != 'Base' || !has(self.base.preset)",
                "training.balancing.against Base needs base.expert or base.store: a preset has no load to keep",
            ),
            (
                "self.training.regularization == 0.0 || has(self.data.replay)",
                "training.regularization holds the Expert to its base on replayed text: give data.replay, or leave it out",
            ),
            (
                "self.training.specializationLossWeight == 0.0 || !has(self.base.preset)",
                "training.specializationLossWeight needs a base to be better than, which a preset is not: leave it out,"
                " or give base.expert",
            ),
            (
                "!has(self.data.replay) || has(self.base.expert)",
                "data.replay needs base.expert: only the data of an Expert of this pool can be read again",
            ),
            (
                "self.training.method == 'Full' || !has(self.base.preset)",
                "training.method trains beside a base's frozen weights, and a preset has none: take method Full",
            ),
        )
    )

    pool: Name = Field(description="The ExpertPool of this namespace that the Expert belongs to. Immutable.")
    domain: Name | None = Field(
        default=None,
        description="What the Expert is specialised in. Absent: a mixture, such as `general`, that others branch "
        "from. Immutable.",
    )
    base: Base = Field(description="What the first revision starts from.")
    data: Data = Field(description="What it learns from.")
    training: Training = Field(default_factory=Training, description="How it learns. Default: all defaults.")
    targets: Targets = Field(
        default_factory=Targets, description="What it has to reach. Default: no targets."
    )
    promotion: Promotion = Field(default_factory=Promotion, description="The gate's options.")
    serving: Serving = Field(
        default_factory=Serving, description="How it is served. Default: one CPU server."
    )
    seed: int = Field(
        default=0, ge=0, le=2**31 - 1, description="Seed of initialisation and batch order. Default: 0."
    )
    run_id: str = Field(
        default="",
        alias="runID",
        max_length=63,
        description="Part of a revision's identity: change it to read the data and train again with the same spec. "
        "Default: empty.",
    )
    revision: str | None = Field(
        default=None,
        max_length=63,
        pattern=r"^[a-z][a-z0-9-]*$",
        description="Pins the ExpertRevision that serves, for example for a rollback. Default: the newest promoted.",
    )
    paused: bool = Field(
        default=False,
        description="Starts no new work; what runs is finished and what serves goes on. Default: false.",
    )


class SnapshotStatus(ApiModel):
    """The newest snapshot."""

    digest: DigestText = Field(description="Digest of the data, before exclusions.")
    path: str = Field(max_length=512, description="Folder beneath the pool's store.")
    job: str = Field(max_length=63, description="The Job that made it.")
    request: str = Field(
        max_length=71, description="Digest of what was asked: sources, filters, refresh slot."
    )
    documents: int = Field(description="Documents kept for training.")
    train_bytes: int = Field(description="Bytes of training text.")
    dropped: dict[str, int] = Field(
        default_factory=dict, max_length=32, description="Documents dropped, by reason."
    )
    anchor: "WindowStatus" = Field(description="The first holdout.")
    newest: "WindowStatus | None" = Field(
        default=None, description="The newest holdout, if it is not the anchor."
    )
    tasks: list[TaskSetStatus] = Field(
        default_factory=list,
        max_length=4,
        description="Items of the evaluators that the Expert asks for.",
    )
    time: str = Field(max_length=40, description="When it was committed.")


class WindowStatus(ApiModel):
    """One immutable holdout."""

    path: str = Field(max_length=512, description="Beneath the pool's store.")
    digest: DigestText = Field(description="Its content address.")
    clusters: int = Field(description="Clusters of near-duplicate documents held out.")
    segments: int = Field(description="Segments that are scored.")


class TrainingStatus(ApiModel):
    """How far the training of the newest revision is."""

    summary: str = Field(
        default="", max_length=40, description="What the PROGRESS column shows, for example `62%`."
    )
    eta: str = Field(default="", max_length=40, description="What the ETA column shows, for example `14m`.")
    step: int = Field(default=0, description="Optimizer step.")
    max_steps: int = Field(default=0, description="Steps in all.")
    loss: float | None = Field(default=None, description="Training cross-entropy, nats per token.")
    bits_per_byte: float | None = Field(default=None, description="Of the newest validation.")
    tokens_per_second: float | None = Field(default=None, description="Speed of the newest interval.")
    attempt: int = Field(default=0, description="Attempt under way or last made.")


class Scores(ApiModel):
    """What was measured of the promoted revision; docs/concepts.md defines each."""

    bits_per_byte: Interval | None = Field(default=None, description="On the own anchor; lower is better.")
    gain: Interval | None = Field(default=None, description="Mean ln(b_base / b_expert) on the own anchor.")
    specialization_score: Interval | None = Field(default=None, description="0.5: none, 1: complete.")
    forgetting: Interval | None = Field(
        default=None, description="Mean over other domains of b_expert - b_base."
    )
    next_byte_accuracy: float | None = Field(default=None, description="Share of bytes predicted first.")
    next_byte_interval: Interval | None = Field(default=None, description="The same, with its interval.")
    accuracies: list[AccuracyStatus] = Field(
        default_factory=list, max_length=4, description="What the named evaluators found."
    )
    absent: dict[str, ShortText] = Field(
        default_factory=dict, max_length=16, description="Scores that could not be computed, and why."
    )
    contamination: Literal["Unknown"] | None = Field(
        default=None,
        description="Set where the revision, or what it was compared with, descends from a checkpoint from outside, or "
        "from more snapshots than are recorded: held-out text may have been in what that was trained on.",
    )


class TargetStatus(ApiModel):
    """One target and what was measured."""

    name: str = Field(max_length=64, description="Field of spec.targets.")
    wanted: float = Field(description="The target.")
    measured: float | None = Field(default=None, description="The end of the interval that is judged.")
    met: bool | None = Field(default=None, description="Absent: it could not be judged.")


class ServingStatus(ApiModel):
    """What serves."""

    revision: str | None = Field(
        default=None, max_length=63, description="The revision that all traffic goes to."
    )
    digest: DigestText | None = Field(default=None, description="Its artefact.")
    replicas: int = Field(default=0, description="Servers that run.")
    ready_replicas: int = Field(default=0, description="Servers that answer with the digest.")
    url: str | None = Field(default=None, max_length=512, description="Address inside the cluster.")


class ExpertStatus(ApiModel):
    """What the operator found out and did. Bounded: long series live in metrics and in the store."""

    observed_generation: int = Field(default=0, description="Generation that this status describes.")
    phase: str = Field(default="", max_length=40, description="A summary for people; nothing reads it.")
    reason: str = Field(default="", max_length=128, description="Why it is in that phase.")
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        description="Ready, Reconciling, Stalled and what they rest on.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    revisions: int = Field(default=0, description="Number of the newest revision; names are NAME-NUMBER.")
    latest_revision: str | None = Field(default=None, max_length=63, description="The newest revision.")
    current_revision: str | None = Field(default=None, max_length=63, description="The promoted revision.")
    base_revision: str | None = Field(
        default=None, max_length=63, description="The pinned revision of the base."
    )
    snapshot: SnapshotStatus | None = Field(default=None, description="The newest snapshot.")
    training: TrainingStatus | None = Field(default=None, description="Training of the newest revision.")
    scores: Scores | None = Field(default=None, description="Measured of the promoted revision.")
    score: str = Field(default="", max_length=40, description="What the SCORE column shows.")
    targets: str = Field(
        default="", max_length=16, description="What the TARGETS column shows, for example `2/3`."
    )
    target_results: list[TargetStatus] = Field(
        default_factory=list, max_length=16, description="Each target."
    )
    serving: ServingStatus | None = Field(default=None, description="What serves.")
    replicas: int = Field(default=0, description="Servers, for the scale subresource.")
    selector: str = Field(
        default="", max_length=512, description="Label selector of the servers, for the scale subresource."
    )


class Expert(ApiModel):
    """A model specialised in a domain: its data, training, targets and serving."""

    metadata: ObjectMeta
    spec: ExpertSpec
    status: ExpertStatus = Field(default_factory=ExpertStatus)
