"""Logits of a network of transformers piece by piece: its layers once, what comes after them for each piece.

What an architecture does behind its layers (the head, soft caps, scales) differs, and is in the network's own
``forward`` alone. So that runs for each piece, with ``logits_to_keep``; the layers answer all but the first time
with what they gave before.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def computed_once(module: nn.Module) -> Iterator[None]:
    """Within, a module that is called again returns what it returned first, whatever it is given."""
    compute, answers = module.forward, list[Any]()

    def answer(*arguments: Any, **named: Any) -> Any:
        if not answers:
            answers.append(compute(*arguments, **named))
        return answers[0]

    module.forward = answer
    try:
        yield
    finally:
        del module.forward  # what its class has is in force again
