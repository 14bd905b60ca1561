"""What all API models share, and the value types that several kinds use."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class ApiModel(BaseModel):
    """A part of a custom resource: camelCase outside, frozen inside, unknown fields ignored on read."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


#: Names that children derive theirs from: at most 40 characters.
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$", max_length=40)]

#: A path beneath a store or a claim: relative, no `..`.
StorePath = Annotated[
    str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9_*?.\[\]-][A-Za-z0-9_*?./\[\] -]*$")
]

DigestText = Annotated[str, Field(max_length=71, pattern=r"^sha256:[0-9a-f]{64}$")]


class ObjectMeta(ApiModel):
    """The part of metadata that the operator reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


class Interval(ApiModel):
    """An estimate with its 95 % interval."""

    value: float = Field(description="The estimate.")
    lower: float = Field(description="Lower end of the 95 % interval.")
    upper: float = Field(description="Upper end of the 95 % interval.")
    clusters: int | None = Field(default=None, description="Clusters of near-duplicate documents it rests on.")
