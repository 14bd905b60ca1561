"""Tiny random decoders of transformers, by architecture, and checkpoints of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    FlexOlmoConfig,
    Glm4MoeConfig,
    GraniteMoeConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    OlmoeConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

from . import tokenizers_made_here

VOCABULARY = 300

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "initializer_range": 0.2,
}
_MIXTURE = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}

CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**_SIZES),
    "qwen3": lambda: Qwen3Config(**_SIZES, head_dim=8, tie_word_embeddings=True),
    "mistral": lambda: MistralConfig(**_SIZES, sliding_window=6),
    "qwen3-sliding": lambda: Qwen3Config(
        **_SIZES,
        head_dim=8,
        use_sliding_window=True,
        sliding_window=6,
        layer_types=["full_attention", "sliding_attention"],
    ),
    "qwen3-moe": lambda: Qwen3MoeConfig(**_SIZES, **_MIXTURE, head_dim=8, num_experts=4, norm_topk_prob=True),
    "mixtral": lambda: MixtralConfig(**_SIZES, num_local_experts=4, num_experts_per_tok=2),
    "olmoe": lambda: OlmoeConfig(**_SIZES, num_experts=4, num_experts_per_tok=2),
    "flex-olmo": lambda: FlexOlmoConfig(**_SIZES, num_experts=4, num_experts_per_tok=2),
    "granite-moe": lambda: GraniteMoeConfig(
        **_SIZES, num_local_experts=4, num_experts_per_tok=2, tie_word_embeddings=False
    ),
    "qwen2-moe": lambda: Qwen2MoeConfig(
        **_SIZES, **_MIXTURE, num_experts=4, shared_expert_intermediate_size=12, decoder_sparse_step=1
    ),
    "glm4-moe": lambda: Glm4MoeConfig(
        **_SIZES,
        **_MIXTURE,
        head_dim=8,
        n_routed_experts=8,
        n_shared_experts=1,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=1,
        routed_scaling_factor=1.5,
    ),
}
DENSE = ("llama", "qwen3", "mistral", "qwen3-sliding")
MIXTURES = ("qwen3-moe", "mixtral", "olmoe", "glm4-moe")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def network(name: str) -> PreTrainedModel:
    """Return a random network of an architecture, in evaluation mode, computed as transformers does."""
    torch.manual_seed(0)
    made: PreTrainedModel = AutoModelForCausalLM.from_config(CONFIGS[name](), experts_implementation="eager")
    with torch.no_grad():
        for module in made.modules():
            bias = getattr(module, "e_score_correction_bias", None)
            if bias is not None:
                bias.normal_(0, 0.2)
    return made.eval()


def write_checkpoint(
    folder: Path, name: str, *, dtype: torch.dtype = torch.float32, shards: str = "5GB"
) -> Path:
    """Write what a hub has of a model: config, weights in a type, generation config, tokenizer."""
    network(name).to(dtype).save_pretrained(folder, max_shard_size=shards)
    tokenizers_made_here.write(folder, tokenizers_made_here.byte_level())
    return folder


def ids(rows: int = 3, length: int = 20) -> torch.Tensor:
    return torch.randint(256, (rows, length), generator=torch.Generator().manual_seed(1))
