"""A decoder of transformers behind our interface: what it computes is what transformers computes."""

import copy

import pytest
import torch
from torch.nn import functional as F

from moe_trainer.hugging_face.decoder import Decoder
from moe_trainer.hugging_face.experts import IMPLEMENTATION

from .conftest import CONFIGS, DENSE, MIXTURES, ids, network

CLOSE = {"atol": 1e-5, "rtol": 1e-4}


def decoder(name: str) -> Decoder:
    made = Decoder(copy.deepcopy(network(name)), {}, {})
    made.eval()
    return made


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_transformers(name: str) -> None:
    torch.testing.assert_close(decoder(name)(ids()), network(name)(ids()).logits, **CLOSE)


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
