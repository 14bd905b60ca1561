"""A context too short for a pool's segments, said before anything has been paid for. Imports no torch.

Each function returns what is wrong and what to do about it, or None. The operator asks where it knows the answer;
the snapshot Job asks all of them, and has the checkpoint as well.
"""

from typing import Any

from moe_trainer.failure import JobError
from moe_trainer.formats import parse_json
from moe_trainer.presets import PRESETS
from moe_trainer.segment_size import DEFAULT_SEGMENT_BYTES, SegmentBytes, tokens_needed

#: What architectures call the longest sequence in ``config.json``.
_LONGEST = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx")


def check(*findings: str | None) -> None:
    """Raise JobError (ContextTooShort) for the first finding."""
    found = next((finding for finding in findings if finding is not None), None)
    if found is not None:
        raise JobError("ContextTooShort", f"{found}.")


def of_sequences(context_tokens: int | None, segment_bytes: SegmentBytes) -> str | None:
    """Judge the tokens of a training sequence; None: as many as fit."""
    if context_tokens is None:
        return None
    what = f"spec.training.contextTokens is {context_tokens}"
    fix = f"Set it to {tokens_needed(segment_bytes)} or more, or leave it out"
    return _too_few(what, context_tokens, segment_bytes, fix)


def of_preset(name: str | None, segment_bytes: SegmentBytes) -> str | None:
    """Judge a preset; that it exists is judged elsewhere."""
    config = PRESETS.get(name or "")
    if config is None:
        return None
    tokens = config.max_position_embeddings
    what = f"spec.base.preset is {name!r}, which sees {tokens} tokens"
    return _too_few(what, tokens, segment_bytes, "Take a base that sees as many")


def of_checkpoint(where: str, config: bytes, segment_bytes: SegmentBytes) -> str | None:
    """Judge a checkpoint by its ``config.json``; one that does not say how much it sees is judged when it is scored."""
    try:
        raw: Any = parse_json(config)
    except ValueError:
        return None  # loading it says what is wrong
    if not isinstance(raw, dict):
        return None
    text = raw.get("text_config")
    said = raw | text if isinstance(text, dict) else raw
    field = next((name for name in _LONGEST if isinstance(said.get(name), int)), None)
    if field is None:
        return None
    what = f"{field} in config.json of the base {where} is {said[field]}"
    return _too_few(what, said[field], segment_bytes, "Take a base that sees as many")


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
