"""The routing policy of a gateway: which Experts a pool has, where they answer, and how to choose among them.

The operator writes one `RoutingPolicy` as canonical JSON into a ConfigMap. The gateway reads it again whenever it
changes, and reports the digest of the policy that it uses.
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from moe_formats.format import Digest, Format
from moe_formats.names import ObjectName
from moe_formats.paths import RelativePath

#: How a gateway chooses an Expert: by a table that scores the prompt, or by the likelihood of the prompt.
StrategyName = Literal["Distilled", "Posterior"]

#: Largest policy, in bytes: it must fit into a ConfigMap (1 MiB) together with metadata.
MAX_POLICY_BYTES = 900_000


def _has_a_port(url: str) -> str:
    port = int(url.rpartition(":")[2])
    if not 1 <= port <= 65535:
        raise ValueError(f"{url!r}: the port is {port}; it must be from 1 to 65535")
    return url


#: Address of the servers of a revision: plain HTTP, a host (usually a headless Service) and a port.
ServerUrl = Annotated[
    str, Field(pattern=r"^http://[A-Za-z0-9.-]{1,253}:[0-9]{1,5}$"), AfterValidator(_has_a_port)
]


class RoutedExpert(Format):
    """One promoted Expert, and the revision that answers its requests."""

    name: ObjectName = Field(
        description="Name of the Expert. A client that gives it as `model` gets this Expert."
    )
    domain: str | None = Field(
        default=None, max_length=63, description="Domain of the Expert. Absent for a mixture."
    )
    revision: ObjectName = Field(description="Name of the served ExpertRevision.")
    digest: Digest = Field(description="Digest of the served revision's artefact.")
    url: ServerUrl = Field(description="Address of the servers; every IP address of the host is one of them.")
    ready: Literal[False] | None = Field(
        default=None,
        description="`false` while no server of the Expert is ready: it restarts, or is scaled to zero. A request that names the "
        "Expert is answered with status 503 then, and the requests that are routed to it go to the fallback. Absent: a "
        "server is ready.",
    )

    @property
    def is_ready(self) -> bool:
        """Return whether a server of the Expert is ready."""
        return self.ready is not False


class DistilledTable(Format):
    """The table of the Distilled strategy, in the pool's store."""

    path: RelativePath = Field(description="File of the table, relative to the pool's store.")
    digest: Digest = Field(description="SHA-256 of the file. A file with another digest is not used.")


class Familiar(Format):
    """How prompts of the pool's own domains look: what 95 % of held-out ones keep to.

    A request that does not is counted as unmet: it may be of a domain that no Expert of the pool knows.
    """

    bits_per_byte: float | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="The best Expert codes 95 % of them in at most so many bits per byte. Absent: it was not measured.",
    )
    confidence: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="The Distilled strategy gives the Expert that it chooses at least this probability for 95 % of them. "
        "Absent: it was not measured.",
    )


#: Origin of pages in a browser that may read answers: a scheme, a host and perhaps a port, or `*` for all.
Origin = Annotated[str, Field(pattern=r"^(\*|https?://[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?)$", max_length=300)]

