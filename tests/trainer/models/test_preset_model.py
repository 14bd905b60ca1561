from pathlib import Path
from typing import Any

import pytest
import torch
from tests.trainer.training.conftest import SMALL, everywhere_random

from moe_formats.segment_size import tokens_needed
from moe_trainer.methods import checkpoint_format
from moe_trainer.models.attention import KVCache
from moe_trainer.models.preset_config import PRESETS, ModelConfig, preset
from moe_trainer.models.preset_model import Model, initialise
from moe_trainer.text.tokenizer import ByteTokenizer

GLM = {"model_type": "glm4_moe"}

#: The routers that an artefact can hold, as changes to a preset's config.
ROUTERS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "softmax, not renormalised": {"norm_topk_prob": False},
    "sigmoid": GLM,
    "sigmoid, not renormalised": GLM | {"norm_topk_prob": False},
    "expert groups": GLM | {"n_group": 4, "topk_group": 2},
    "shared experts, scaled": GLM | {"n_shared_experts": 2, "routed_scaling_factor": 2.5},
}


def tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("router", ROUTERS)
def test_transformers_loads_an_artefact_and_computes_the_same_logits(tmp_path: Path, router: str) -> None:
    import transformers

    model = everywhere_random(Model(ModelConfig(**(preset("tiny").model_dump() | ROUTERS[router]))))
    checkpoint_format.write(tmp_path, "artefact", model.eval(), ByteTokenizer(), "{}")
    theirs, loading = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "artefact", output_loading_info=True
    )
    assert not any(loading.values())
    theirs.eval()
    ids = tokens(2, 100)
    with torch.inference_mode():
        torch.testing.assert_close(theirs(ids).logits, model(ids), atol=1e-4, rtol=1e-4)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "artefact")
    text = "naïve  \n\tπ≈3.14159 🙂 \x01"
    assert tokenizer.encode(text) == ByteTokenizer().encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_token_never_sees_those_after_it(small_model: Model) -> None:
    ids = tokens(1, 30)
    changed = ids.clone()
    changed[0, 20:] = (changed[0, 20:] + 1) % 256
    before, after = small_model(ids), small_model(changed)
    torch.testing.assert_close(before[:, :20], after[:, :20])
    assert not torch.allclose(before[:, 20:], after[:, 20:])


def test_decoding_with_a_cache_gives_the_logits_of_whole_sequences(small_model: Model) -> None:
    ids = tokens(3, 40)
    whole = small_model(ids)
    cache = KVCache(SMALL, rows=5, max_length=40)
    rows = torch.tensor([4, 0, 2])
    prompts = [7, 12, 3]
    with torch.inference_mode():
        for sequence, (row, length) in enumerate(zip(rows.tolist(), prompts, strict=True)):
            logits = small_model(ids[sequence : sequence + 1, :length], cache, torch.tensor([row]))
            torch.testing.assert_close(logits[0], whole[sequence, :length], atol=1e-5, rtol=1e-4)
        for place in range(28):
            at = torch.tensor([length + place for length in prompts])
            logits = small_model(ids.gather(1, at[:, None]), cache, rows)
            torch.testing.assert_close(logits[:, 0], whole[torch.arange(3), at], atol=1e-5, rtol=1e-4)
    assert cache.lengths_R.tolist() == [40, 0, 31, 0, 35]


def test_a_row_can_be_used_again_after_it_was_freed(small_model: Model) -> None:
    cache, row = KVCache(SMALL, rows=1, max_length=20), torch.tensor([0])
    with torch.inference_mode():
        small_model(tokens(1, 20, seed=1), cache, row)
        cache.lengths_R[0] = 0
        logits = small_model(tokens(1, 9), cache, row)
    torch.testing.assert_close(logits, small_model(tokens(1, 9)), atol=1e-5, rtol=1e-4)


def test_more_tokens_than_the_context_are_an_error(small_model: Model) -> None:
    with pytest.raises(ValueError, match="65 tokens do not fit into a context of 64"):
        small_model(tokens(1, 65))
    cache = KVCache(SMALL, rows=1, max_length=10)
    with pytest.raises(ValueError, match="11 tokens do not fit into a context of 10"):
        small_model(tokens(1, 11), cache)


