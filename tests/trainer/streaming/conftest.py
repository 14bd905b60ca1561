"""The pool of the training tests: a snapshot, and a parent that trains in milliseconds per step."""

from tests.trainer.training.conftest import one_thread, pool, small_model, text

__all__ = ["one_thread", "pool", "small_model", "text"]
