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
        make_current(device)
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
    """Return the 128 bytes that the copy engine reads; they depend only on the fields of ``tensor_map``.

    The driver writes them to an address that is a multiple of 128, as the type CUtensorMap asks since CUDA 13 (64
    before). The function of cuda-bindings lets it write into a Python object, at any address.
    """
    from cuda.bindings import driver

    map_ = aligned(128, to=128)
    result = _encoder()(
        ctypes.addressof(map_),
        driver.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        4,
        tensor_map.address,
        (ctypes.c_uint64 * 4)(*tensor_map.sizes),
        (ctypes.c_uint64 * 3)(*(2 * stride for stride in tensor_map.strides)),
        (ctypes.c_uint32 * 4)(*tensor_map.box),
        (ctypes.c_uint32 * 4)(1, 1, 1, 1),
        driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
        driver.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B,
        driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
    )
    if result != 0:
        raise RuntimeError(f"cuTensorMapEncodeTiled failed with {driver.CUresult(result).name}: {tensor_map}")
    return map_


#: The C type of cuTensorMapEncodeTiled: map, data type, rank, address, sizes, strides in bytes, box, element strides,
#: interleaving, swizzle, promotion to L2, filling of what lies outside.
Encoder = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.c_uint32,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_uint64),
    ctypes.POINTER(ctypes.c_uint64),
    ctypes.POINTER(ctypes.c_uint32),
    ctypes.POINTER(ctypes.c_uint32),
    *[ctypes.c_int] * 4,
)

#: The version of the driver's interface in which tensor maps appeared.
_SINCE = 12000


@cache
def _encoder() -> Any:
    """Return the driver's function itself."""
    from cuda.bindings import driver

    plain = driver.cuuint64_t(driver.CUdriverProcAddress_flags.CU_GET_PROC_ADDRESS_DEFAULT)
    address, _ = _call(driver.cuGetProcAddress, b"cuTensorMapEncodeTiled", _SINCE, plain)
    return Encoder(int(address))


def aligned(size: int, *, to: int) -> "ctypes.Array[ctypes.c_ubyte]":
    """Return a buffer of ``size`` bytes, cleared, whose address is a multiple of ``to``."""
    room = bytearray(size + to)  # a view keeps it where it is, and alive
    start = ctypes.addressof((ctypes.c_ubyte * len(room)).from_buffer(room))
    return (ctypes.c_ubyte * size).from_buffer(room, -start % to)


def make_current(device: torch.device) -> None:
    """Make a device's primary context current in this thread if no context is.

    A thread that has made no runtime call yet has none. With ``recompute`` a launch can be the first thing that
    autograd's own thread does.
    """
    from cuda.bindings import driver

    if int(_call(driver.cuCtxGetCurrent)) == 0:
        _call(driver.cuCtxSetCurrent, _primary_context(device))


@cache
def _primary_context(device: torch.device) -> Any:
    """Return the context that torch uses on a device. It is retained once and never released."""
    from cuda.bindings import driver

    number = torch.cuda.current_device() if device.index is None else device.index
    return _call(driver.cuDevicePrimaryCtxRetain, _call(driver.cuDeviceGet, number))


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
    """Call the driver and return its answer, or a list of its answers. Raises RuntimeError unless it succeeds."""
    result, *values = function(*arguments)
    if result != 0:
        raise RuntimeError(f"{function.__name__} failed with {result.name}")
    return values[0] if len(values) == 1 else values
