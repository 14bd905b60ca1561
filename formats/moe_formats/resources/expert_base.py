"""What an Expert starts from: another Expert, a preset, or a checkpoint from outside."""

from typing import Annotated

from pydantic import ConfigDict, Field

from moe_formats.format import Digest, Format
from moe_formats.names import Name
from moe_formats.resources.base import cel


class Base(Format):
    """What the first revision starts from: another Expert of the pool, a preset, or a checkpoint in a data store."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "(has(self.expert) ? 1 : 0) + (has(self.preset) ? 1 : 0) + (has(self.store) ? 1 : 0) == 1",
                "base needs exactly one of expert, preset and store: keep one and remove the others",
            ),
            (
                "has(self.store) == has(self.path) && has(self.store) == has(self.digest)",
                "a checkpoint is named by store, path and digest together: give all three, or none",
            ),
        )
    )

    expert: Name | None = Field(
        default=None,
        description="An Expert of the same pool to branch from. Its promoted revision is pinned when the first "
        "revision of this Expert is made; a newer one retrains nobody.",
    )
    preset: str | None = Field(
        default=None,
        max_length=40,
        pattern=r"^[a-z][a-z0-9-]*$",
        description="An architecture to train from scratch, for example `tiny`: a byte-level mixture of about "
        "one million parameters that trains on a laptop's CPU; `tiny-sigmoid` is the same with routers that can be "
        "balanced by a bias.",
    )
    store: Name | None = Field(
        default=None,
        description="A data store that the platform's owner defined, with a checkpoint to start from: any decoder "
        "that transformers knows, as safetensors with its tokenizer. What it was trained on is unknown, so held-out "
        "text may have been in it.",
    )
    path: (
        Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$")]
        | None
    ) = Field(
        default=None,
        description="The checkpoint's folder beneath the store, for example `models/Qwen3-0.6B`.",
    )
    digest: Digest | None = Field(
        default=None,
        description="What the checkpoint must be; `moe-trainer digest FOLDER` prints it, and so does the message "
        "where it differs.",
    )
