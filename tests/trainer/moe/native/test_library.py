"""Where there is no compiler, or one that fails, the reason is said and torch's passes are used."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from moe_trainer.moe import backends, native
from moe_trainer.moe.kernels import Case
from moe_trainer.moe.native import library
from moe_trainer.moe.router import route
from moe_trainer.moe.routing import RouterConfig

CPU = Case("cpu", torch.float32, 64, 128, 64, 8, 2)


@pytest.fixture(autouse=True)
def nothing_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOE_SCRATCH", str(tmp_path))
    monkeypatch.setattr(library, "library", library.library.__wrapped__)
    monkeypatch.setattr(library, "unavailable", library.unavailable.__wrapped__)


def test_without_a_compiler_the_loop_makes_do_with_torchs_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert backends.choose(CPU) == "torch"
    with pytest.raises(
        ValueError, match=r"^backend 'native' cannot run here: it needs a C compiler, .* use backend 'torch'$"
    ):
        backends.kernels("native", CPU)


def test_a_compiler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho 'swiglu.c:1: no such thing' >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    reason = native.refusal(CPU)
    assert reason is not None and "cannot compile it (swiglu.c:1: no such thing)" in reason


def test_a_compiler_that_makes_no_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strange = tmp_path / "cc"
    strange.write_text('#!/bin/sh\nfor last; do :; done\necho nonsense > "$last"\n')
    strange.chmod(0o755)
    monkeypatch.setenv("CC", str(strange))
    reason = native.refusal(CPU)
    assert reason is not None and "cannot be loaded" in reason


def test_without_a_compiler_the_router_is_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    logits_NE = torch.randn(300, 8, requires_grad=True)
    found, expected = (route(logits_NE, RouterConfig(8, 2), backend=backend) for backend in (None, "torch"))  # type: ignore[arg-type]
    assert torch.equal(found.weights_NK, expected.weights_NK)


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (replace(CPU, device="cuda"), "it is for CPUs"),
        (replace(CPU, dtype=torch.bfloat16), "it computes in torch.float32"),
    ],
)
def test_other_cases_are_refused_before_anything_is_compiled(case: Case, why: str) -> None:
    assert (native.refusal(case) or "").startswith(why)


def test_many_threads_are_better_shared_by_torch() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(native.THREADS + 1)
    try:
        assert "more than 2 threads" in (native.refusal(CPU) or "")
    finally:
        torch.set_num_threads(before)
