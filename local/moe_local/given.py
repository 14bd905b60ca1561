"""What a user gave to `moectl local up`. It is kept, so that a later `up` without it, as a repair, starts the same cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from moe_local.folder import ClusterFolder, write_private


class Given(BaseModel):
    """What the parts of a cluster and the chart are started with, besides the defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: More files of values for the chart.
    values: tuple[Path, ...] = ()
    #: Environments (folders with a bin/) by the name of the image that they replace.
    images: dict[str, Path] = {}


def keep_given(
    folder: ClusterFolder, values: Sequence[Path] | None, images: Mapping[str, Path] | None
) -> Given:
    """Return what to start with, and keep it for later: what is given now, and what was given last where that is None."""
    last = Given.model_validate_json(folder.given.read_text()) if folder.given.exists() else Given()
    given = Given(
        values=last.values if values is None else tuple(file.absolute() for file in values),
        images=last.images if images is None else {name: path.absolute() for name, path in images.items()},
    )
    write_private(folder.given, given.model_dump_json(indent=2))
    return given
