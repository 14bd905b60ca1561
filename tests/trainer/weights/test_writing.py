"""Files of tensors that come one by one are those that safetensors writes of all at once."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed
from torch.distributed import ProcessGroup

from moe_trainer.parallel.tensor_files import write_tensors
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
        save_each(tmp_path / "y", outline, [])


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["pipe", "link"])
@pytest.mark.parametrize("way", ["one by one", "at once", "in parts"])
def test_nothing_that_somebody_planted_is_written_to(tmp_path: Path, way: str, kind: str) -> None:
    target = tmp_path / "target"
    place = tmp_path / ("shard-00001-model-00001-of-00001.safetensors" if way == "in parts" else "x")
    if kind == "pipe":
        os.mkfifo(place)
    else:
        target.write_text("kept")
        place.symlink_to(target)
    if way == "at once":
        save_tensors(place, {"a": torch.ones(2)})
        assert place.is_file() and not place.is_symlink()
    elif way == "one by one":
        with pytest.raises(FileExistsError):
            streamed(place, TENSORS)
    else:
        with alone(tmp_path / "meeting") as group, pytest.raises(FileExistsError):
            write_tensors(tmp_path, {"a": torch.ones(2)}, group)
    assert kind == "pipe" or target.read_text() == "kept"


@contextmanager
def alone(meeting: Path) -> Iterator[ProcessGroup]:
    """Yield the group of a single process."""
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
    try:
        yield distributed.group.WORLD
    finally:
        distributed.destroy_process_group()
