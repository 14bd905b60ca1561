"""Whether a model sees enough tokens for a pool's segments, checked before a Job takes any device.

Each ``shortfall_of_…`` returns a message that says what is too short and how to fix it, or None if nothing is. The
operator makes the checks that an Expert's spec allows; the snapshot Job, which has the checkpoint, makes all three.
"""

from collections.abc import Mapping
from typing import Any

from moe_formats.failure import JobError
from moe_formats.format import parse_json
from moe_formats.segment_size import DEFAULT_SEGMENT_BYTES, SegmentBytes, tokens_needed

#: Longest sequence that each preset takes, in tokens.
PRESET_CONTEXT_TOKENS: Mapping[str, int] = {
    "tiny": 384,
    "tiny-sigmoid": 384,
}  # what a segment of 256 bytes needs

#: Names that architectures give to the longest sequence in ``config.json``.
LONGEST = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "seq_length")


def longest(config: Mapping[str, Any]) -> tuple[str, int] | None:
    """Return the field of a ``config.json`` that names the longest sequence, and its tokens; None if none does."""
    return next(
        ((name, config[name]) for name in LONGEST if type(config.get(name)) is int and config[name] > 0), None
    )


def check(*shortfalls: str | None) -> None:
    """Raise JobError (ContextTooShort) with the first shortfall, if there is one."""
    short = next((shortfall for shortfall in shortfalls if shortfall is not None), None)
    if short is not None:
        raise JobError("ContextTooShort", f"{short}.")


def shortfall_of_sequences(context_tokens: int | None, segment_bytes: SegmentBytes) -> str | None:
    """Check the tokens of a training sequence. None means as many as the base can see, which is checked elsewhere."""
    if context_tokens is None:
        return None
    what = f"spec.training.contextTokens is {context_tokens}"
    fix = f"Set it to {tokens_needed(segment_bytes)} or more, or leave it out"
    return _too_few(what, context_tokens, segment_bytes, fix)


def shortfall_of_preset(name: str | None, segment_bytes: SegmentBytes) -> str | None:
    """Check a preset by name. A name that does not exist passes here, since it is refused elsewhere."""
    tokens = PRESET_CONTEXT_TOKENS.get(name or "")
    if tokens is None:
        return None
    what = f"spec.base.preset is {name!r}, which sees {tokens} tokens"
    return _too_few(what, tokens, segment_bytes, _another_base(segment_bytes))


def shortfall_of_checkpoint(where: str, config: bytes, segment_bytes: SegmentBytes) -> str | None:
    """Check a checkpoint by its ``config.json``. One that does not say how much it sees passes until it is scored."""
    try:
        raw: Any = parse_json(config)
    except ValueError:
        return None  # loading the checkpoint will say what is wrong
    if not isinstance(raw, dict):
        return None
    text = raw.get("text_config")
    said = raw | text if isinstance(text, dict) else raw
    found = longest(said)
    if found is None:
        return None
    field, tokens = found
    what = f"{field} in config.json of the base {where} is {tokens}"
    return _too_few(what, tokens, segment_bytes, _another_base(segment_bytes))


def _another_base(segment_bytes: SegmentBytes) -> str:
    return f"Use a base that sees at least {tokens_needed(segment_bytes)} tokens"


def _too_few(what: str, tokens: int, segment_bytes: SegmentBytes, fix: str) -> str | None:
    needed = tokens_needed(segment_bytes)
    if tokens >= needed:
        return None
    other = (
        f", or create the Expert in a pool with segmentBytes {DEFAULT_SEGMENT_BYTES}"
        if tokens >= tokens_needed(DEFAULT_SEGMENT_BYTES)
        else ""
    )
    return (
        f"{what}, but the pool's spec.evaluation.segmentBytes is {segment_bytes}, and with the text before them such "
        f"segments take {needed} tokens. {fix}{other}"
    )
