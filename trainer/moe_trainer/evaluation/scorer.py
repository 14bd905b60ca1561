"""Scores segments with a model: negative log-likelihoods in nats, next-byte hits. Imports torch.

Memory is bounded whatever the segments and the vocabulary: a batch by its tokens, logits by being made in pieces.

Shapes: B segments of a batch, T tokens, P tokens of a piece, V vocabulary.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from moe_formats.failure import JobError
from moe_trainer.evaluation.matrix import Cell, CellKey
from moe_trainer.evaluation.segments import Segment
from moe_trainer.models.causal_model import CausalModel
from moe_trainer.models.device import use_device
from moe_trainer.text.tokenizer import Tokenizer

__all__ = ["score", "use_device"]

#: Segments of a batch, and its tokens with what fills rows up, at most. Where a byte is a token or less, short
#: segments are bounded by their number alone.
BATCH = 32
BATCH_TOKENS = 32 * 512

#: Logits of a piece, about: it takes three times their 256 MiB.
PIECE_LOGITS = 1 << 26

#: Tokens by which the length of a piece goes up: pieces of so many have the bits of the whole (x86).
PIECE_STEP = 16

Row = list[int]


@torch.inference_mode()
def score(model: CausalModel, tokenizer: Tokenizer, segments: Sequence[Segment], key: CellKey) -> Cell:
    """Return the cell of a model on a holdout's segments.

    Context and segment are tokenized apart, so that no token belongs to both. Batches depend on nothing but
    the segments, so scoring twice on one CPU gives the same bits. Raises JobError (ContextTooShort) if the
    model cannot see a whole segment with its context.
    """
    contexts = [[tokenizer.bos_id, *tokenizer.encode(segment.context)] for segment in segments]
    texts = [tokenizer.encode(segment.text) for segment in segments]
    sizes = [len(context) + len(text) - 1 for context, text in zip(contexts, texts, strict=True)]
    if max(sizes, default=0) > model.context:
        raise JobError(
            "ContextTooShort",
            f"the model's context is {model.context} tokens, and a segment with its context is {max(sizes)}: a "
            "model that is to be evaluated needs max_position_embeddings of at least that.",
        )
    bytes_V = torch.tensor(tokenizer.sizes())
    nats, context_nats, hits = [0.0] * len(segments), [0.0] * len(segments), [0] * len(segments)
    for batch in _batches(sizes):
        scored = _score_batch(model, tokenizer.pad_id, bytes_V, [(contexts[i], texts[i]) for i in batch])
        for i, (segment_nats, before, right) in zip(batch, scored, strict=True):
            nats[i], context_nats[i], hits[i] = segment_nats, before, right
    return Cell(
        key=key,
        clusters=tuple(segment.cluster for segment in segments),
        sizes=tuple(len(segment.text) for segment in segments),
        nats=tuple(nats),
        hits=tuple(hits),
        context_nats=tuple(context_nats),
        unreadable=tuple(
            i
            for i, (segment, text) in enumerate(zip(segments, texts, strict=True))
            if tokenizer.decode(text).encode() != segment.text
        ),
    )


def _batches(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Yield batches of segments by their numbers, the longest first."""
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    while order:
        rows = max(1, min(BATCH, BATCH_TOKENS // max(1, sizes[order[0]])))
        yield order[:rows]
        del order[:rows]


def _score_batch(
    model: CausalModel, pad_id: int, bytes_V: Tensor, rows: Sequence[tuple[Row, Row]]
) -> list[tuple[float, float, int]]:
    """Return (nats of the segment, nats of its context, bytes of its tokens found most likely) of each row."""
    ids_BT = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor([*context, *text]) for context, text in rows], batch_first=True, padding_value=pad_id
    )
    targets_BT = ids_BT[:, 1:]
    length = _piece_length(len(rows), model.vocab_size)
    pieces = zip(
        model.logits_in_pieces(ids_BT[:, :-1], length), torch.split(targets_BT, length, dim=1), strict=True
    )
    nats, hits = zip(
        *(_judge(logits_BPV, targets_BP, bytes_V) for logits_BPV, targets_BP in pieces), strict=True
    )
    nats_BT, hits_BT = torch.cat(nats, dim=1), torch.cat(hits, dim=1)
    return [
        _split(nats_T, hits_T, len(context) - 1, len(text))
        for nats_T, hits_T, (context, text) in zip(nats_BT, hits_BT, rows, strict=True)
    ]


def _piece_length(rows: int, vocabulary: int) -> int:
    """Return the positions of so many rows whose logits are made at once."""
    return max(1, PIECE_LOGITS // (rows * vocabulary * PIECE_STEP)) * PIECE_STEP


def _judge(logits_BPV: Tensor, targets_BP: Tensor, bytes_V: Tensor) -> tuple[Tensor, Tensor]:
    """Return the negative log-likelihood of each token, and its bytes where it was the most likely one."""
    nats_BP = F.cross_entropy(logits_BPV.transpose(1, 2), targets_BP, reduction="none").double()
    return nats_BP, (logits_BPV.argmax(-1) == targets_BP) * bytes_V[targets_BP]


def _split(nats_T: Tensor, hits_T: Tensor, context: int, length: int) -> tuple[float, float, int]:
    """Part a row's predicted tokens into context, segment and padding."""
    end = context + length
    return float(nats_T[context:end].sum()), float(nats_T[:context].sum()), int(hits_T[context:end].sum())
