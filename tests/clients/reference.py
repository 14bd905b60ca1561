"""What the models say, computed by transformers alone: the values that clients' answers are held against.

    .venv/bin/python tests/clients/reference.py STORE      one question per line in JSON, one answer per line

Logarithms are taken in double precision, and nothing of this project is imported.
"""

import json
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

STORE = sys.argv[1]


@cache
def _model(expert: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(f"{STORE}/{expert}", dtype=torch.float32).eval()


@cache
def _tokenizer(expert: str) -> Any:
    return AutoTokenizer.from_pretrained(f"{STORE}/{expert}")


def encode(expert: str, text: str) -> list[int]:
    """Return the ids of a text, without one that begins it."""
    return list(_tokenizer(expert).encode(text, add_special_tokens=False))


def chat(expert: str, messages: Sequence[dict[str, str]]) -> list[int]:
    """Return the ids of the prompt for the next answer in a conversation."""
    text = _tokenizer(expert).apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return encode(expert, text)


def decode(expert: str, ids: Sequence[int]) -> str:
    """Return the text of ids, without special tokens."""
    return str(_tokenizer(expert).decode(ids, skip_special_tokens=True))


def logprobs(expert: str, ids: Sequence[int], top: int = 5) -> list[dict[str, Any]]:
    """Return for each id after the first its log-probability, and the most probable ids with theirs."""
    with torch.inference_mode():
        rows = _model(expert)(torch.tensor([list(ids)])).logits[0].double().log_softmax(-1)
    found = []
    for row, following in zip(rows, ids[1:], strict=False):
        best = row.topk(top)
        found.append(
            {
                "logprob": row[following].item(),
                "top": list(zip(best.indices.tolist(), best.values.tolist(), strict=True)),
            }
        )
    return found


def greedy(expert: str, ids: Sequence[int], tokens: int) -> dict[str, Any]:
    """Return the most probable continuation, each token with its log-probability; it ends after the token that ends a text."""
    model, tokenizer, made = _model(expert), _tokenizer(expert), []
    with torch.inference_mode():
        for _ in range(tokens):
            row = (
                model(torch.tensor([[*ids, *(id for id, _ in made)]])).logits[0, -1].double().log_softmax(-1)
            )
            # An answer never has them. Its log-probabilities are the model's all the same.
            allowed = row.index_fill(
                0, torch.tensor([tokenizer.bos_token_id, tokenizer.pad_token_id]), -torch.inf
            )
            best = int(allowed.argmax())
            made.append((best, row[best].item()))
            if best == tokenizer.eos_token_id:
                break
    return {
        "ids": [id for id, _ in made],
        "logprobs": [value for _, value in made],
        "text": decode(expert, [id for id, _ in made]),
        "ended": made[-1][0] == tokenizer.eos_token_id,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    asked = {function.__name__: function for function in (encode, chat, decode, logprobs, greedy)}
    for line in sys.stdin:
        name, arguments = json.loads(line)
        print(json.dumps(asked[name](*arguments)), flush=True)