BodyBytes = Annotated[int, Field(ge=1024, le=67_108_864)]
Tokens = Annotated[int, Field(ge=1, le=131_072)]
Concurrency = Annotated[int, Field(ge=1, le=10_000)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
RequestsPerMinute = Annotated[int, Field(ge=1, le=1_000_000)]
ScoringSeconds = Annotated[float, Field(gt=0, le=60)]
Margin = Annotated[float, Field(ge=0, le=1)]


class KeyLimits(Format):
    """What one API key may take of one gateway pod."""

    max_concurrency: Concurrency | None = Field(
        default=None,
        description="Largest number of requests with one API key at the same time in one gateway pod. Any more are answered with "
        "status 429. Default: no limit but that of all requests together.",
    )
    requests_per_minute: RequestsPerMinute | None = Field(
        default=None,
        description="Requests per minute with one API key to one gateway pod. They come back evenly; after a pause, as many may "
        "be sent at once. Any more are answered with status 429, and `Retry-After` says when to ask again. Default: no limit.",
    )


class Limits(Format):
    """What a gateway accepts, for one request and for all of them together."""

    max_body_bytes: BodyBytes = Field(
        default=1_048_576,
        description="Largest body of a request, in bytes. A larger one is answered with status 413.",
    )
    max_tokens: Tokens = Field(
        default=4096,
        description="Largest max_tokens of a request. A larger one is answered with status 400; without max_tokens, an answer "
        "ends there.",
    )
    max_concurrency: Concurrency = Field(
        default=256,
        description="Largest number of requests at the same time. Any more are answered with status 429.",
    )
    timeout_seconds: Seconds = Field(
        default=120,
        description="Longest wait for the next byte of an answer, in seconds. After it, the answer is status 504.",
    )
    per_key: KeyLimits | None = Field(
        default=None,
        description="What one API key may take of one gateway pod. Absent: keys have no limits of their own.",
    )


class RoutingPolicy(Format):
    """Which Experts the gateway of one pool sends requests to, and how it chooses among them."""

    pool: ObjectName = Field(
        description="Name of the pool. A client that gives it as `model` gets the Expert that the gateway chooses."
    )
    strategy: StrategyName = Field(
        description="How to choose. `Distilled`: by a small table that scores the prompt. `Posterior`: by the likelihood of the "
        "prompt under each Expert."
    )
    fallback: ObjectName | None = Field(
        default=None,
        description="Expert for requests that the strategy cannot decide, and for routed requests for whose Expert no "
        "server answers. Absent: the first Expert that is ready for the former, and none for the latter.",
    )
    experts: tuple[RoutedExpert, ...] = Field(
        min_length=1, max_length=64, description="The Experts to choose among."
    )
    table: DistilledTable | None = Field(
        default=None,
        description="The table of the Distilled strategy. Without it, a gateway sends every request to the fallback; the "
        "operator writes strategy Posterior until there is a table. Absent for strategy Posterior.",
    )
    temperature: float = Field(
        default=1.0,
        gt=0,
        le=1000,
        description="Number that Posterior divides log-likelihoods by: the one that was fitted together with the pool's "
        "newest table, or 1, which gives Bayes' rule, if the pool never had a table.",
    )
    prior: dict[ObjectName, float] = Field(
        default_factory=dict, description="Weight of an Expert before the prompt is seen, by name. Absent: 1."
    )
    posterior_timeout_seconds: ScoringSeconds = Field(
        default=2.0,
        description="Seconds that Experts have to score a prompt. One that takes longer is not chosen.",
    )
    stickiness_margin: Margin = Field(
        default=0.3,
        description="Probability by which another Expert must be ahead for a conversation to move to it.",
    )
    familiar: Familiar | None = Field(
        default=None,
        description="How prompts of the pool's own domains look, by which requests are counted as unmet. Absent: it was not "
        "measured, and none is counted.",
    )
    limits: Limits = Field(default=Limits(), description="What the gateway accepts.")
    allowed_origins: tuple[Origin, ...] | None = Field(
        default=None,
        max_length=32,
        description="Origins whose pages in a browser may send requests and read answers. Absent: none.",
    )

    @model_validator(mode="after")
    def _names_are_known_and_unique(self) -> Self:
        names = [expert.name for expert in self.experts]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"experts: {name!r} is listed twice; every Expert has one entry")
            if name == self.pool:
                raise ValueError(
                    f"experts: {name!r} is also the pool's name; `model` could not tell them apart"
                )
        for field, used in (
            ("fallback", [self.fallback] if self.fallback else []),
            ("prior", list(self.prior)),
        ):
            for name in used:
                if name not in names:
                    raise ValueError(f"{field}: {name!r} is not one of the Experts: {', '.join(names)}")
        for name, weight in self.prior.items():
            if not 0 < weight < float("inf"):
                raise ValueError(f"prior: the weight of {name!r} is {weight}; it must be positive and finite")
        return self

    def digest(self) -> str:
        """Return the digest of the canonical text, which a gateway reports once it uses this policy."""
        return self.content_digest()

    def expert(self, name: str) -> RoutedExpert | None:
        """Return the Expert with a name, or None if there is none."""
        return next((expert for expert in self.experts if expert.name == name), None)

    def default_expert(self) -> RoutedExpert:
        """Return the Expert for requests that the strategy cannot decide."""
        named = self.expert(self.fallback) if self.fallback else None
        return named or next((expert for expert in self.experts if expert.is_ready), self.experts[0])


def parse_routing_policy(text: str) -> RoutingPolicy:
    """Return the policy in a JSON text.

    Raises pydantic.ValidationError (a ValueError) that names the field, or ValueError for a text that
    is too large.
    """
    if len(text.encode()) > MAX_POLICY_BYTES:
        raise ValueError(f"the policy has {len(text.encode())} bytes; at most {MAX_POLICY_BYTES} are read")
    return RoutingPolicy.model_validate_json(text)
