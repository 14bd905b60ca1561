"""The launches of the grouped products whose kernels are compiled without a GPU."""

from collections.abc import Callable

PRODUCT_LAUNCHES: dict[str, Callable[[], object]] = {}
