"""The architecture of a model: the ``config.json`` of Hugging Face's Qwen3-MoE. Imports no torch."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ModelConfig(BaseModel):
    """Sizes of a decoder-only mixture-of-experts transformer, under Qwen3-MoE's names."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    model_type: Literal["qwen3_moe"] = "qwen3_moe"
    vocab_size: int = Field(gt=0, le=1 << 20)
    hidden_size: int = Field(gt=0, le=1 << 16)
    num_hidden_layers: int = Field(gt=0, le=1024)
    num_attention_heads: int = Field(gt=0, le=1024)
    num_key_value_heads: int = Field(gt=0, le=1024)
    head_dim: int = Field(gt=0, le=1024)
    num_experts: int = Field(gt=0, le=4096, description="In-layer experts of each layer.")
    num_experts_per_tok: int = Field(gt=0, description="In-layer experts that each token uses.")
    moe_intermediate_size: int = Field(gt=0, le=1 << 16, description="Inner width of one in-layer expert.")
    norm_topk_prob: bool = Field(default=True, description="Weights of a token's experts sum to 1.")
    max_position_embeddings: int = Field(gt=0, le=1 << 20, description="Context, in tokens.")
    rope_theta: float = Field(default=10_000.0, gt=0)
    rms_norm_eps: float = Field(default=1e-6, gt=0)
    tie_word_embeddings: bool = True
    initializer_range: float = Field(default=0.02, gt=0)
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_rope_parameters(cls, data: Any) -> Any:
        """Accept both places where transformers has kept the base of the rotary embedding."""
        if isinstance(data, dict) and isinstance(data.get("rope_parameters"), dict):
            return {"rope_theta": data["rope_parameters"].get("rope_theta", 10_000.0)} | data
        return data

    @model_validator(mode="after")
    def _check_sizes(self) -> "ModelConfig":
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads must be a multiple of num_key_value_heads")
        if self.num_experts_per_tok > self.num_experts:
            raise ValueError("num_experts_per_tok must not exceed num_experts")
        if self.head_dim % 2:
            raise ValueError("head_dim must be even: rotary embeddings turn pairs")
        return self

    def to_hugging_face(self) -> dict[str, Any]:
        """Return ``config.json`` as transformers reads it."""
        return {
            **self.model_dump(),
            "architectures": ["Qwen3MoeForCausalLM"],
            "attention_bias": False,
            "decoder_sparse_step": 1,
            "dtype": "float32",
            "hidden_act": "silu",
            "intermediate_size": self.moe_intermediate_size,
            "mlp_only_layers": [],
            "rope_parameters": {"rope_theta": self.rope_theta, "rope_type": "default"},
            "use_sliding_window": False,
        }
