"""A tiny random config of nearly every decoder that transformers has, by its model_type."""

import inspect
from collections.abc import Mapping
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY = 300
#: Fewer tokens than the sequences of the tests have, so that what slides shows.
WINDOW = 6

#: Sizes, under the names that architectures give them.
_SIZES: Mapping[str, Any] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    "num_key_value_heads": 2,
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "decoder_ffn_dim"), 24),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 128),
    **dict.fromkeys(("sliding_window",), WINDOW),
    **dict.fromkeys(("head_dim", "rotary_dim", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "qk_head_dim"), 16),
    "hidden_size_per_layer_input": 8,
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk", "n_group"), 2),
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 12,
    **dict.fromkeys(("n_shared_experts", "topk_group", "first_k_dense_replace"), 1),
    **dict.fromkeys(("encoder_layers",), 1),
    **dict.fromkeys(("encoder_attention_heads",), 4),
    **dict.fromkeys(("encoder_ffn_dim",), 24),
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "initializer_range": 0.2,
    "init_std": 0.2,
}
#: The same for parts that see or hear.
_OTHER_PARTS: Mapping[str, Any] = {
    "hidden_size": 32,
    **dict.fromkeys(("intermediate_size", "encoder_ffn_dim"), 24),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "encoder_layers", "depth", "num_global_layers"), 1),
    **dict.fromkeys(("num_attention_heads", "num_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("embed_dim", "d_model", "out_hidden_size", "vision_output_dim"), 32),
    **dict.fromkeys(("head_dim", "output_dim", "patch_size"), 8),
    "image_size": 16,
    "vocab_size": VOCABULARY,
}
#: Keys and values for each head of queries.
_EACH_HEAD_ALONE = {"num_key_value_heads": 4}
#: What an architecture needs besides.
_MORE: Mapping[str, Mapping[str, Any]] = {
    "axk1": _EACH_HEAD_ALONE,
    "deepseek_v2": _EACH_HEAD_ALONE,
    "deepseek_v3": _EACH_HEAD_ALONE,
    "glm4_moe_lite": _EACH_HEAD_ALONE,
    "longcat_flash": _EACH_HEAD_ALONE,
    "minicpm3": _EACH_HEAD_ALONE,
    "youtu": _EACH_HEAD_ALONE,
    "bamba": {"mamba_n_heads": 8, "mamba_d_head": 8},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": WINDOW},
    "granitemoehybrid": {
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "layer_types": ["full_attention", "full_attention"],
    },
    "lfm2_moe": {"layer_types": ["full_attention", "full_attention"], "num_dense_layers": 1},
    "mamba2": {"num_heads": 8},
    "zaya": {"num_experts_per_tok": 1},
}

#: Why no small one is made.
UNTRIED: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "blt",
            "dots3_note",
            "fuyu",
            "gemma3",
            "got_ocr2",
            "moss_transcribe_diarize",
            "musicgen",
            "musicgen_melody",
        ),
        "besides the text it has parts of which no small ones can be made by their sizes alone",
    ),
    **dict.fromkeys(
        (
            "cohere_compass_text",
            "dbrx",
            "dots3_note_text",
            "gemma4_assistant",
            "gemma4_unified_assistant",
            "reformer",
            "zamba",
            "zamba2",
        ),
        "its sizes depend on each other in a way of their own",
    ),
    "phi4_multimodal": "even a small one takes seconds, because of its parts for images and sound",
    "gemma3n": "it needs libraries for images, which are not installed",
}

KINDS = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny(kind: str) -> PreTrainedConfig:
    """Return a tiny config of an architecture."""
    made = CONFIG_MAPPING[kind]
    parts = {
        name: _sizes(part, _SIZES if "text" in name else _OTHER_PARTS)
        for name, part in (getattr(made, "sub_configs", None) or {}).items()
    }
    config: PreTrainedConfig = made(**(_sizes(made, _SIZES) | parts | dict(_MORE.get(kind, {}))))
    return config


def _sizes(config: type[PreTrainedConfig], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sizes that a config has, each under one name."""
    fields = set(getattr(config, "__dataclass_fields__", {})) | set(
        inspect.signature(config.__init__).parameters
    )
    other_names: Mapping[str, str] = getattr(config, "attribute_map", None) or {}
    return {
        name: value
        for name, value in known.items()
        if (name in fields or name in other_names) and other_names.get(name) not in {*known} & fields
    }
