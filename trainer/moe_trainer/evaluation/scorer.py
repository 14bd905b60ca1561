"""Scores segments with a model: negative log-likelihoods in nats, and next-byte hits. Imports torch.

Memory is bounded for any segments and vocabulary: batches have a limit of tokens, and logits are made in pieces.

Shapes: B segments of a batch, T tokens, P tokens of a piece, V vocabulary.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from moe_formats.failure import JobError
from moe_trainer.evaluation.matrix import Cell, CellKey
from moe_trainer.evaluation.round_trip import is_given_back
from moe_trainer.evaluation.segments import Segment
from moe_trainer.models.causal_model import CausalModel
from moe_trainer.models.device import use_device
from moe_trainer.text.tokenizer import Tokenizer

__all__ = ["score", "use_device"]

#: Most segments of a batch, and most tokens including padding. With a token per byte or fewer, only the number of
#: segments matters for short ones.
BATCH = 32
BATCH_TOKENS = 32 * 512

#: About the number of logits of a piece, which take 256 MiB; scoring takes three times that.
PIECE_LOGITS = 1 << 26

#: The length of a piece is a multiple of this: then its logits have the same bits as those of the whole (x86).
PIECE_STEP = 16

Row = list[int]


@torch.inference_mode()
def score(model: CausalModel, tokenizer: Tokenizer, segments: Sequence[Segment], key: CellKey) -> Cell:
    """Return the cell of a model on a holdout's segments.

    Context and segment are tokenized separately, so that no token belongs to both. Batches depend only on the
    segments, so scoring twice on the same CPU gives the same bits. Raises JobError (ContextTooShort) if the model
    cannot see a whole segment with its context.
    """
    contexts = [[tokenizer.bos_id, *tokenizer.encode(segment.context)] for segment in segments]
    texts = [tokenizer.encode(segment.text) for segment in segments]
    sizes = [len(context) + len(text) - 1 for context, text in zip(contexts, texts, strict=True)]
    if max(sizes, default=0) > model.context:
        raise JobError(
            "ContextTooShort",
            f"the model's context is {model.context} tokens, but a segment with its context has {max(sizes)}: to be "
            "evaluated, a model needs max_position_embeddings of at least that.",
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
            if not is_given_back(tokenizer, text, segment.text)
        ),
    )


def _batches(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Yield batches of segments' numbers, the longest segments first."""
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
    """Return the number of positions for which logits are made at once, for ``rows`` rows."""
    return max(1, PIECE_LOGITS // (rows * vocabulary * PIECE_STEP)) * PIECE_STEP


def _judge(logits_BPV: Tensor, targets_BP: Tensor, bytes_V: Tensor) -> tuple[Tensor, Tensor]:
    """Return each token's negative log-likelihood, and its number of bytes if it was the most likely one, else 0."""
    nats_BP = F.cross_entropy(logits_BPV.transpose(1, 2), targets_BP, reduction="none").double()
    return nats_BP, (logits_BPV.argmax(-1) == targets_BP) * bytes_V[targets_BP]


def _split(nats_T: Tensor, hits_T: Tensor, context: int, length: int) -> tuple[float, float, int]:
    """Split a row's predicted tokens into context, segment and padding, and sum over the first two."""
    end = context + length
    return float(nats_T[context:end].sum()), float(nats_T[:context].sum()), int(hits_T[context:end].sum())
