"""Where Triton's kernels run in tests: compiled on a GPU where there is one, else in Triton's interpreter.

The switch is in tests/trainer/conftest.py. The interpreter computes bf16 wrongly (its tensors are numpy's,
which has none), so there every test uses fp32; on a GPU the same tests run in both.
"""

from collections.abc import Callable

import pytest
import torch

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
DTYPES = (torch.float32, torch.bfloat16) if GPU else (torch.float32,)


def needs_gpu(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that only a real GPU can run, such as one that captures a CUDA graph."""
    return pytest.mark.gpu(pytest.mark.skipif(not GPU, reason="no GPU here")(test))


@pytest.fixture(params=DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """The type of x and of the in-layer experts' weights."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(autouse=not GPU)
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter has nothing to time: it takes the first tile of those to choose from."""
    monkeypatch.setattr("moe_trainer.moe.triton.tiles._milliseconds", lambda launch: 0.0)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)  # needs a driver
