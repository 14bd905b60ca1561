"""The attention of the preset model: grouped queries, rotary positions, and the cache of keys and values.

Shapes: B sequences, T tokens, D hidden, H query heads, G key/value heads, C head width, R cache rows, S positions.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moe_trainer.models.preset_config import ModelConfig


class KVCache:
    """Keys and values of sequences being decoded: R independent rows of up to ``max_length`` positions.

    ``lengths_R`` is the number of filled positions of each row. A row is freed by setting its length to 0, and
    shortened by setting it lower. Memory: 2 * layers * R * G * S * C floats.
    """

    def __init__(self, config: ModelConfig, rows: int, max_length: int) -> None:
        shape = (config.num_hidden_layers, rows, config.num_key_value_heads, max_length, config.head_dim)
        self.keys_LRGSC = torch.zeros(shape)
        self.values_LRGSC = torch.zeros(shape)
        self.lengths_R = torch.zeros(rows, dtype=torch.long)
        self.max_length = max_length

    def append(
        self, rows_B: Tensor, at_BT: Tensor, layer: int, k_BGTC: Tensor, v_BGTC: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Store keys and values at positions of rows; return those rows up to the last position."""
        for kept_RGSC, new_BGTC in ((self.keys_LRGSC[layer], k_BGTC), (self.values_LRGSC[layer], v_BGTC)):
            kept_RGSC[rows_B[:, None], :, at_BT] = new_BGTC.transpose(1, 2)
        end = int(at_BT.max()) + 1
        return self.keys_LRGSC[layer, rows_B, :, :end], self.values_LRGSC[layer, rows_B, :, :end]


#: Adds a layer's new keys and values to a cache, and returns all that the new tokens may see.
Append = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]


class Attention(nn.Module):
    """Causal self-attention with grouped queries, rotary positions and normalised queries and keys."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.width = config.head_dim
        queries, groups = config.num_attention_heads * self.width, config.num_key_value_heads * self.width
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, groups, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, groups, bias=False)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=False)
        self.q_norm = nn.RMSNorm(self.width, eps=config.rms_norm_eps)
        self.k_norm = nn.RMSNorm(self.width, eps=config.rms_norm_eps)

    def forward(
        self,
        x_BTD: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask_B1TS: Tensor | None,
        append: Append | None,
    ) -> Tensor:
        """Return the attention's output for new tokens, which see what the mask allows; without a mask, all before them."""
        q_BHTC = _rotate(self.q_norm(self._heads(self.q_proj(x_BTD))), rotary)
        k_BGTC = _rotate(self.k_norm(self._heads(self.k_proj(x_BTD))), rotary)
        v_BGTC = self._heads(self.v_proj(x_BTD))
        if append is not None:
            k_BGTC, v_BGTC = append(self.layer, k_BGTC, v_BGTC)
        out_BHTC = F.scaled_dot_product_attention(
            q_BHTC, k_BGTC, v_BGTC, attn_mask=mask_B1TS, is_causal=mask_B1TS is None, enable_gqa=True
        )
        out: Tensor = self.o_proj(out_BHTC.transpose(1, 2).flatten(2))
        return out

    def _heads(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.view(*x_BTD.shape[:2], -1, self.width).transpose(1, 2)


def within_documents(positions_BT: Tensor) -> Tensor:
    """Return which tokens (T) see which (S): those of their own document up to themselves."""
    begins_BT = positions_BT.diff(prepend=positions_BT[:, :1] - 1) != 1
    document_BT = begins_BT.cumsum(dim=1)
    same_BTS = document_BT[:, :, None] == document_BT[:, None]
    return same_BTS.tril()[:, None]


def rotary_table(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Return the cosine and sine of every position's angles, as (S, C); the two halves of C belong together."""
    exponent_C = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    angle_SC = torch.outer(
        torch.arange(config.max_position_embeddings).float(), config.rope_theta**-exponent_C
    )
    angle_SC = torch.cat((angle_SC, angle_SC), dim=-1)
    return angle_SC.cos(), angle_SC.sin()


def _rotate(x_BHTC: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate each pair (c, c + C/2) by its position's angle."""
    cos, sin = rotary
    left, right = x_BHTC.chunk(2, dim=-1)
    return x_BHTC * cos + torch.cat((-right, left), dim=-1) * sin
