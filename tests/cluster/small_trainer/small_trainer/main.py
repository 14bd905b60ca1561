"""The console program `moe-trainer`: the real one, with the small model in the place of the real one."""

import sys

from small_trainer import model, serve, train


def main() -> int:
    """Run one command of the real program."""
    # The real program imports these by name when they are asked for.
    sys.modules["moe_trainer.artefact"] = model
    sys.modules["moe_trainer.evaluation.scorer"] = model
    sys.modules["moe_trainer.generation"] = model
    sys.modules["moe_trainer.train"] = train
    sys.modules["moe_trainer.serve"] = serve
    from moe_trainer.main import main as real

    return real()
