"""What is handed to the driver, which is not here: a function in its place records the call."""

import ctypes
from typing import Any

import pytest
import torch

pytest.importorskip("cuda.bindings", reason="cuda-bindings comes with torch's build for CUDA")

from cuda.bindings import driver

from moe_trainer.moe.cuda import launch
from moe_trainer.moe.cuda.launch import Encoder, TensorMap, aligned, encode, make_current

MAP = TensorMap(4096, sizes=(64, 96, 2, 3), strides=(64, 64 * 96, 64 * 192), box=(64, 128, 1, 1))
DEVICE = torch.device("cuda", 1)


@pytest.mark.parametrize("to", [16, 64, 128, 4096])
def test_a_buffer_is_aligned_and_cleared_and_its_own(to: int) -> None:
    buffers = [aligned(128, to=to) for _ in range(50)]
    for number, buffer in enumerate(buffers):
        assert ctypes.addressof(buffer) % to == 0 and bytes(buffer) == bytes(128)
        buffer[:] = bytes([number] * 128)
    assert [set(buffer) for buffer in buffers] == [{number} for number in range(50)]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Put a function in the place of the driver's, which records its arguments and fails for an address of 13."""
    seen: list[dict[str, Any]] = []

    def encode_tiled(map_: int, *rest: Any) -> int:
        kind, rank, address, sizes, strides, box, steps, *options = rest
        numbers = {
            "sizes": sizes[:rank],
            "strides": strides[: rank - 1],
            "box": box[:rank],
            "steps": steps[:rank],
        }
        seen.append({"map": map_, "kind": kind, "address": address, "options": options} | numbers)
        ctypes.memset(map_, 7, 128)
        return 1 if address == 13 else 0

    function = Encoder(encode_tiled)
    monkeypatch.setattr(launch, "_encoder", lambda: function)
    encode.cache_clear()
    return seen


def test_a_tensor_map_is_encoded_at_an_aligned_address_with_strides_in_bytes(
    calls: list[dict[str, Any]],
) -> None:
    encoded = encode(MAP)
    assert bytes(encoded) == bytes([7] * 128)
    (call,) = calls
    assert call["map"] % 128 == 0 and call["map"] == ctypes.addressof(encoded)
    assert call["address"] == 4096
    assert (call["sizes"], call["box"], call["steps"]) == ([64, 96, 2, 3], [64, 128, 1, 1], [1, 1, 1, 1])
    assert call["strides"] == [2 * 64, 2 * 64 * 96, 2 * 64 * 192]
    assert call["kind"] == int(driver.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16)
    assert call["options"] == [
        int(driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE),
        int(driver.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B),
        int(driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B),
        int(driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
    ]


def test_a_map_that_the_driver_refuses_is_an_error_with_its_name(calls: list[dict[str, Any]]) -> None:
    wrong = TensorMap(13, MAP.sizes, MAP.strides, MAP.box)
    with pytest.raises(
        RuntimeError, match=r"cuTensorMapEncodeTiled failed with CUDA_ERROR_INVALID_VALUE: .*address=13"
    ):
        encode(wrong)


@pytest.mark.parametrize("current", [0, 5])
def test_a_thread_without_a_context_gets_the_devices_primary_one(
    current: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, Any]] = []
    success = driver.CUresult.CUDA_SUCCESS
    monkeypatch.setattr(driver, "cuCtxGetCurrent", lambda: (success, driver.CUcontext(current)))
    monkeypatch.setattr(driver, "cuDeviceGet", lambda number: (success, number))
    monkeypatch.setattr(
        driver, "cuDevicePrimaryCtxRetain", lambda number: (made.append(("retain", number)), (success, 77))[1]
    )
    monkeypatch.setattr(
        driver, "cuCtxSetCurrent", lambda context: (made.append(("set", context)), (success,))[1]
    )
    launch._primary_context.cache_clear()
    for _ in range(2):
        make_current(DEVICE)
    assert made == ([] if current else [("retain", 1), ("set", 77), ("set", 77)])
    launch._primary_context.cache_clear()
