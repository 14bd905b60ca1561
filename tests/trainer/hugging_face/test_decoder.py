"""A decoder of transformers behind our interface: what it computes is what transformers computes."""

import copy

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, Gemma2Config, PreTrainedModel

from moe_trainer.hugging_face.decoder import Decoder
from moe_trainer.hugging_face.experts import IMPLEMENTATION

from .conftest import CONFIGS, DENSE, MIXTURES, ids, network

CLOSE = {"atol": 1e-5, "rtol": 1e-4}


def decoder(name: str) -> Decoder:
    made = Decoder(copy.deepcopy(network(name)), {}, {})
    made.eval()
    return made


def soft_capped() -> PreTrainedModel:
    """Return a network that does more to its logits than to multiply."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = Gemma2Config(
        **sizes,
        vocab_size=300,
        head_dim=8,
        intermediate_size=24,
        initializer_range=0.2,
        final_logit_softcapping=2.0,
    )
    made: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return made.eval()


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_transformers(name: str) -> None:
    torch.testing.assert_close(decoder(name)(ids()), network(name)(ids()).logits, **CLOSE)


@pytest.mark.parametrize("name", [*CONFIGS, "gemma2"])
@pytest.mark.parametrize("length", [1, 7, 16, 40])
def test_logits_in_pieces_are_those_of_the_whole_and_the_layers_run_once(name: str, length: int) -> None:
    made = decoder(name) if name in CONFIGS else Decoder(soft_capped(), {}, {})
    passes: list[None] = []
    made.blocks[0].register_forward_hook(lambda *_: passes.append(None))
    with torch.inference_mode():
        pieces = list(made.logits_in_pieces(ids(), length))
        assert len(passes) == 1
        assert [piece.shape[1] for piece in pieces] == [min(length, 20 - at) for at in range(0, 20, length)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), made(ids()), **CLOSE)


def test_after_logits_in_pieces_a_network_computes_again() -> None:
    made, other = decoder("llama"), ids() + 1
    before = made(other)
    list(made.logits_in_pieces(ids(), 7))
    next(made.logits_in_pieces(ids(), 7))  # and is left
    torch.testing.assert_close(made(other), before)


@pytest.mark.parametrize("name", CONFIGS)
def test_one_step_has_the_gradients_of_transformers_own_path(name: str) -> None:
    ours, theirs = decoder(name).train(), network(name).train()
    for logits in (ours.with_routing(ids())[0], theirs(ids()).logits):
        F.cross_entropy(logits[:, :-1].flatten(0, 1), ids()[:, 1:].flatten()).backward()
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    found = {name.removeprefix("network."): p.grad for name, p in ours.named_parameters()}
    assert found.keys() == expected.keys()
    for parameter, gradient in expected.items():
        torch.testing.assert_close(found[parameter], gradient, **CLOSE)


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_runs_on_our_layer_and_says_where_its_slots_went(name: str) -> None:
    made = decoder(name)
    _, routings = made.with_routing(ids(3, 20))
    assert made.network.config._experts_implementation == IMPLEMENTATION
    assert made.backend(64) in ("native", "torch")
    assert len(routings) == len(made.mixtures) == (1 if name == "glm4-moe" else 2)
    for routing in routings:
        assert routing.counts_GE.sum(dim=1).tolist() == [40, 40, 40]
        assert routing.probabilities_GE.requires_grad
    assert (made.mixtures[0].bias_E is not None) == (name == "glm4-moe")


@pytest.mark.parametrize("name", DENSE)
def test_a_dense_network_has_nothing_to_balance(name: str) -> None:
    made = decoder(name)
    assert made.with_routing(ids())[1] == [] and made.mixtures == [] and made.backend(64) is None


@pytest.mark.parametrize("name", CONFIGS)
def test_documents_of_one_sequence_are_apart_where_their_positions_say_so(name: str) -> None:
    made, first, second = decoder(name), ids(1, 9), ids(1, 14) + 1
    positions = torch.cat((torch.arange(9), torch.arange(14)))[None]
    packed = made.with_routing(torch.cat((first, second), dim=1), positions)[0]
    torch.testing.assert_close(packed, torch.cat((made(first), made(second)), dim=1), **CLOSE)


@pytest.mark.parametrize("name", CONFIGS)
def test_decoding_with_a_cache_gives_the_logits_of_whole_sequences(name: str) -> None:
    made, tokens = decoder(name), ids(3, 20)
    cache, whole = made.new_cache(rows=5, max_length=32), made(tokens)
    rows = torch.tensor([4, 0, 2])
    started = [made(tokens[[i], : 5 + i], cache, rows[[i]])[0] for i in range(3)]
    for i, logits in enumerate(started):
        torch.testing.assert_close(logits, whole[i, : 5 + i], **CLOSE)
    for step in range(6):  # each row at a place of its own
        at = torch.tensor([5, 6, 7]) + step
        logits = made(tokens[torch.arange(3), at][:, None], cache, rows)[:, 0]
        torch.testing.assert_close(logits, whole[torch.arange(3), at], **CLOSE)
    assert cache.lengths_R.tolist() == [12, 0, 13, 0, 11]
    cache.lengths_R[0] = 0  # a row is used again after it was freed
    again = made(tokens[[1], :4], cache, torch.tensor([0]))
    torch.testing.assert_close(again[0], whole[1, :4], **CLOSE)


@pytest.mark.parametrize("name", ["llama", "qwen3-moe", "glm4-moe"])
def test_activations_that_are_computed_again_give_the_same_gradients(name: str) -> None:
    made, gradients = decoder(name).train(), []
    for recompute in (False, True):
        made.recompute = recompute
        made.zero_grad()
        logits, routings = made.with_routing(ids())
        loss = logits.square().mean() + sum(r.logsumexp_N.square().mean() for r in routings)
        loss.backward()
        gradients.append([parameter.grad for parameter in made.parameters()])
    for kept, again in zip(*gradients, strict=True):
        assert (kept is None) == (again is None)
        assert kept is None or again is None or torch.equal(kept, again)


def test_more_tokens_than_the_context_are_an_error() -> None:
    made = decoder("llama")
    with pytest.raises(ValueError, match="129 tokens do not fit into a context of 128"):
        made(ids(1, 129))
    with pytest.raises(ValueError, match="11 tokens do not fit into a context of 10"):
        made(ids(1, 11), made.new_cache(1, 10))


def test_special_tokens_and_blocks_are_found() -> None:
    made = decoder("llama")
    assert (made.vocab_size, made.context) == (300, 128)
    assert made.end_ids == {1} and made.never_ids == {0, 2}
    assert len(made.blocks) == 2
