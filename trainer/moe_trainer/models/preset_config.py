"""The presets' architecture, as in ``config.json`` of Hugging Face, and the presets by name. Imports no torch.

    qwen3_moe    softmax scores
    glm4_moe     sigmoid scores with a selection bias; expert groups, shared experts, scaled weights

Attention and the order of the layers are the same in both. What neither can express is refused here, so that
transformers can load whatever is trained.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from moe_formats.context_length import PRESET_CONTEXT_TOKENS
from moe_formats.failure import JobError
from moe_trainer import limits
from moe_trainer.text.tokenizer import BOS, EOS, PAD, ByteTokenizer

#: The names under which architectures have the number of in-layer experts per layer in ``config.json``.
IN_LAYER_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")

#: Fields of ``config.json`` that only glm4_moe has, with their values for a model that does not use them.
_GLM_ONLY = {"n_group": 1, "topk_group": 1, "n_shared_experts": 0, "routed_scaling_factor": 1.0}

#: The values that a glm4_moe must have to be this architecture; GLM-4.5 itself differs in the first and the third.
_GLM_FIXED = {
    "first_k_dense_replace": 0,
    "use_qk_norm": True,
    "partial_rotary_factor": 1.0,
    "attention_bias": False,
}


class ModelConfig(BaseModel):
    """Sizes of a decoder-only mixture-of-experts transformer, under Hugging Face's names."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    model_type: Literal["qwen3_moe", "glm4_moe"] = Field(
        default="qwen3_moe", description="qwen3_moe: softmax scores; glm4_moe: sigmoid scores with a bias."
    )
    vocab_size: int = Field(gt=0, le=limits.VOCABULARY)
    hidden_size: int = Field(gt=0, le=1 << 16)
    num_hidden_layers: int = Field(gt=0, le=limits.LAYERS)
    num_attention_heads: int = Field(gt=0, le=1024)
    num_key_value_heads: int = Field(gt=0, le=1024)
    head_dim: int = Field(gt=0, le=1024)
    num_experts: int = Field(gt=0, le=limits.EXPERTS, description="In-layer experts of each layer.")
    num_experts_per_tok: int = Field(gt=0, description="In-layer experts that each token uses.")
    moe_intermediate_size: int = Field(gt=0, le=1 << 16, description="Inner width of one in-layer expert.")
    norm_topk_prob: bool = Field(default=True, description="Weights of a token's experts sum to 1.")
    n_group: int = Field(default=1, gt=0, description="Groups of in-layer experts; glm4_moe only.")
    topk_group: int = Field(default=1, gt=0, description="Groups that a token chooses among; glm4_moe only.")
    n_shared_experts: int = Field(
        default=0, ge=0, le=64, description="In-layer experts that every token uses besides; glm4_moe only."
    )
    routed_scaling_factor: float = Field(
        default=1.0, gt=0, description="Factor of the chosen experts' weights; glm4_moe only."
    )
    max_position_embeddings: int = Field(gt=0, le=1 << 20, description="Context, in tokens.")
    rope_theta: float = Field(default=10_000.0, gt=0)
    rms_norm_eps: float = Field(default=1e-6, gt=0)
    tie_word_embeddings: bool = True
    initializer_range: float = Field(default=0.02, gt=0)
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None

    @property
    def scores(self) -> Literal["softmax", "sigmoid"]:
        """How the router turns its logits into scores."""
        return "softmax" if self.model_type == "qwen3_moe" else "sigmoid"

    @property
    def has_router_bias(self) -> bool:
        """Whether the router has a selection bias, which is stored with the weights."""
        return self.model_type == "glm4_moe"

    @model_validator(mode="before")
    @classmethod
    def _read_hugging_face(cls, data: Any) -> Any:
        """Accept the names and places that differ between architectures and versions of transformers."""
        if not isinstance(data, dict):
            return data
        rope = data.get("rope_parameters")
        if isinstance(rope, dict):
            data = {"rope_theta": 10_000.0} | rope | data
        if data.get("model_type") == "glm4_moe":
            if "n_routed_experts" in data:
                data = {"num_experts": data["n_routed_experts"]} | data
            for name, value in _GLM_FIXED.items():
                if data.get(name, value) != value:
                    raise ValueError(f"{name} is {data[name]}, but only {value} is supported for glm4_moe")
        return data

    @model_validator(mode="after")
    def _check_sizes(self) -> "ModelConfig":
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads is {self.num_attention_heads}, but must be a multiple of num_key_value_heads "
                f"({self.num_key_value_heads})"
            )
        if self.num_experts_per_tok > self.num_experts:
            raise ValueError(
                f"num_experts_per_tok is {self.num_experts_per_tok}, but must not exceed num_experts ({self.num_experts})"
            )
        if self.head_dim % 2:
            raise ValueError(
                f"head_dim is {self.head_dim}, but must be even: rotary embeddings rotate pairs of numbers"
            )
        return self

    @model_validator(mode="after")
    def _check_router(self) -> "ModelConfig":
        if self.model_type == "qwen3_moe":
            for name, unused in _GLM_ONLY.items():
                if getattr(self, name) != unused:
                    raise ValueError(
                        f"{name} is {getattr(self, name)}, which qwen3_moe cannot express: leave it at {unused}, "
                        "or set model_type to glm4_moe (sigmoid scores)"
                    )
        if self.num_experts % self.n_group or self.num_experts < 2 * self.n_group:
            raise ValueError(
                f"n_group is {self.n_group}, but num_experts ({self.num_experts}) must be divisible into that "
                "many groups of 2 or more in-layer experts"
            )
        reach = self.topk_group * self.num_experts // self.n_group
        if self.topk_group > self.n_group or reach < self.num_experts_per_tok:
            raise ValueError(
                f"topk_group is {self.topk_group}: it must not exceed n_group ({self.n_group}), and its groups "
                f"must hold num_experts_per_tok ({self.num_experts_per_tok}) in-layer experts, not {reach}"
            )
        return self

    def to_hugging_face(self) -> dict[str, Any]:
        """Return ``config.json`` as transformers reads it."""
        written = self.model_dump() | {
            "attention_bias": False,
            "dtype": "float32",
            "hidden_act": "silu",
            "intermediate_size": self.moe_intermediate_size,
            "rope_parameters": {"rope_theta": self.rope_theta, "rope_type": "default"},
        }
        if self.model_type == "glm4_moe":
            written["rope_parameters"]["partial_rotary_factor"] = 1.0
            written["n_routed_experts"] = written.pop("num_experts")
            return (
                written
                | _GLM_FIXED
                | {"architectures": ["Glm4MoeForCausalLM"], "num_nextn_predict_layers": 0}
            )
        return {name: value for name, value in written.items() if name not in _GLM_ONLY} | {
            "architectures": ["Qwen3MoeForCausalLM"],
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "use_sliding_window": False,
        }


#: About 1 M parameters: learns plain text in a minute of one CPU core. For laptops, demos and tests.
#: It reads a million tokens in that time, so what counts is how soon attention learns to look at the last few bytes:
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
    # The same with sigmoid scores and a selection bias, by which load is balanced without a loss.
    "tiny-sigmoid": _TINY.model_copy(
        update={"model_type": "glm4_moe", "max_position_embeddings": PRESET_CONTEXT_TOKENS["tiny-sigmoid"]}
    ),
}


def preset(name: str) -> ModelConfig:
    """Return the architecture of a preset; raises JobError (UnknownPreset), which lists the presets."""
    try:
        return PRESETS[name]
    except KeyError:
        known = ", ".join(sorted(PRESETS))
        raise JobError("UnknownPreset", f"preset {name!r} does not exist; there are: {known}.") from None
