"""Likelihoods over the API are those of the model, as evaluation harnesses ask for them.

The reference is the artefact in transformers, with logarithms in plain Python. The model ends its text after the letter z.
"""

import math

import pytest
import torch
from tests.trainer.test_serve import SMALL, running
from transformers import AutoModelForCausalLM

from moe_trainer.methods import checkpoint_format
from moe_trainer.models.preset_model import Model, initialise
from moe_trainer.text.tokenizer import BOS, EOS, PAD, ByteTokenizer


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with a model whose next token after a z is the one that ends a text."""
    folder = tmp_path_factory.mktemp("store")
    model = Model(SMALL)
    initialise(model, seed=5)
    with torch.no_grad():
        model.embed_tokens.weight.mul_(20)
        model.embed_tokens.weight[EOS] = 1.5 * model.embed_tokens.weight[ord("z")]
    return folder, checkpoint_format.write(folder, "a1", model, ByteTokenizer(), "{}"), model.eval()


@pytest.fixture(scope="module")
def reference(store):
    """Return a function that gives the log-probabilities of all tokens after each of some ids."""
    model = AutoModelForCausalLM.from_pretrained(store[0] / "a1", dtype=torch.float32).eval()

    def logprobs(ids):
        with torch.inference_mode():
            rows = model(torch.tensor([ids])).logits[0].tolist()
        normalisers = [max(row) + math.log(sum(math.exp(x - max(row)) for x in row)) for row in rows]
        return [[x - total for x in row] for row, total in zip(rows, normalisers, strict=True)]

    return logprobs


@pytest.fixture
async def client(store):
    async with running(store) as client:
        yield client


def _harness(choice, context):
    """Return a continuation's log-likelihood, and whether it is the greedy one, as lm-evaluation-harness reads an answer.

    Its local-completions drops the last entry, which belongs to the token that it had to let the server generate.
    """
    logprobs = choice["logprobs"]["token_logprobs"][context:-1]
    tops = choice["logprobs"]["top_logprobs"][context:-1]
    greedy = all(own == max(top.values()) for own, top in zip(logprobs, tops, strict=True))
    return sum(logprobs), greedy


@pytest.mark.parametrize("continuation", ["jazz", "zebra", "buzz!"])
async def test_a_harness_gets_the_models_likelihood_also_where_the_text_ends(client, reference, continuation):
    context = [BOS, *b"It is called "]
    ids = [*context, *continuation.encode()]
    rows = reference(ids)[len(context) - 1 : -1]
    expected = sum(row[token] for row, token in zip(rows, continuation.encode(), strict=True))
    ask = {"prompt": ids, "max_tokens": 1, "logprobs": 1, "echo": True, "temperature": 0}
    answer = await client.complete(**ask)
    likelihood, greedy = _harness(answer["choices"][0], len(context))
    assert likelihood == pytest.approx(expected, abs=1e-3)
    assert greedy == all(max(row) == row[t] for row, t in zip(rows, continuation.encode(), strict=True))
    assert len(answer["choices"][0]["logprobs"]["tokens"]) == len(ids) + 1
    assert answer["usage"]["completion_tokens"] == 1


async def test_the_token_that_ends_an_answer_counts_and_has_its_logprob_but_no_text(client, reference):
    row = reference([BOS, *b"jazz"])[-1]
    ask = {"prompt": "jazz", "max_tokens": 5, "temperature": 0, "logprobs": 2}
    answer = await client.complete(**ask)
    choice = answer["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("", "stop")
    assert choice["logprobs"]["tokens"] == ["<|eos|>"]
    assert choice["logprobs"]["token_logprobs"] == pytest.approx([row[EOS]], abs=1e-4)
    assert choice["logprobs"]["top_logprobs"][0]["<|eos|>"] == pytest.approx(row[EOS], abs=1e-4)
    assert answer["usage"] == {"prompt_tokens": 4, "completion_tokens": 1, "total_tokens": 5}
    (event,) = await client.stream("/v1/completions", **ask)
    assert event["choices"][0] == choice

    body = {"messages": [{"role": "user", "content": "jazz"}], "temperature": 0, "logprobs": True}
    _, chat = await client.post("/v1/chat/completions", body | {"max_tokens": 60})
    assert len(chat["choices"][0]["logprobs"]["content"]) == chat["usage"]["completion_tokens"]


async def test_special_tokens_among_the_alternatives_have_names_of_their_own(client):
    answer = await client.complete(prompt="jazz", max_tokens=1, temperature=0, logprobs=20)
    assert len(answer["choices"][0]["logprobs"]["top_logprobs"][0]) == 20


async def test_token_ids_are_literal(client, reference):
    ids = list(b"Let x be")
    rows = reference(ids)
    ask = {"prompt": ids, "max_tokens": 0, "echo": True, "logprobs": 1, "prompt_logprobs": 1}
    answer = await client.complete(**ask)
    choice = answer["choices"][0]
    expected = [row[token] for row, token in zip(rows[:-1], ids[1:], strict=True)]
    first, *others = choice["logprobs"]["token_logprobs"]
    assert first is None and others == pytest.approx(expected, abs=1e-4)
    assert choice["logprobs"]["top_logprobs"][0] is None
    assert choice["prompt_logprobs"][0] is None
    assert [
        entry[str(t)]["logprob"] for entry, t in zip(choice["prompt_logprobs"][1:], ids[1:], strict=True)
    ] == (pytest.approx(expected, abs=1e-4))
    assert choice["text"] == "Let x be" and answer["usage"]["prompt_tokens"] == len(ids)

    allowed = [token for token in range(SMALL.vocab_size) if token not in (BOS, PAD)]
    answer = await client.complete(prompt=ids, max_tokens=1, temperature=0, logprobs=0)
    best = max(allowed, key=lambda token: rows[-1][token])
    assert answer["choices"][0]["text"] == ByteTokenizer().decode([best])
    assert answer["choices"][0]["logprobs"]["token_logprobs"] == pytest.approx([rows[-1][best]], abs=1e-4)


async def test_a_text_is_the_same_prompt_as_its_ids_after_the_token_that_begins_it(client):
    ask = {"max_tokens": 6, "temperature": 0, "logprobs": 0}
    text = await client.complete(prompt="Let x be", **ask)
    ids = await client.complete(prompt=[BOS, *b"Let x be"], **ask)
    assert ids["choices"] == text["choices"]


async def test_literal_ids_may_fill_the_whole_context_and_errors_have_the_words_that_clients_look_for(client):
    whole = SMALL.max_position_embeddings
    await client.complete(prompt=[BOS] * (whole - 1), max_tokens=1)
    for prompt, most in (([BOS] * whole, whole), ("x" * (whole - 1), whole - 1)):
        status, answer = await client.post("/v1/completions", {"prompt": prompt, "max_tokens": 1})
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
        assert f"This model's maximum context length is {most} tokens. However" in answer["error"]["message"]
        assert f"you requested {most + 1} tokens" in answer["error"]["message"]


async def test_the_sampled_token_is_among_the_top_logprobs_also_where_it_is_not_the_best(client):
    ask = {"prompt": "Let x", "max_tokens": 20, "temperature": 2, "seed": 3}
    sampled_others = False
    for top in (0, 1, 3):
        answer = await client.complete(**ask, logprobs=top)
        logprobs = answer["choices"][0]["logprobs"]
        for token, own, best in zip(
            logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
        ):
            assert best[token] == own and len(best) <= top + 1
            sampled_others |= len(best) == top + 1
    assert sampled_others
