"""What an expert server is asked to serve: one model, or the banks on one base, passed as JSON in ``MOE_SERVE_CONFIG``."""

from pydantic import Field

from moe_formats.format import Digest, Format
from moe_formats.paths import RelativePath


class ServedArtefact(Format):
    """The artefact to load from the pool's store."""

    path: RelativePath = Field(description="Folder of the artefact, relative to MOE_STORE.")
    digest: Digest = Field(
        description="SHA-256 of the artefact's manifest.json. A server refuses any other artefact."
    )


class ServedExpert(Format):
    """One served revision of one Expert."""

    expert: str = Field(
        min_length=1, max_length=63, description="Name of the Expert, which is its id in /v1/models."
    )
    revision: str = Field(
        min_length=1, max_length=63, description="Name of the ExpertRevision that is served, for people."
    )
    artefact: ServedArtefact = Field(description="The artefact to load.")
    temperature: float | None = Field(
        default=None,
        ge=0,
        le=2,
        description="Sampling temperature of requests that give none. Absent: the temperature in the artefact's "
        "generation_config.json.",
    )


class ServeConfig(ServedExpert):
    """What a server answers for: one Expert, and other Experts whose banks are on the same base."""

    domain: str | None = Field(
        default=None, description="Domain of the Expert. Absent for a mixture, such as `general`."
    )
    banks: tuple[ServedExpert, ...] = Field(
        default=(),
        max_length=256,
        description="Other Experts of method ExpertBank that the server answers for. The artefact is then a bank as well, or "
        "the base of the banks.",
    )
    max_context: int | None = Field(
        default=None,
        gt=0,
        description="Largest number of tokens in prompt and answer together. Absent: as many as the model sees.",
    )
    max_batch: int = Field(
        default=8, ge=1, le=256, description="Largest number of sequences that are decoded together."
    )
    max_queue: int = Field(
        default=256,
        ge=0,
        le=10_000,
        description="Largest number of requests that wait. Any more are answered with status 429.",
    )
    drain_seconds: float = Field(
        default=30, ge=0, le=3600, description="Seconds that requests in flight may still take after SIGTERM."
    )


def parse_serve_config(text: str) -> ServeConfig:
    """Return the config in a JSON text; raises pydantic.ValidationError that names the field."""
    return ServeConfig.model_validate_json(text)
