"""One server for the banks of several Experts: each is answered for as if it were served alone."""

import asyncio

import pytest
from tests.trainer.methods.test_bank_decoder import committed
from tests.trainer.methods.test_composition import write_bank
from tests.trainer.test_serve import running
from tests.trainer.training.conftest import SMALL, everywhere_random

from moe_formats.failure import JobError
from moe_formats.job_config import ArtefactRef
from moe_formats.serve_config import ServeConfig
from moe_trainer.methods import checkpoint_format
from moe_trainer.models.preset_model import Model
from moe_trainer.serve import load
from moe_trainer.text.tokenizer import ByteTokenizer


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with a base and two banks: the folder, and each artefact by its Expert."""
    folder = tmp_path_factory.mktemp("store")
    digest = checkpoint_format.write(folder, "base", everywhere_random(Model(SMALL)), ByteTokenizer(), "{}")
    return with_banks(folder, ArtefactRef(revision="general-1", path="base", digest=digest))


@pytest.fixture(scope="module")
def store_of_decoder(tmp_path_factory):
    """The same with a base that transformers runs."""
    folder = tmp_path_factory.mktemp("store")
    return with_banks(folder, committed(folder, "mixtral"))


def with_banks(folder, base):
    banks = {name: write_bank(folder, name, base, k) for name, k in (("code", 3), ("prose", 2))}
    return folder, {"general": base} | banks


def entry(store, name):
    ref = store[1][name]
    return {"expert": name, "revision": f"{name}-1", "artefact": {"path": ref.path, "digest": ref.digest}}


def server_of(store, *names):
    """The options of a server for Experts, as test_serve.running takes them."""
    return entry(store, names[0]) | {"banks": [entry(store, name) for name in names[1:]]}


async def completed(client, name):
    body = {"model": name, "prompt": "The answer is", "max_tokens": 12, "temperature": 0, "logprobs": 1}
    answer = await client.complete(**body)
    assert answer["model"] == name
    return answer["choices"][0]["text"], answer["choices"][0]["logprobs"]["token_logprobs"]


async def alone(store, name):
    async with running((store[0], None), **entry(store, name)) as client:
        return await completed(client, name)


@pytest.mark.parametrize("base", ["store", "store_of_decoder"])
async def test_a_mixed_batch_is_answered_as_each_expert_alone(base, request):
    store = request.getfixturevalue(base)
    names = ["general", "code", "prose"]
    expected = {name: await alone(store, name) for name in names}
    assert len({text for text, _ in expected.values()}) == 3
    async with running((store[0], None), **server_of(store, *names)) as client:
        found = await asyncio.gather(*(completed(client, name) for name in names * 2))
    for name, (text, logprobs) in zip(names * 2, found, strict=True):
        assert text == expected[name][0]
        assert logprobs == pytest.approx(expected[name][1], abs=1e-3)


async def test_a_server_of_banks_says_whom_it_answers_for(store):
    async with running((store[0], None), **server_of(store, "code", "prose")) as client:
        _, models = await client.get("/v1/models")
        assert '"code"' in models and '"prose"' in models
        for name in ("code", "prose"):
            assert (await client.get(f"/ready?digest={store[1][name].digest}"))[0] == 200
        assert (await client.get(f"/ready?digest={store[1]['general'].digest}"))[0] == 503
        async with client.session.post(
            client.url + "/v1/completions", json={"model": "prose", "prompt": "a", "max_tokens": 1}
        ) as response:
            assert response.headers["x-moe-expert"] == "prose"
            assert response.headers["x-moe-revision"] == "prose-1"
        metrics = await client.metrics()
        assert 'vllm:generation_tokens_total{model_name="prose"} 1.0' in metrics
        assert 'vllm:generation_tokens_total{model_name="code"} 0.0' in metrics
        assert (await client.post("/v1/completions", {"model": "general", "prompt": "a"}))[0] == 404


async def test_each_expert_is_sampled_at_its_own_temperature(store):
    body = {"prompt": "The answer is", "max_tokens": 12}
    greedy = server_of(store, "code", "prose") | {"temperature": 0}
    async with running((store[0], None), **greedy) as client:
        said = [
            await client.complete(model=name, seed=n, **body) for name in ("code", "prose") for n in (1, 2)
        ]
    code, again, prose, other = (answer["choices"][0]["text"] for answer in said)
    assert code == again and prose != other


def test_what_cannot_be_served_together_is_refused(store):
    model = everywhere_random(Model(SMALL.model_copy(update={"rope_theta": 50.0})))
    digest = checkpoint_format.write(store[0], "other", model, ByteTokenizer(), "{}")
    other = {"expert": "other", "revision": "other-1", "artefact": {"path": "other", "digest": digest}}
    with pytest.raises(JobError, match="other is not the base of the banks"):
        load(ServeConfig(**other, banks=[entry(store, "code")]), store[0])
    with pytest.raises(JobError, match="each Expert can be served only once, but expert and banks name"):
        load(ServeConfig(**server_of(store, "code", "code")), store[0])
