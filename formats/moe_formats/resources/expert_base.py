"""`spec.base` of an Expert: what its training starts from."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from moe_formats.format import Digest, Format
from moe_formats.names import Name
from moe_formats.resources.base import NO_WAY_OUT, cel


class Base(Format):
    """What training starts from: another Expert of the pool, a preset, or a checkpoint in a data store."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "(has(self.expert) ? 1 : 0) + (has(self.preset) ? 1 : 0) + (has(self.store) ? 1 : 0) == 1",
                "base needs exactly one of expert, preset and store: keep one and remove the others",
            ),
            (
                "has(self.store) == has(self.path) && has(self.store) == has(self.digest)",
                "store, path and digest name a checkpoint together: give all three, or none",
            ),
            (
                "!has(self.follow) || has(self.expert)",
                "follow belongs to base.expert: a preset and a checkpoint have no newer revision",
            ),
        )
    )

    expert: Name | None = Field(
        default=None,
        description="Expert of the same pool to start from. Its current revision is pinned when this Expert first starts "
        "from it, and every later change of the spec starts from the pinned revision again. What a newer "
        "revision of the base does is said by follow. Default: none.",
    )
    follow: Literal["Pinned", "Propose", "Auto"] | None = Field(
        default=None,
        description="What happens when the base Expert has a newer current revision than the one that is pinned. `Pinned`: "
        "nothing. `Propose`: an ExpertProposal to train this Expert again from it. `Auto`: the same, approved at once. The "
        "promotion gate decides whether the result serves. Only with expert. Default: Pinned.",
    )
    preset: str | None = Field(
        default=None,
        max_length=40,
        pattern=r"^[a-z][a-z0-9-]*$",
        description="Architecture to train from scratch. `tiny` is a byte-level mixture of about one million parameters "
        "that trains on a laptop's CPU; `tiny-sigmoid` is the same with routers that can be balanced by a bias. "
        "Default: none.",
    )
    store: Name | None = Field(
        default=None,
        description="Data store with a checkpoint to start from, one of those that the platform's owner defined in the "
        "chart's values. Most decoders that transformers knows work, as safetensors with their tokenizer; docs/models.md "
        "lists what does not. What it was trained on is unknown, so it may have seen held-out text. Default: none.",
    )
    path: (
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=256,
                pattern=r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$",
                json_schema_extra=cel(NO_WAY_OUT),
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="Folder of the checkpoint, relative to the store, for example `models/Qwen3-0.6B`. Required with "
        "store. Default: none.",
    )
    digest: Digest | None = Field(
        default=None,
        description="Digest that the checkpoint must have. `moe-trainer digest FOLDER` prints it; if it differs, the "
        "condition's message has both. Required with store. Default: none.",
    )

    def __str__(self) -> str:
        """Return what it names, in words."""
        return self.expert or (f"preset {self.preset}" if self.preset else f"{self.store}/{self.path}")
