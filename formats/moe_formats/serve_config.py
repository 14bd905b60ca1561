"""What an expert server is asked to serve: one model, or the banks on one base, passed as JSON in ``MOE_SERVE_CONFIG``.

Imports nothing heavier than pydantic: the operator writes this format.
"""

from pydantic import Field

from moe_formats.format import Digest, Format
from moe_formats.paths import RelativePath


class ServedArtefact(Format):
    """The weights to load from the pool's store."""

    path: RelativePath = Field(description="The artefact's folder, beneath MOE_STORE.")
    digest: Digest = Field(description="SHA-256 of its manifest.json; nothing else is loaded.")


class ServedExpert(Format):
    """One served revision of one Expert."""

    expert: str = Field(min_length=1, max_length=63, description="The Expert's name: its id in /v1/models.")
    revision: str = Field(min_length=1, max_length=63, description="Name of the ExpertRevision, for people.")
    artefact: ServedArtefact
    temperature: float | None = Field(
        default=None,
        ge=0,
        le=2,
        description="Of requests that do not say; default: what generation_config.json of the artefact says.",
    )


class ServeConfig(ServedExpert):
    """What a server answers for: one Expert, and others whose banks stand on the same base."""

    domain: str | None = Field(default=None, description="Absent for a mixture, such as `general`.")
    banks: tuple[ServedExpert, ...] = Field(
        default=(),
        max_length=256,
        description="Other Experts of method ExpertBank to answer for; the artefact is then a bank too, or their base.",
    )
    max_context: int | None = Field(
        default=None, gt=0, description="Tokens of prompt and answer together; default: what the model has."
    )
    max_batch: int = Field(default=8, ge=1, le=256, description="Sequences that are decoded together.")
    max_queue: int = Field(default=256, ge=0, le=10_000, description="Requests that wait; more get 429.")
    drain_seconds: float = Field(
        default=30, ge=0, le=3600, description="After SIGTERM, how long requests in flight may still take."
    )


def parse_serve_config(text: str) -> ServeConfig:
    """Return the config in a JSON text; raises pydantic.ValidationError that names the field."""
    return ServeConfig.model_validate_json(text)
