"""Tries out a network of transformers before its first training step: whether it is a decoder that can be used here.

    later tokens change nothing before them       else it is an encoder
    logits in pieces are those of the whole       else it could not be evaluated
    decoding gives the logits of the whole        else it could not be served
    documents of one sequence are apart           asked only where training keeps them apart

transformers has some 190 architectures, whose configs do not tell. A few tokens do, in a few passes of the base itself.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from moe_formats.failure import JobError
from moe_trainer.hugging_face.decoder import Decoder
from moe_trainer.parallel.processes import ALONE, Processes
from moe_trainer.untrusted import failing_as

#: Tokens of a sequence, and those of its first document in either row.
_LENGTH, _FIRST = 12, (5, 7)
#: A question is asked with other tokens before the answer is no: where two in-layer experts are almost equally good for
#: a token, rounding decides between them.
_TRIES = 3
#: The largest difference that is rounding, in standard deviations of the logits: in single precision, and in 16 bits.
_ROUNDING, _ROUNDING_16 = 1e-3, 0.15

_Question = Callable[[Decoder, Tensor], Iterator[tuple[Tensor, Tensor]]]


@torch.no_grad()
def try_out(decoder: Decoder, *, apart: bool, processes: Processes = ALONE) -> None:
    """Raise JobError if a decoder cannot be used; with ``apart`` also if it cannot keep documents apart.

    ModelUnsupported says what it does differently, InvalidConfig names training.acrossDocuments. All processes that
    share the model call it together. The decoder is left in evaluation mode.
    """
    name = type(decoder.network).__name__
    dropped = getattr(decoder.network.config, "layerdrop", 0)
    if dropped and not processes.alone:
        raise JobError(
            "ModelUnsupported",
            f"layerdrop is {dropped} in the base's config.json: each process would skip other layers, while all of them "
            "compute each layer together. Set it to 0, or train in one process.",
        )
    decoder.eval()
    with _failing(name) if processes.alone else nullcontext():  # else a process may have lost another one
        for question, fault in _FAULTS.items():
            if question is _pieces and not processes.alone:
                continue  # only a whole model is evaluated
            if _differs(decoder, question, processes):
                raise _unsupported(name, fault)
        if apart and _differs(decoder, _apart, processes):
            raise JobError(
                "InvalidConfig",
                f"training.acrossDocuments is false, but in a {name} each document changes what is predicted in the next "
                "one of its sequence: set it to true, or take another base.",
            )


@contextmanager
def _failing(name: str) -> Iterator[None]:
    with failing_as(lambda what: _unsupported(name, f"it fails with a few tokens ({what})")):
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise MemoryError(str(error)) from None


def _differs(decoder: Decoder, question: _Question, processes: Processes) -> bool:
    """Return whether a question is answered with different logits, whatever the tokens."""
    for seed in range(_TRIES):
        distances = [_distance(*pair) - _rounding(pair[0]) for pair in question(decoder, _ids(decoder, seed))]
        if not processes.any(max(distances) > 0):
            return False
    return True


def _later(decoder: Decoder, ids_BT: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    half = _LENGTH // 2
    other_BT = torch.cat((ids_BT[:, :half], ids_BT[:, half:].flip(1)), dim=1)
    yield decoder(other_BT)[:, :half], decoder(ids_BT)[:, :half]


def _pieces(decoder: Decoder, ids_BT: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    yield torch.cat(list(decoder.logits_in_pieces(ids_BT, 5)), dim=1), decoder(ids_BT)


def _decoded(decoder: Decoder, ids_BT: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    whole_BTV, cache, rows = decoder(ids_BT), decoder.new_cache(3, _LENGTH), torch.tensor([2, 0])
    for row, length in enumerate(_FIRST):
        yield decoder(ids_BT[[row], :length], cache, rows[[row]])[0], whole_BTV[row, :length]
    both = torch.arange(2)
    for step in range(2):
        at = torch.tensor(_FIRST) + step
        yield decoder(ids_BT[both, at][:, None], cache, rows)[:, 0], whole_BTV[both, at]


def _apart(decoder: Decoder, ids_BT: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """A document has the same logits after another one and before it."""
    swapped_BT = torch.stack([ids_T.roll(-first) for ids_T, first in zip(ids_BT, _FIRST, strict=True)])
    after = decoder.with_routing(ids_BT, _positions(_FIRST))[0]
    before = decoder.with_routing(swapped_BT, _positions([_LENGTH - first for first in _FIRST]))[0]
    for row, first in enumerate(_FIRST):
        yield after[row, first:], before[row, : _LENGTH - first]


_FAULTS: dict[_Question, str] = {
    _later: "later tokens change what it predicts before them, so it is not a decoder that predicts the next token",
    _pieces: "its logits cannot be computed in pieces, which evaluation needs",
    _decoded: "decoding token by token gives other logits than the whole sequence, so it could not be served",
}


def _positions(first: tuple[int, ...] | list[int]) -> Tensor:
    """Return the places of tokens in their documents, for rows with two documents."""
    return torch.stack([torch.cat((torch.arange(n), torch.arange(_LENGTH - n))) for n in first])


def _ids(decoder: Decoder, seed: int) -> Tensor:
    """Return ids from the middle of the vocabulary, where few are special."""
    generator = torch.Generator("cpu").manual_seed(seed)
    size = decoder.vocab_size
    drawn = torch.randint(
        size // 4, max(size // 2, size // 4 + 1), (2, _LENGTH), generator=generator, device="cpu"
    )
    return drawn.to(torch.get_default_device())


def _distance(found_NV: Tensor, expected_NV: Tensor) -> float:
    """Return the difference of most tokens' logits, relative to their spread; 0 if they are not finite or all alike.

    Weights that are not finite are reported by the first step.
    """
    distance_N = (found_NV - expected_NV).abs().mean(dim=-1) / expected_NV.std(dim=-1)
    return float(distance_N.flatten().median().nan_to_num(0.0))


def _rounding(logits: Tensor) -> float:
    return _ROUNDING if logits.device.type == "cpu" else _ROUNDING_16


def _unsupported(name: str, what: str) -> JobError:
    return JobError(
        "ModelUnsupported", f"the base is a {name} of transformers, and {what}. Take another base."
    )
