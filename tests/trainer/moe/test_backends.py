"""Which backend a call gets, and what one says that was asked for where it cannot run."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from moe_trainer.moe import backends
from moe_trainer.moe.backends import Backend
from moe_trainer.moe.experts import swiglu_experts
from moe_trainer.moe.kernels import Case

from .conftest import random_batch

CPU = Case("cpu", torch.float32, 64, 128, 64, 8, 2)
HOPPER = Case("cuda", torch.bfloat16, 64, 128, 64, 8, 2, capability=(9, 0))


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (CPU, "native"),
        (replace(CPU, dtype=torch.bfloat16), "torch"),
        (HOPPER, "triton"),
        (replace(HOPPER, gradients=False), "triton"),
        (replace(HOPPER, dtype=torch.float32), "torch"),
        (replace(HOPPER, inner=60), "torch"),
        (replace(HOPPER, capability=(7, 0)), "torch"),
    ],
)
def test_the_backend_follows_from_device_type_and_sizes(
    case: Case, expected: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moe_trainer.moe.native.library.unavailable", lambda: None)  # with a compiler
    assert backends.choose(case) == expected


@pytest.mark.parametrize("backend", ["triton", "cuda"])
@pytest.mark.parametrize(
    "changed",
    [{"device": "cpu"}, {"dtype": torch.float64}, {"hidden": 100}, {"capability": (7, 5)}],
)
def test_a_backend_that_is_asked_for_where_it_cannot_run_says_why_and_what_to_do(
    backend: Backend, changed: dict[str, object]
) -> None:
    case = replace(HOPPER, **changed)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=f"^backend '{backend}' cannot run here: .*(backend 'torch'|or 'torch')"
    ):
        backends.kernels(backend, case)


@pytest.mark.parametrize("backend", ["triton", "cuda"])
def test_a_layer_on_a_cpu_refuses_a_backend_for_gpus(backend: Backend) -> None:
    with pytest.raises(ValueError, match=f"^backend '{backend}' cannot run here: it needs a CUDA device"):
        random_batch().to(torch.float32).run(backend)


def test_an_unknown_backend_is_refused_with_the_names_there_are() -> None:
    batch = random_batch()
    with pytest.raises(
        ValueError, match=r"^backend 'mlx' is unknown: use reference, cuda, triton, native, torch or None$"
    ):
        swiglu_experts(
            batch.x_ND,
            batch.experts_NK,
            batch.weights_NK,
            batch.gate_up_E2FD,
            batch.down_EDF,
            backend="mlx",  # type: ignore[arg-type]
        )


def test_a_backend_for_gpus_is_not_imported_before_it_is_used() -> None:
    kernels = ("triton", "moe_trainer.moe.triton.kernels", "moe_trainer.moe.cuda.kernels")
    program = (
        f"import sys, moe_trainer.moe.layer; print(*[name for name in {kernels} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
