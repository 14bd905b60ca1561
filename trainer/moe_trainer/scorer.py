"""Scores segments with a model: negative log-likelihoods in nats, next-byte hits. Imports torch.

Shapes: B segments of a batch, T tokens, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from moe_trainer.causal_model import CausalModel
from moe_trainer.device import use_device
from moe_trainer.failure import JobError
from moe_trainer.matrix import Cell, CellKey
from moe_trainer.segments import Segment
from moe_trainer.tokenizer import Tokenizer

__all__ = ["score", "use_device"]

BATCH = 32


@torch.inference_mode()
def score(model: CausalModel, tokenizer: Tokenizer, segments: Sequence[Segment], key: CellKey) -> Cell:
    """Return the cell of a model on a holdout's segments.

    Batches depend on nothing but the segments, so scoring twice on one CPU gives the same bits. Raises
    JobError (ContextTooShort) if the model cannot see a whole segment with its context.
    """
    room = model.context
    longest = max(map(_length, segments), default=0)
    if longest > room:
        raise JobError(
            "ContextTooShort",
            f"the model's context is {room} tokens, and a segment with its context is {longest} bytes: a "
            "model that is to be evaluated needs max_position_embeddings of at least that.",
        )
    nats, context_nats, hits = [0.0] * len(segments), [0.0] * len(segments), [0] * len(segments)
    order = sorted(range(len(segments)), key=lambda i: (-_length(segments[i]), i))
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        scored = _score_batch(model, tokenizer, [segments[i] for i in batch])
        for i, (segment_nats, before, right) in zip(batch, scored, strict=True):
            nats[i], context_nats[i], hits[i] = segment_nats, before, right
    return Cell(
        key=key,
        clusters=tuple(segment.cluster for segment in segments),
        sizes=tuple(len(segment.text) for segment in segments),
        nats=tuple(nats),
        hits=tuple(hits),
        context_nats=tuple(context_nats),
    )


def _score_batch(
    model: CausalModel, tokenizer: Tokenizer, segments: Sequence[Segment]
) -> list[tuple[float, float, int]]:
    """Return (nats of the segment, nats of its context, hits in the segment) for each segment."""
    rows = [
        torch.tensor([tokenizer.bos_id, *tokenizer.encode(segment.context + segment.text)])
        for segment in segments
    ]
    ids_BT = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_id)
    logits_BTV = model(ids_BT[:, :-1])
    targets_BT = ids_BT[:, 1:]
    nats_BT = F.cross_entropy(logits_BTV.transpose(1, 2), targets_BT, reduction="none").double()
    hits_BT = logits_BTV.argmax(-1) == targets_BT
    return [
        _split(nats_T, hits_T, len(segment.context), len(segment.text))
        for nats_T, hits_T, segment in zip(nats_BT, hits_BT, segments, strict=True)
    ]


def _split(nats_T: Tensor, hits_T: Tensor, context: int, length: int) -> tuple[float, float, int]:
    """Part a row's tokens, one a byte, into context, segment and padding."""
    end = context + length
    return float(nats_T[context:end].sum()), float(nats_T[:context].sum()), int(hits_T[context:end].sum())


def _length(segment: Segment) -> int:
    return len(segment.context) + len(segment.text)
