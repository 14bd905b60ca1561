"""The console program `moe-trainer`: the real one, with the small model in the place of the real one."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from small_trainer import model, serve, train


class _Artefacts(ModuleType):
    """Stands for the real module: an artefact of any method is one of the small model."""

    @staticmethod
    def load(store: Path, path: str, digest: str) -> tuple[Any, None]:
        """Return the counts, and no tokenizer."""
        return model.load(store / path, digest)


def main() -> int:
    """Run one command of the real program."""
    # The real program imports these by name when they are asked for.
    sys.modules["moe_trainer.methods.artefacts"] = _Artefacts("artefacts")
    sys.modules["moe_trainer.evaluation.scorer"] = model
    sys.modules["moe_trainer.evaluators.generation"] = model
    sys.modules["moe_trainer.train"] = train
    sys.modules["moe_trainer.serve"] = serve
    from moe_trainer.main import main as real

    return real()
