"""The ``config.json`` of a model, read and held against its weights before anything is made by it. Imports no torch.

A library that is asked for a million layers makes a million layers. So every size that a config states is bounded, and a
config cannot ask for more layers, tokens or in-layer experts than the weights beside it hold.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from moe_trainer import limits, untrusted

CONFIG = "config.json"

_LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
#: The largest value of each size that every decoder has, by its names in the architectures of transformers.
_LIMITS = {
    **dict.fromkeys(_LAYERS, limits.LAYERS),
    **dict.fromkeys(_EXPERTS, limits.EXPERTS),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "n_head", "head_dim"), limits.HEADS),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "intermediate_size"), limits.WIDTH),
    "moe_intermediate_size": limits.WIDTH,
    "vocab_size": limits.VOCABULARY,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), limits.CONTEXT_TOKENS),
}
#: Names of what else may be a size; some architectures write -1 for none.
_OTHER_SIZES = re.compile(r"(num|n)_.*|.*_(layers|size|dim|rank|width|window|embeddings)")
#: Sizes that the weights bound too, since some dimension of a tensor is as large: an embedding has (vocabulary, hidden).
_DIMENSIONS = ("vocab_size", "hidden_size", *_EXPERTS)


class Shaped(Protocol):
    """A tensor, or what a header says about one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return its dimensions."""
        ...


def read(folder: Path) -> dict[str, Any]:
    """Return the config in a folder; raises ValueError, which names file and limit, and FileNotFoundError."""
    try:
        text = untrusted.read(folder / CONFIG, limits.CONFIG_BYTES)
    except untrusted.LimitExceeded as error:
        raise ValueError(f"{CONFIG}: {error}") from None
    return parse(text)


def parse(text: bytes) -> dict[str, Any]:
    """Return the config in the bytes of its file; raises ValueError, which names file and limit."""
    try:
        found = untrusted.parse(text)
    except ValueError as error:
        raise ValueError(f"{CONFIG}: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{CONFIG} is not a JSON object")
    return found


def check_sizes(config: Mapping[str, Any]) -> None:
    """Raise ValueError for a size beyond its limit, in the config or in one within it."""
    for name, value in _fields(config):
        if name == "__float__":  # transformers' spelling of NaN and infinity
            raise ValueError(f"a number is {value!r:.40}, but numbers must be finite")
        most = _LIMITS.get(name)
        if most is not None and isinstance(value, int):
            if isinstance(value, bool) or not 0 <= value <= most:
                raise ValueError(f"{name} is {_shown(value)}: it must be a number from 0 to {most:,}")
        elif (
            isinstance(value, int)
            and _OTHER_SIZES.fullmatch(name)
            and not -1 <= value <= limits.CONTEXT_TOKENS
        ):
            raise ValueError(f"{name} is {_shown(value)}; the limit is {limits.CONTEXT_TOKENS:,}")


def check_weights(config: Mapping[str, Any], tensors: Mapping[str, Shaped]) -> None:
    """Raise ValueError if the config asks for more than the weights can hold; ``tensors`` are all of them, by name."""
    largest = max((size for tensor in tensors.values() for size in tensor.shape), default=0)
    inner = config.get("text_config")
    for part in (config, *([inner] if isinstance(inner, dict) else [])):
        for name in _LAYERS:
            if isinstance(asked := part.get(name), int) and asked > len(tensors):
                raise ValueError(
                    f"{name} is {_shown(asked)}, but the weights hold only {len(tensors):,} tensors"
                )
        for name in _DIMENSIONS:
            if isinstance(asked := part.get(name), int) and asked > max(largest, len(tensors)):
                raise ValueError(
                    f"{name} is {_shown(asked)}, but no tensor of the weights has a dimension above {largest:,}"
                )


def _shown(value: int) -> str:
    return (
        str(value).lower()
        if isinstance(value, bool)
        else f"{value:.4g}"
        if abs(value) > 1 << 53
        else f"{value:,}"
    )


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield all fields of an object and of those within it."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield from part.items()
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
