"""A tiny random config of nearly every decoder that transformers has, by its model_type."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY = 300
EXPERTS = 4
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
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), EXPERTS),
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
    "cohere_compass_text": {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1]}
        }
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10_000.0, "clip_qkv": 8.0},
        "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 24, "moe_num_experts": EXPERTS, "moe_top_k": 2},
    },
    "dots3_note_text": _EACH_HEAD_ALONE,
    "blt": {
        "cross_attn_k": 1,
        "encoder_hash_byte_group_vocab": 100,
        "encoder_hash_byte_group_size": [3],
        **{
            part: {"hidden_size_global": 32, "cross_attn_k": 1}
            for part in ("encoder_config", "decoder_config")
        },
    },
    "dots3_note": {
        "text_config": _EACH_HEAD_ALONE,
        "vision_config": {"pyramid_num_routed": [0], "adapter_in_dim": 32, "adapter_out_dim": 32},
        "audio_config": {"adapter_input_size": 32, "adapter_out_dim": 32},
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": WINDOW},
    "granitemoehybrid": {
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "layer_types": ["full_attention", "full_attention"],
    },
    "lfm2_moe": {"layer_types": ["full_attention", "full_attention"], "num_dense_layers": 1},
    "mamba2": {"num_heads": 8},
    "phi4_multimodal": {"audio_config": {"ext_pw_out_channel": 32, "nemo_conv_channels": 32}},
    "reformer": {
        "is_decoder": True,
        "attn_layers": ["local", "lsh"],
        "attention_head_size": 8,
        "axial_pos_shape": [8, 16],
        "axial_pos_embds_dim": [16, 16],
        "lsh_attn_chunk_length": 8,
        "local_attn_chunk_length": 8,
        "num_buckets": 4,
        "feed_forward_size": 24,
    },
    "zamba": {
        "num_hidden_layers": 3,
        "layers_block_type": ["hybrid", "linear_attention", "hybrid"],
        "num_key_value_heads": 4,
    },
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"], "num_key_value_heads": 4},
    "zaya": {"num_experts_per_tok": 1},
}

#: Why no small one is made.
UNTRIED: Mapping[str, str] = {
    **dict.fromkeys(
        ("gemma4_assistant", "gemma4_unified_assistant"),
        "it reads the cache of the model that it assists, so it predicts nothing by itself",
    ),
    **dict.fromkeys(
        ("musicgen", "musicgen_melody"), "transformers makes no decoder of the config of the whole model"
    ),
    "gemma3n": "it needs libraries for images, which are not installed",
}

KINDS = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny(kind: str) -> PreTrainedConfig:
    """Return a tiny config of an architecture."""
    made = CONFIG_MAPPING[kind]
    more = dict(_MORE.get(kind, {}))
    parts = {name: sizes | more.pop(name, {}) for name, sizes in _parts(made)}
    config: PreTrainedConfig = made(**(_sizes(made, _SIZES) | parts | more))
    return config


def _parts(made: type[PreTrainedConfig]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the sizes of each part of a config that is a config itself."""
    defaults = getattr(made, "sub_configs_defaults", None) or {}
    for name, part in (getattr(made, "sub_configs", None) or {}).items():
        known = _SIZES if "text" in name else _OTHER_PARTS
        model_type = getattr(defaults.get(name), "model_type", None)
        if part is AutoConfig and model_type in CONFIG_MAPPING:
            yield name, {"model_type": model_type, **_sizes(CONFIG_MAPPING[model_type], known)}
        else:
            yield name, _sizes(part, known)


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
