"""What the models of several kinds share: CEL rules, types of text, and metadata."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic.config import JsonDict

from moe_formats.format import Format
from moe_formats.paths import beneath
from moe_formats.resources.conditions import ObjectStatus


def cel(*rules: tuple[str, str]) -> JsonDict:
    """Return what a schema adds for CEL rules, each given as the rule and the message of an object that breaks it."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in rules]}


#: The CEL rule of a path that must not lead out of its store, with its message.
NO_WAY_OUT = (
    "!self.split('/').exists(part, part == '..')",
    "path must not contain '..': name files in the store",
)

#: A path or glob in a store or claim. It is relative and has no `..`.
StorePath = Annotated[
    str,
    Field(
        min_length=1,
        max_length=256,
        pattern=r"^[A-Za-z0-9_*?./\[\] -]+$",
        json_schema_extra=cel(
            ("!self.startsWith('/')", "path must be relative: leave out the leading '/'"),
            NO_WAY_OUT,
        ),
    ),
    AfterValidator(beneath),
]

#: A value of a map in a status: one line of text.
ShortText = Annotated[str, Field(max_length=1024)]


class ObjectMeta(Format):
    """The fields of an object's metadata that the operator reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


class CustomResource(Format):
    """What every kind has. Each kind adds its spec, and a status of its own."""

    metadata: ObjectMeta
    status: ObjectStatus = Field(default_factory=ObjectStatus)
