"""Keys and values of the sequences that a network of transformers is decoding, in independent rows.

In transformers' own caches all sequences of a batch are at the same position; those of a server are not. Here each
sequence of a pass has a row and a position of its own, and the masks limit what it sees.

Shapes: B sequences of a pass, T new tokens, R rows, S positions, G key/value heads, C width of a head.
"""

import torch
from torch import Tensor
from transformers import Cache


class RowCache:
    """R rows of up to ``max_length`` positions; a layer takes memory when it is first written to."""

    def __init__(self, rows: int, max_length: int) -> None:
        self.lengths_R = torch.zeros(rows, dtype=torch.long)
        self.max_length = max_length
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def append(
        self, layer: int, rows_B: Tensor, at_BT: Tensor, k_BGTC: Tensor, v_BGTC: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Store keys and values at positions of rows; return those rows up to the last position."""
        if layer not in self._layers:
            self._layers[layer] = (self._empty(k_BGTC), self._empty(v_BGTC))
        end = int(at_BT.max()) + 1
        keys_RGSC, values_RGSC = self._layers[layer]
        keys_RGSC[rows_B[:, None], :, at_BT] = k_BGTC.transpose(1, 2)
        values_RGSC[rows_B[:, None], :, at_BT] = v_BGTC.transpose(1, 2)
        return keys_RGSC[rows_B, :, :end], values_RGSC[rows_B, :, :end]

    def _empty(self, like_BGTC: Tensor) -> Tensor:
        _, groups, _, width = like_BGTC.shape
        return like_BGTC.new_zeros(self.lengths_R.shape[0], groups, self.max_length, width)


class Appending(Cache):  # type: ignore[misc]
    """A RowCache as the attention of transformers sees it during one pass."""

    def __init__(self, cache: RowCache, rows_B: Tensor, at_BT: Tensor) -> None:
        super().__init__(layers=[])
        self._cache, self._rows_B, self._at_BT = cache, rows_B, at_BT

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Add a layer's new keys and values, and return those that its new tokens may see."""
        return self._cache.append(layer_idx, self._rows_B, self._at_BT, key_states, value_states)
