"""Converts tensors between memory and disk by transformers' own rules, a few at a time.

On disk each in-layer expert has tensors of its own; in memory those of a layer are stacked. transformers defines which
become which (core_model_loading.py). Here its rules are applied to a few tensors, or a few rows of a stack, at a time,
so that no process needs all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    Concatenate,
    MergeModulelist,
    WeightConverter,
    WeightRenaming,
    apply_converters,
    dot_natural_key,
    rename_source_key,
    revert_weight_conversion,
)

from moe_formats.failure import JobError
from moe_trainer.weights.reading import RowReader, Stored

#: Returns some rows of a tensor on disk, given its name.
Read = Callable[[str, slice], Tensor]


def stored_tensors(network: PreTrainedModel) -> dict[str, Tensor]:
    """Return the tensors of a network that are stored, by name: parameters, and buffers of its state."""
    state: dict[str, Tensor] = network.state_dict()
    for name in network.all_tied_weights_keys:
        state.pop(name, None)
    return state


def groups(network: PreTrainedModel, names: Sequence[str]) -> list[list[str]]:
    """Return the names of a network's tensors, grouped by the tensor on disk that they become part of, in its order."""
    conversions = get_model_conversion_mapping(network, add_legacy=False)[::-1]
    converters = [entry.reverse_transform() for entry in conversions if isinstance(entry, WeightConverter)]
    found: dict[str, list[str]] = {}
    for name in sorted(names, key=dot_natural_key):
        found.setdefault(apply_converters(name, converters)[0], []).append(name)
    return list(found.values())


def to_disk(network: PreTrainedModel, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of a network as they are on disk; the tensors of a group must be passed together."""
    made: dict[str, Tensor] = revert_weight_conversion(network, dict(tensors))
    return made


def from_disk(network: PreTrainedModel, stored: Mapping[str, Stored], read: Read) -> dict[str, RowReader]:
    """Return what reads some rows of each tensor of a network, by name; ``stored`` lists everything on disk.

    Raises JobError (ModelUnsupported) if transformers has no rule for a tensor.
    """

    def outlined(name: str, rows: slice) -> Tensor:
        return torch.empty(stored[name].shape, dtype=stored[name].dtype, device="meta")

    conversions = get_model_conversion_mapping(network)
    renamings = [entry for entry in conversions if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in conversions if isinstance(entry, WeightConverter)]
    by_pattern = {pattern: entry for entry in converters for pattern in entry.source_patterns}
    expected = stored_tensors(network)
    whole: dict[str, str] = {}
    made: dict[str, _Made] = {}
    for name in sorted(stored, key=dot_natural_key):
        target, pattern = rename_source_key(name, renamings, converters, network.base_model_prefix, expected)
        if pattern is None:
            whole[target] = name
        else:
            made.setdefault(target, _Made(network, target, by_pattern[pattern], read)).add(pattern, name)
    found: dict[str, RowReader] = {}
    for target, name in whole.items():
        found[target] = partial(read, name)
    for several in made.values():
        found |= several.rows(outlined)
    if unknown := expected.keys() - found.keys():
        raise JobError(
            "ModelUnsupported",
            f"several processes cannot each read a part of {min(unknown)} of model_type {network.config.model_type!r}: "
            "train the model in one process.",
        )
    return {name: found[name] for name in expected}


class _Made:
    """Tensors of a network that a conversion makes from several tensors on disk."""

    def __init__(self, network: PreTrainedModel, target: str, conversion: Any, read: Read) -> None:
        self._network, self._target, self._conversion, self._read = network, target, conversion, read
        self._sources: dict[str, list[str]] = {}  #: Names by pattern: one per row of a stack.

    def add(self, pattern: str, name: str) -> None:
        """Add a tensor on disk, in the order of the rows."""
        self._sources.setdefault(pattern, []).append(name)

    def rows(self, outlined: Read) -> dict[str, RowReader]:
        """Return what reads some rows of each of them; ``outlined`` reads only shapes."""
        if self._is_stack():
            return {self._target: lambda rows: self._converted(self._read, rows)[self._target]}
        return {name: partial(self._one, name) for name in self._converted(outlined)}

    def _one(self, name: str, rows: slice) -> Tensor:
        return self._converted(self._read)[name][rows]

    def _is_stack(self) -> bool:
        """Return whether each row is made from tensors of its own."""
        first, *rest = self._conversion.operations
        along_rows = any(not isinstance(op, Concatenate) or op.dim == 0 for op in rest)
        return isinstance(first, MergeModulelist) and first.dim == 0 and not along_rows

    def _converted(self, read: Read, rows: slice = slice(None)) -> dict[str, Tensor]:
        conversion = deepcopy(self._conversion)
        for pattern, names in self._sources.items():
            for name in names[rows]:
                conversion.add_tensor(self._target, name, pattern, read(name, slice(None)))
        made = conversion.convert(self._target, model=self._network, config=self._network.config)
        return {name: found[0] if isinstance(found, list) else found for name, found in made.items()}