def test_a_seed_decides_every_bit_of_a_new_model() -> None:
    models = [Model(SMALL) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        initialise(model, seed)
    first, same, other = (dict(checkpoint_format.stream(model)) for model in models)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


@pytest.mark.parametrize("length", [1, 5, 16, 40])
def test_logits_in_pieces_are_those_of_the_whole(length: int) -> None:
    model = Model(SMALL).eval()
    initialise(model, seed=1)
    ids = torch.randint(SMALL.vocab_size, (3, 20), generator=torch.Generator().manual_seed(0))
    pieces = list(model.logits_in_pieces(ids, length))
    assert [piece.shape[1] for piece in pieces] == [min(length, 20 - at) for at in range(0, 20, length)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(ids))


def test_every_preset_can_be_made_and_holds_a_scored_segment() -> None:
    for config in PRESETS.values():
        assert config.max_position_embeddings >= tokens_needed(256)
        assert config.vocab_size >= ByteTokenizer.vocab_size
        assert sum(p.numel() for p in Model(config).parameters()) < 2_000_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"num_key_value_heads": 3},
            "num_attention_heads is 4, but must be a multiple of num_key_value_heads \\(3\\)",
        ),
        ({"num_experts_per_tok": 5}, "num_experts_per_tok is 5, but must not exceed num_experts"),
        ({"head_dim": 7}, "head_dim is 7, but must be even"),
        ({"hidden_size": 0}, "hidden_size"),
        (
            {"n_shared_experts": 1},
            "n_shared_experts is 1, which qwen3_moe cannot express: leave it at 0, or set",
        ),
        ({"routed_scaling_factor": 2.0}, "leave it at 1.0, or set model_type to glm4_moe"),
        (GLM | {"n_group": 3}, "n_group is 3, but num_experts .4. must be divisible into that many groups"),
        (GLM | {"n_group": 4}, "groups of 2 or more in-layer experts"),
        (GLM | {"n_group": 2, "topk_group": 3}, "must not exceed n_group"),
        (
            GLM | {"n_group": 2, "num_experts_per_tok": 3},
            r"num_experts_per_tok \(3\) in-layer experts, not 2",
        ),
        (GLM | {"first_k_dense_replace": 1}, "first_k_dense_replace is 1, but only 0 is supported"),
        (GLM | {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5, but only 1.0 is supported"),
        (GLM | {"rope_parameters": {"partial_rotary_factor": 0.5}}, "but only 1.0 is supported"),
    ],
)
def test_architectures_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(**(SMALL.model_dump() | change))


def test_documents_of_one_sequence_are_apart_where_their_positions_say_so(small_model: Model) -> None:
    first, second = torch.randint(256, (1, 9)), torch.randint(256, (1, 14))
    packed = torch.cat((first, second), dim=1)
    positions = torch.cat((torch.arange(9), torch.arange(14)))[None]
    apart = torch.cat((small_model(first), small_model(second)), dim=1)
    torch.testing.assert_close(small_model.with_routing(packed, positions)[0], apart)
    assert not torch.allclose(small_model(packed)[:, 9:], apart[:, 9:])


def test_a_sequence_that_is_one_document_needs_no_positions(small_model: Model) -> None:
    ids = torch.randint(256, (2, 11))
    numbered = small_model.with_routing(ids, torch.arange(11).expand(2, 11))[0]
    torch.testing.assert_close(numbered, small_model(ids))


def test_activations_that_are_computed_again_give_the_same_gradients(small_model: Model) -> None:
    gradients = []
    for recompute in (False, True):
        small_model.train().recompute = recompute
        small_model.zero_grad()
        logits, routings = small_model.with_routing(torch.arange(40).view(2, 20))
        loss = logits.square().mean() + sum(routing.logsumexp_N.square().mean() for routing in routings)
        loss.backward()
        gradients.append([parameter.grad for parameter in small_model.parameters()])
    for kept, again in zip(*gradients, strict=True):
        assert kept is not None and again is not None and torch.equal(kept, again)
