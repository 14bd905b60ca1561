"""Greedy completions of many prompts by one model, for evaluation. Imports torch.

Batches depend only on the prompts, so asking twice on the same CPU gives the same answers.

Shapes: B prompts of a batch, T tokens of a prompt, V vocabulary.
"""

from collections.abc import Sequence

import torch

from moe_trainer.evaluation.scores import Absent
from moe_trainer.evaluators.tasks import Completion
from moe_trainer.models.causal_model import CausalModel
from moe_trainer.text.tokenizer import Tokenizer

BATCH = 16


@torch.inference_mode()
def complete(
    model: CausalModel, tokenizer: Tokenizer, prompts: Sequence[str], max_tokens: int, stop: Sequence[str]
) -> list[Completion]:
    """Return what the model writes after each prompt, always taking the most probable token.

    A completion ends before the first of the ``stop`` texts, at the end of the document, or after ``max_tokens``
    tokens. Raises Absent (ContextTooShort) if a prompt leaves no room for that many.
    """
    encoded = [[tokenizer.bos_id, *tokenizer.encode(prompt)] for prompt in prompts]
    room, longest = model.context, max(map(len, encoded), default=0)
    if longest + max_tokens > room:
        raise Absent(
            f"ContextTooShort: the longest prompt has {longest} tokens and maxTokens is {max_tokens}, but the model's context is "
            f"{room} tokens: leave out long prompts, lower maxTokens, or train a model with a longer context.",
        )
    order = sorted(range(len(encoded)), key=lambda i: (len(encoded[i]), i))
    completions: dict[int, Completion] = {}
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        rows = _Batch(model, tokenizer, max_tokens, stop)
        completions.update(zip(batch, rows.complete([encoded[i] for i in batch]), strict=True))
    return [completions[i] for i in range(len(encoded))]


class _Batch:
    """One batch: each prompt fills a row of a cache, then all rows are continued together until the last one ends."""

    def __init__(
        self, model: CausalModel, tokenizer: Tokenizer, max_tokens: int, stop: Sequence[str]
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._stop = stop
        self._never = torch.tensor(sorted(model.never_ids), dtype=torch.long)

    def complete(self, prompts: Sequence[list[int]]) -> list[Completion]:
        """Return the completions of encoded prompts."""
        cache = self._model.new_cache(len(prompts), max(map(len, prompts)) + self._max_tokens)
        written: list[list[int]] = [[] for _ in prompts]
        done: dict[int, Completion] = {}
        for row, prompt in enumerate(prompts):
            logits_TV = self._model(torch.tensor([prompt]), cache, torch.tensor([row]))[0]
            self._take(logits_TV[-1], row, written, done)
        while running := [row for row in range(len(prompts)) if row not in done]:
            newest_B1 = torch.tensor([[written[row][-1]] for row in running])
            logits_BV = self._model(newest_B1, cache, torch.tensor(running))[:, -1]
            for row, logits_V in zip(running, logits_BV, strict=True):
                self._take(logits_V, row, written, done)
        return [done[row] for row in range(len(prompts))]

    def _take(
        self, logits_V: torch.Tensor, row: int, written: list[list[int]], done: dict[int, Completion]
    ) -> None:
        """Add the most probable token to a row, or note that the row has ended."""
        token = int(logits_V.index_fill(0, self._never, -torch.inf).argmax())
        if token in self._model.end_ids:
            done[row] = Completion(self._tokenizer.decode(written[row]), cut=False)
            return
        written[row].append(token)
        text = self._tokenizer.decode(written[row])
        ends = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        if ends:
            done[row] = Completion(text[: min(ends)], cut=False)
        elif len(written[row]) == self._max_tokens:
            done[row] = Completion(text, cut=True)
