"""Chooses the next token, and computes how probable tokens were.

Shapes: T tokens, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How to choose the next token: temperature 0 takes the most probable one."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None

    def generator(self) -> torch.Generator:
        """Return the random generator of one sequence; without a seed it is different every time."""
        generator = torch.Generator()
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(self.seed)
        return generator


@dataclass(frozen=True)
class TokenLogprob:
    """A token, its log-probability (nats, before temperature), its rank, and the most probable tokens in its place.

    The first token of a sequence has neither log-probability nor rank: nothing precedes it that could predict it.
    """

    token: int
    logprob: float | None = None
    rank: int | None = None
    top: tuple[tuple[int, float], ...] = ()


def choose(logits_V: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """Return the next token, drawn from the smallest set of tokens with a total probability of `top_p`."""
    if sampling.temperature == 0:
        return int(logits_V.argmax())
    probabilities_V = (logits_V / sampling.temperature).softmax(-1)
    if sampling.top_p < 1:
        sorted_V, order_V = probabilities_V.sort(descending=True)
        before_V = sorted_V.cumsum(-1) - sorted_V
        kept_V = torch.where(before_V < sampling.top_p, sorted_V, 0.0)
        return int(order_V[torch.multinomial(kept_V.cpu(), 1, generator=generator)])
    return int(torch.multinomial(probabilities_V.cpu(), 1, generator=generator))


def score(logits_TV: Tensor, tokens: Sequence[int], top: int) -> list[TokenLogprob]:
    """Return the log-probability of each token by the logits of its position, with the `top` best alternatives."""
    if not tokens:
        return []
    logprobs_TV = logits_TV.log_softmax(-1)
    chosen_T = logprobs_TV[torch.arange(len(tokens)), torch.tensor(tokens)]
    ranks = (logprobs_TV > chosen_T[:, None]).sum(-1) + 1
    best_TK = logprobs_TV.topk(top, dim=-1) if top else None
    scored = []
    for at, (token, logprob, rank) in enumerate(zip(tokens, chosen_T.tolist(), ranks.tolist(), strict=True)):
        alternatives = (
            tuple(zip(best_TK.indices[at].tolist(), best_TK.values[at].tolist(), strict=True))
            if best_TK
            else ()
        )
        scored.append(TokenLogprob(token, logprob, rank, alternatives))
    return scored
