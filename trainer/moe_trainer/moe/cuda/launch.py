# mypy: disable-error-code="import-untyped"
"""Launches a kernel on torch's current stream: tensor maps, arguments, grid."""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor

from moe_trainer.moe.cuda.compile import Kernel, cubin

THREADS = 384  # kThreads of pipeline.cuh: one producer warpgroup, two consumers
STAGES = 4
#: Dynamic shared memory of a block: the stages (128 rows and 256 columns, 64 bf16 each) and two barriers per stage.
SHARED_BYTES = STAGES * (128 + 256) * 64 * 2 + 2 * STAGES * 8


@dataclass(frozen=True)
class TensorMap:
    """A bf16 tensor as the copy engine sees it: four dimensions, the innermost first, and the box it copies.

    The innermost dimension is dense. A box is 64 elements (128 bytes) wide there, swizzled as pipeline.cuh describes.
    Elements of a box that lie outside the tensor are read as 0.
    """

    address: int
    sizes: tuple[int, int, int, int]  #: In elements.
    strides: tuple[int, int, int]  #: Of the second to the fourth dimension, in elements.
    box: tuple[int, int, int, int]  #: In elements.


Argument = Tensor | TensorMap | int | None


class Launch(Protocol):
    """A function that runs a kernel with arguments in the order of its parameters; None is a null pointer."""

    def __call__(self, kernel: Kernel, arguments: Sequence[Argument]) -> None:
        """Run it, or raise RuntimeError."""
        ...


def launch_on_gpu(kernel: Kernel, arguments: Sequence[Argument]) -> None:
    """Enqueue a kernel on the current stream of the device that its tensors are on.

    The grid fills the device whatever the batch, and nothing is read back. So the launch can be captured in a CUDA
    graph, provided that the kernel was launched once before and is therefore compiled and loaded.
    """
    from cuda.bindings import driver

    device = next(argument.device for argument in arguments if isinstance(argument, Tensor))
    with torch.cuda.device(device):
        values, pointers = pack(arguments, encode)
        blocks = torch.cuda.get_device_properties(device).multi_processor_count
        _call(
            driver.cuLaunchKernel,
            _load(kernel, device),
            blocks - blocks % kernel.cluster, 1, 1,
            THREADS, 1, 1,
            SHARED_BYTES,
            torch.cuda.current_stream(device).cuda_stream,
            ctypes.addressof(pointers),
            0,
        )  # fmt: skip
        del values  # the driver has copied them


def pack(
    arguments: Sequence[Argument], encoded: Callable[[TensorMap], Any]
) -> tuple[list[Any], "ctypes.Array[ctypes.c_void_p]"]:
    """Return the arguments as C values, and an array of pointers to them, which is valid only as long as they exist."""
    values = [_value(argument, encoded) for argument in arguments]
    pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
    return values, pointers


def _value(argument: Argument, encoded: Callable[[TensorMap], Any]) -> Any:
    if isinstance(argument, TensorMap):
        return encoded(argument)
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_void_p() if argument is None else ctypes.c_int(argument)


@lru_cache(maxsize=1024)
def encode(tensor_map: TensorMap) -> Any:
    """Return the 128 bytes that the copy engine reads; they depend only on the fields of ``tensor_map``."""
    from cuda.bindings import driver

    encoded = _call(
        driver.cuTensorMapEncodeTiled,
        driver.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        4,
        tensor_map.address,
        [driver.cuuint64_t(size) for size in tensor_map.sizes],
        [driver.cuuint64_t(2 * stride) for stride in tensor_map.strides],
        [driver.cuuint32_t(size) for size in tensor_map.box],
        [driver.cuuint32_t(1)] * 4,
        driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
        driver.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B,
        driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
    )
    return (ctypes.c_ubyte * 128).from_buffer_copy(ctypes.string_at(encoded.getPtr(), 128))


@cache
def _load(kernel: Kernel, device: torch.device) -> Any:
    """Load the kernel into the context of a device, which must be current, and return it; it is never unloaded."""
    from cuda.bindings import driver

    module = _call(driver.cuModuleLoadData, cubin(kernel))
    function = _call(driver.cuModuleGetFunction, module, kernel.name.encode())
    shared = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    _call(driver.cuFuncSetAttribute, function, shared, SHARED_BYTES)
    return function


def _call(function: Any, *arguments: Any) -> Any:
    """Call the driver; raises RuntimeError if it reports anything but success."""
    result, *values = function(*arguments)
    if result != 0:
        raise RuntimeError(f"{function.__name__} failed with {result.name}")
    return values[0] if values else None
