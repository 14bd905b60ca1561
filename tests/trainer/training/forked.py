"""Commands in processes that are forked where all that they import is there, so that it is read once for all tests."""

import multiprocessing
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from moe_trainer.main import main

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        __name__,
        "moe_trainer.train",
        "moe_trainer.hugging_face.directory",
        "torch.distributed.fsdp",
        "torch.distributed.tensor",
        "transformers.models.mixtral.modeling_mixtral",
        "transformers.models.qwen3_moe.modeling_qwen3_moe",
    ]
)


class Forked:
    """``moe-trainer train`` in a process of its own, after running some code in it; what it says goes to a file."""

    def __init__(self, code: str, variables: Mapping[str, str], said: Path) -> None:
        self._said = said
        self._process = _SERVER.Process(target=_run, args=(code, dict(variables), said))
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """The exit code, or less the signal that ended it; None: it runs."""
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> str:
        """Wait for its end, and return what it said."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, f"it still runs after {timeout} s"
        return self._said.read_text()

    def kill(self) -> None:
        """End it, if it runs."""
        self._process.kill()


def _run(code: str, variables: dict[str, str], said: Path) -> None:
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.environ.clear()
    os.environ |= variables
    exec(code, {"__name__": "code"})
    sys.exit(main(["train"]))
