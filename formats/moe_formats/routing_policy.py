"""What a gateway is told: which Experts a pool serves, where they answer, and how to choose among them.

The operator writes one `RoutingPolicy` as canonical JSON into a ConfigMap; the gateway reads it again
whenever it changes and reports the digest that it serves by.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from moe_formats.format import Digest, Format
from moe_formats.names import ObjectName
from moe_formats.paths import RelativePath

#: Largest policy, in bytes: it must fit into a ConfigMap (1 MiB) with room for metadata.
MAX_POLICY_BYTES = 900_000

#: Where the servers of a revision answer: plain HTTP, a host (usually a headless Service) and a port.
ServerUrl = Annotated[str, Field(pattern=r"^http://[A-Za-z0-9.-]{1,253}:[0-9]{1,5}$")]


class RoutedExpert(Format):
    """One Expert that takes requests, and the revision that answers them."""

    name: ObjectName = Field(description="The Expert's name: what a client gives as `model` to pin it.")
    domain: str | None = Field(default=None, max_length=63, description="Absent for a mixture.")
    revision: ObjectName = Field(description="Name of the served ExpertRevision.")
    digest: Digest = Field(description="Digest of the served artefact.")
    url: ServerUrl = Field(description="Every address behind the host is a replica.")


class DistilledTable(Format):
    """The table of the Distilled strategy, in the pool's store."""

    path: RelativePath
    digest: Digest = Field(description="SHA-256 of the file; a table that differs is not used.")


class Limits(Format):
    """What one request, and all of them together, may ask of a gateway."""

    max_body_bytes: int = Field(default=1_048_576, ge=1024, le=67_108_864, description="Larger: 413.")
    max_tokens: int = Field(
        default=4096, ge=1, le=131_072, description="Largest max_tokens of a request; more: 400."
    )
    max_concurrency: int = Field(default=256, ge=1, le=10_000, description="Requests at once; more: 429.")
    timeout_seconds: float = Field(
        default=120, gt=0, le=3600, description="Longest wait for the next byte of an answer; then 504."
    )


class RoutingPolicy(Format):
    """How the gateway of one pool chooses an Expert for a request."""

    pool: ObjectName = Field(description="The pool's name: what a client gives as `model` to be routed.")
    strategy: Literal["Distilled", "Posterior"] = Field(
        description="Distilled: a small table scores the text. Posterior: the Experts' own likelihoods do."
    )
    fallback: ObjectName | None = Field(
        default=None,
        description="Expert for requests that the strategy cannot decide; else the first Expert.",
    )
    experts: tuple[RoutedExpert, ...] = Field(min_length=1, max_length=64)
    table: DistilledTable | None = Field(
        default=None,
        description="Absent until it is distilled; Distilled then sends everything to the fallback.",
    )
    temperature: float = Field(
        default=1.0,
        gt=0,
        le=1000,
        description="Posterior: divides log-likelihoods; fitted by NLL, 1 is Bayes.",
    )
    prior: dict[ObjectName, float] = Field(
        default_factory=dict, description="Weight of an Expert before its text is seen; 1 where absent."
    )
    posterior_timeout_seconds: float = Field(
        default=2.0,
        gt=0,
        le=60,
        description="An Expert that has not scored the prompt by then does not count.",
    )
    stickiness_margin: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="A conversation leaves its Expert only for one more probable by more than this.",
    )
    limits: Limits = Limits()

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
        """Return the digest of the canonical text: what a gateway reports once it serves by this policy."""
        return self.content_digest()

    def expert(self, name: str) -> RoutedExpert | None:
        """Return the Expert of a name, or None."""
        return next((expert for expert in self.experts if expert.name == name), None)

    def default_expert(self) -> RoutedExpert:
        """Return the Expert that takes what the strategy cannot decide."""
        return (self.expert(self.fallback) if self.fallback else None) or self.experts[0]


def parse_routing_policy(text: str) -> RoutingPolicy:
    """Return the policy in a JSON text.

    Raises pydantic.ValidationError (a ValueError) that names the field, or ValueError for a text that
    is too large.
    """
    if len(text.encode()) > MAX_POLICY_BYTES:
        raise ValueError(f"the policy has {len(text.encode())} bytes; at most {MAX_POLICY_BYTES} are read")
    return RoutingPolicy.model_validate_json(text)
