"""Files of tensors that come one by one are those that safetensors writes of all at once."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from moe_trainer.weights.reading import DTYPES, read_header, read_rows
from moe_trainer.weights.writing import TensorStream, save_each, save_tensors

TENSORS = {
    **{f"of type {name}": torch.arange(6).view(2, 3).to(dtype) for name, dtype in DTYPES.items()},
    "größe": torch.randn(5),
    "a.b": torch.randn(3, 2).t(),
    "b.a": torch.randn(4).bfloat16(),
    "empty": torch.empty(0, 7),
    "number": torch.tensor(2.5),
}


def streamed(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    stream = TensorStream([{name: tensor} for name, tensor in tensors.items()], lambda group: group)
    save_each(path, stream.outline(), stream)


@pytest.mark.parametrize("names", [list(TENSORS), list(reversed(TENSORS)), ["a.b"], ["empty"]])
def test_a_file_is_bit_for_bit_what_safetensors_writes(names: list[str], tmp_path: Path) -> None:
    tensors = {name: TENSORS[name] for name in names}
    save_tensors(tmp_path / "at-once", {name: tensor.contiguous() for name, tensor in tensors.items()})
    streamed(tmp_path / "one-by-one", tensors)
    assert (tmp_path / "one-by-one").read_bytes() == (tmp_path / "at-once").read_bytes()


def test_rows_are_read_alone(tmp_path: Path) -> None:
    streamed(tmp_path / "x.safetensors", TENSORS)
    header = read_header(tmp_path, "x.safetensors")
    for name, tensor in load_file(tmp_path / "x.safetensors").items():
        assert torch.equal(read_rows(tmp_path, header[name]), tensor)
        if tensor.dim():
            for rows in (slice(0, 1), slice(1, 2), slice(1, 1), slice(2, None)):
                assert torch.equal(read_rows(tmp_path, header[name], rows), tensor[rows])


def test_what_does_not_come_or_comes_otherwise_is_noticed(tmp_path: Path) -> None:
    outline = TensorStream([TENSORS], lambda group: group).outline()
    with pytest.raises(AssertionError, match=r"a\.b"):
        save_each(tmp_path / "x", outline, [("a.b", torch.zeros(3, 2))])
    with pytest.raises(AssertionError, match="did not come"):
        save_each(tmp_path / "x", outline, [])
