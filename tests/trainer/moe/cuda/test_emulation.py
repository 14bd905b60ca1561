"""The emulation must notice what it is there for: kernels that were broken on purpose, one mistake each."""

import ctypes
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from moe_trainer.moe.cuda.compile import SOURCE
from moe_trainer.moe.cuda.products import up

from .emulator import Emulator, build, needs_compiler
from .test_products import dispatch_of, normal


@dataclass(frozen=True)
class Mistake:
    """What a line of a source is changed to, and what the emulation says: by default, other numbers."""

    file: str
    line: str
    instead: str
    message: str = "other numbers"


MISTAKES = {
    "no proxy fence after a gather": Mistake(
        "pipeline.cuh",
        "                async_proxy_fence();\n",
        "",
        "read what no proxy fence has passed",
    ),
    "rows said to be there before they are": Mistake("pipeline.cuh", "gather_wait<kLag>();", ""),
    "rows that are not swizzled": Mistake("pipeline.cuh", "(chunk ^ row % 8)", "chunk"),
    "a stage released before it was read": Mistake(
        "pipeline.cuh", "wgmma_wait<1>();  // for the step before this one", ""
    ),
    "a first wait for the wrong phase": Mistake("pipeline.cuh", "ring.parity ^ 1", "ring.parity", "a deadlock"),
    "a stage filled before the peer has read it": Mistake(
        "pipeline.cuh", "/ 32 * kCluster);", "/ 32);", "a deadlock"
    ),
    "a block that ends before its peer": Mistake(
        "pipeline.cuh", "    cluster_sync();  // a block that ends", "    // a block that ends", "a block that has ended"
    ),
    "sums of the tile before": Mistake("pipeline.cuh", "step + i > 0", "true"),
}  # fmt: skip


@pytest.fixture(params=MISTAKES.values(), ids=MISTAKES)
def mistake(request: pytest.FixtureRequest) -> Mistake:
    found: Mistake = request.param
    return found


@needs_compiler
def test_a_mistake_in_a_kernel_is_noticed(
    mistake: Mistake, tmp_path: Path, libraries: dict[int, ctypes.CDLL]
) -> None:
    broken = tmp_path / "source"
    shutil.copytree(SOURCE, broken)
    text = (broken / mistake.file).read_text()
    assert mistake.line in text
    (broken / mistake.file).write_text(text.replace(mistake.line, mistake.instead))
    assert mistake.message in outcome({2: build(2, tmp_path, broken)}, outcome(libraries))


def outcome(libraries: dict[int, ctypes.CDLL], expected: str = "") -> str:
    """Return what a run ended with: its error, or its numbers compared with those of another run."""
    dispatch = dispatch_of([140, 0, 260], dropped=6)
    x_ND = normal(dispatch.slots_S.numel() // 2, 448)
    gate_up_E2FD = normal(dispatch.experts, 256, 448, seed=2)
    results = []
    for seed in range(2):
        launch = Emulator(libraries, cluster=2, multiprocessors=2, late=True, seed=seed)
        try:
            _, a_SF = up(x_ND, gate_up_E2FD, dispatch, launch, keep=False, activate=True)
        except RuntimeError as error:
            return str(error)
        assert a_SF is not None
        results.append(a_SF[: int(dispatch.offsets_E1[-1])].view(torch.int16).numpy().tobytes())
    numbers = str(hash(tuple(results)))
    return numbers if numbers == expected or not expected else "other numbers"
