"""Converts tensors between memory and disk by transformers' own rules, a few at a time.

On disk each in-layer expert has tensors of its own; in memory those of a layer are stacked. Older checkpoints have other
names, and some lack the prefix of the layers. transformers defines which become which (core_model_loading.py). Here its
rules are applied to a few tensors, or a few rows of a stack, at a time, so that no process needs all of them.

    places(network, names)      where each tensor on disk belongs in a network
    from_disk(…)                what reads rows of each tensor of the network
    to_disk(…), groups(…)       the way back, to the names that the checkpoint had
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

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


class Place(NamedTuple):
    """Where a tensor on disk belongs."""

    target: str  #: The tensor's name in the network, or that of the first tensor that is made from it.
    converter: WeightConverter | None = None  #: What makes the network's tensors from several on disk.
    pattern: str = ""  #: The name of the tensor in the converter.


def places(network: PreTrainedModel, names: Iterable[str]) -> tuple[dict[str, Place], dict[str, str]]:
    """Return the place of each tensor on disk, by its name; and of those without one the name that they would have.

    The network keeps the rules that applied, as one does that transformers loads, so that it is written as it was.
    """
    rules = get_model_conversion_mapping(network)
    renamings = [entry for entry in rules if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in rules if isinstance(entry, WeightConverter)]
    by_pattern = {pattern: entry for entry in converters for pattern in entry.source_patterns}
    expected = network.state_dict()
    found: dict[str, Place] = {}
    without: dict[str, str] = {}
    for name in sorted(names, key=dot_natural_key):
        prefix = network.base_model_prefix
        target, pattern = rename_source_key(name, renamings, converters, prefix, expected)
        if target not in expected and name in expected:  # it has its name in memory already
            target, pattern = rename_source_key(name, [], [], prefix, expected)
        if target in expected:
            found[name] = Place(target) if pattern is None else Place(target, by_pattern[pattern], pattern)
        else:
            without[name] = target
    network._weight_conversions = [rule for rule in rules if rule.was_used()]
    return found, without


def is_ignored(network: PreTrainedModel, name: str) -> bool:
    """Return whether transformers ignores a tensor on disk that would have this name in a network, which lacks it.

    Each architecture lists what published checkpoints hold besides: heads for further tokens, tables that are computed
    today, parts for images.
    """
    patterns = set(network._keys_to_ignore_on_load_unexpected or ())
    buffers = [buffer for buffer, _ in network.named_buffers()]
    for table in (
        "rotary_emb.inv_freq",
        "position_ids",
    ):  # as PreTrainedModel._adjust_missing_and_unexpected_keys
        if any(buffer.endswith(table) for buffer in buffers):
            patterns.add(rf"(^|\.){re.escape(table)}$")
    return any(re.search(pattern, name) for pattern in patterns)


def stored_tensors(network: PreTrainedModel) -> dict[str, Tensor]:
    """Return the tensors of a network that are stored, by name: parameters, and buffers of its state."""
    state: dict[str, Tensor] = network.state_dict()
    for name in network.all_tied_weights_keys:
        state.pop(name, None)
    return state


def groups(network: PreTrainedModel, names: Sequence[str]) -> list[list[str]]:
    """Return the names of a network's tensors, grouped by the tensor on disk that they become part of, in its order."""
    rules = getattr(network, "_weight_conversions", None)
    if rules is None:
        rules = get_model_conversion_mapping(network, add_legacy=False)
    converters = [entry.reverse_transform() for entry in rules[::-1] if isinstance(entry, WeightConverter)]
    found: dict[str, list[str]] = {}
    for name in sorted(names, key=dot_natural_key):
        found.setdefault(apply_converters(name, converters)[0], []).append(name)
    return list(found.values())


def to_disk(network: PreTrainedModel, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of a network as they are on disk; the tensors of a group must be passed together."""
    made: dict[str, Tensor] = revert_weight_conversion(network, dict(tensors))
    return made


def names_on_disk(
    network: PreTrainedModel, found: Mapping[str, Place], written: Mapping[str, Tensor]
) -> dict[str, str]:
    """Return the name that each tensor on disk has in ``written``, which is what to_disk returns.

    It is another one if the checkpoint lacks the prefix of the layers, or holds a tied weight under another name.
    """
    state, prefix = stored_tensors(network), network.base_model_prefix

    def candidates(name: str, place: Place) -> Iterator[str]:
        yield name
        yield f"{prefix}.{name}"
        yield name.removeprefix(f"{prefix}.")
        if place.converter is None:
            yield from to_disk(network, {place.target: state[place.target]})

    return {
        name: next((new for new in candidates(name, place) if new in written), name)
        for name, place in found.items()
    }


def from_disk(
    network: PreTrainedModel, found: Mapping[str, Place], stored: Mapping[str, Stored], read: Read
) -> dict[str, RowReader]:
    """Return what reads some rows of each tensor of a network, by name; ``found`` has the places of those on disk.

    Raises JobError (ModelUnsupported) if transformers has no rule for a tensor.
    """

    def outlined(name: str, rows: slice) -> Tensor:
        return torch.empty(stored[name].shape, dtype=stored[name].dtype, device="meta")

    made: dict[str, _Made] = {}
    readers: dict[str, RowReader] = {}
    for name in sorted(found, key=dot_natural_key):
        target, converter, pattern = found[name]
        if converter is None:
            readers[target] = partial(read, name)
        else:
            made.setdefault(target, _Made(network, target, converter, read)).add(pattern, name)
    for several in made.values():
        readers |= several.rows(outlined)
    expected = stored_tensors(network)
    if unknown := expected.keys() - readers.keys():
        raise JobError(
            "ModelUnsupported",
            f"{min(unknown)} of model_type {network.config.model_type!r} cannot be read by rows: transformers has no "
            "rule that makes it from the tensors on disk. Save the checkpoint again with transformers.",
        )
    return {name: readers[name] for name in expected}


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
