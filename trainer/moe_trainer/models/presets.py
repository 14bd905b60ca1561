"""Architectures by name, for Experts that start from nothing. Imports no torch."""

from moe_formats.context_length import PRESET_CONTEXT_TOKENS
from moe_formats.failure import JobError
from moe_trainer.models.preset_config import ModelConfig
from moe_trainer.text.tokenizer import BOS, EOS, PAD, ByteTokenizer

#: About 1 M parameters: learns plain text in a minute of one CPU core. For laptops, demos and tests.
#: It sees a million tokens in that time, so what counts is how soon attention finds the last few bytes:
#: rotary angles with short periods and a short context halve the tokens that this takes.
_TINY = ModelConfig(
    vocab_size=ByteTokenizer.vocab_size,
    hidden_size=128,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=64,
    num_experts=8,
    num_experts_per_tok=2,
    moe_intermediate_size=128,
    max_position_embeddings=PRESET_CONTEXT_TOKENS["tiny"],
    rope_theta=100.0,
    initializer_range=0.08,
    bos_token_id=BOS,
    eos_token_id=EOS,
    pad_token_id=PAD,
)

PRESETS: dict[str, ModelConfig] = {
    "tiny": _TINY,
    # The same with sigmoid scores and a selection bias, which balances without a loss.
    "tiny-sigmoid": _TINY.model_copy(
        update={"model_type": "glm4_moe", "max_position_embeddings": PRESET_CONTEXT_TOKENS["tiny-sigmoid"]}
    ),
}


def preset(name: str) -> ModelConfig:
    """Return an architecture; raises JobError (UnknownPreset) that lists the names there are."""
    try:
        return PRESETS[name]
    except KeyError:
        known = ", ".join(sorted(PRESETS))
        raise JobError("UnknownPreset", f"preset {name!r} does not exist; there are: {known}.") from None
