"""OpenAI's Python client, unmodified: values are those that transformers computes from the same weights."""

import time

import openai
import pytest

from .conftest import KEY, Pool, Reference

PROMPT = "The operator"
CHAT = [{"role": "user", "content": "What is a revision?"}]


@pytest.fixture(scope="module")
def client(pool: Pool) -> openai.OpenAI:
    return openai.OpenAI(base_url=pool.base_url, api_key=KEY, max_retries=0)


def test_a_completion_is_the_greedy_one_with_its_logprobs_and_counts(
    client: openai.OpenAI, reference: Reference
) -> None:
    expected = reference.completion("prose", PROMPT, 20)
    answer = client.completions.create(model="prose", prompt=PROMPT, max_tokens=20, temperature=0, logprobs=3)
    (choice,) = answer.choices
    assert answer.model == "prose" and choice.text == expected["text"]
    assert choice.finish_reason == ("stop" if expected["ended"] else "length")
    assert choice.logprobs is not None
    assert choice.logprobs.token_logprobs == pytest.approx(expected["logprobs"], abs=1e-4)
    assert all(len(top) in (3, 4) for top in choice.logprobs.top_logprobs or [])
    assert answer.usage is not None
    asked, made = len(reference.encode("prose", PROMPT)), len(expected["ids"])
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (asked, made, asked + made)


def test_a_chat_is_the_greedy_one_after_the_templates_prompt(
    client: openai.OpenAI, reference: Reference
) -> None:
    prompt = reference.chat("prose", CHAT)
    expected = reference.greedy("prose", prompt, 20)
    answer = client.chat.completions.create(
        model="prose", messages=CHAT, max_completion_tokens=20, temperature=0, logprobs=True, top_logprobs=2
    )
    (choice,) = answer.choices
    assert choice.message.role == "assistant" and choice.message.content == expected["text"]
    assert choice.logprobs is not None and choice.logprobs.content is not None
    assert [entry.logprob for entry in choice.logprobs.content] == pytest.approx(
        expected["logprobs"], abs=1e-4
    )
    assert answer.usage is not None and answer.usage.completion_tokens == len(expected["ids"])


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_a_stream_adds_up_to_the_whole_answer_and_ends_with_its_usage(
    client: openai.OpenAI, endpoint: str
) -> None:
    ask = {"model": "prose", "max_tokens": 24, "temperature": 0}
    streamed = ask | {"stream": True, "stream_options": {"include_usage": True}}
    if endpoint == "chat":
        whole = client.chat.completions.create(messages=CHAT, **ask)
        chunks = list(client.chat.completions.create(messages=CHAT, **streamed))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == whole.choices[0].message.content
        assert chunks[0].choices[0].delta.role == "assistant"
    else:
        whole = client.completions.create(prompt=PROMPT, **ask)
        chunks = list(client.completions.create(prompt=PROMPT, **streamed))
        assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def test_the_stream_helper_makes_the_same_message(client: openai.OpenAI) -> None:
    ask = {"model": "prose", "messages": CHAT, "max_tokens": 60, "temperature": 0, "stop": ["m", "\n"]}
    with client.chat.completions.stream(**ask) as stream:
        made = stream.get_final_completion().choices[0].message.content
    assert made == client.chat.completions.create(**ask).choices[0].message.content


def test_an_answer_ends_before_a_stop_string(client: openai.OpenAI, reference: Reference) -> None:
    text = reference.completion("prose", PROMPT, 30)["text"]
    stop = text[10:13]
    answer = client.completions.create(
        model="prose", prompt=PROMPT, max_tokens=30, temperature=0, stop=[stop, "\0"]
    )
    assert answer.choices[0].text == text[: text.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


def test_one_seed_gives_one_text_and_others_give_others(client: openai.OpenAI) -> None:
    def text(seed: int) -> str:
        return (
            client.completions.create(model="prose", prompt=PROMPT, max_tokens=12, temperature=1, seed=seed)
            .choices[0]
            .text
        )

    assert text(1) == text(1)
    assert len({text(seed) for seed in range(4)}) > 1


def test_several_prompts_and_prompts_of_ids_have_a_choice_each(
    client: openai.OpenAI, reference: Reference
) -> None:
    prompts = [PROMPT, "An Expert"]
    expected = [reference.completion("prose", prompt, 8)["text"] for prompt in prompts]
    answer = client.completions.create(model="prose", prompt=prompts, max_tokens=8, temperature=0)
    assert [choice.text for choice in answer.choices] == expected
    assert [choice.index for choice in answer.choices] == [0, 1]
    ids = [[0, *reference.encode("prose", prompt)] for prompt in prompts]
    answer = client.completions.create(model="prose", prompt=ids, max_tokens=8, temperature=0)
    assert [choice.text for choice in answer.choices] == expected


def test_a_prompt_is_scored_by_echo(client: openai.OpenAI, reference: Reference) -> None:
    ids = [0, *reference.encode("prose", "The gateway reads the policy")]
    expected = [entry["logprob"] for entry in reference.logprobs("prose", ids)]
    answer = client.completions.create(model="prose", prompt=ids, max_tokens=0, echo=True, logprobs=1)
    assert answer.choices[0].logprobs is not None
    first, *scored = answer.choices[0].logprobs.token_logprobs or []
    assert first is None and scored == pytest.approx(expected, abs=1e-4)


def test_models_are_listed_and_retrieved(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["pool", "prose", "code"]
    assert client.models.retrieve("code").owned_by == "pool"
    with pytest.raises(openai.NotFoundError, match="there are: pool, prose, code"):
        client.models.retrieve("prosa")


def test_a_request_for_the_pool_is_routed_by_likelihood(client: openai.OpenAI, reference: Reference) -> None:
    for text in ("    def text(self) -> str:\n        return", "The operator writes one policy for the pool"):
        likelihood = {
            name: sum(
                item["logprob"] for item in reference.logprobs(name, [0, *reference.encode(name, text)])
            )
            for name in ("prose", "code")
        }
        answer = client.completions.with_raw_response.create(model="pool", prompt=text, max_tokens=1)
        assert answer.headers["x-moe-expert"] == max(likelihood, key=lambda name: likelihood[name])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logit_bias": {"5": 100}}, "logit_bias"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"extra_body": {"tempreature": 0}}, "tempreature"),
        ({"extra_body": {"top_k": 3}}, "top_k"),
        ({"temperature": 3}, "temperature"),
        ({"stop": [""]}, "stop"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"stream": True, "stream_options": {"include_sage": True}}, "stream_options"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages",
        ),
        ({"messages": [{"role": "tool", "tool_call_id": "1", "content": "x"}]}, "messages"),
        ({"max_tokens": 5000}, "max_tokens"),
        ({"max_tokens": 600}, "max_tokens"),
    ],
)
def test_what_cannot_be_done_is_a_bad_request_that_names_the_field(
    client: openai.OpenAI, fields: dict, param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(**{"model": "prose", "messages": CHAT} | fields)
    assert raised.value.param == param and param in str(raised.value)
    assert raised.value.type == "invalid_request_error"


def test_what_is_too_long_has_the_code_that_clients_look_for(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length is") as raised:
        client.chat.completions.create(
            model="prose", messages=[{"role": "user", "content": "many words " * 600}]
        )
    assert raised.value.code == "context_length_exceeded"


def test_fields_that_are_null_are_absent(client: openai.OpenAI, reference: Reference) -> None:
    nulls = dict.fromkeys(
        ["top_p", "stop", "seed", "logprobs", "n", "user", "suffix", "stream_options", "logit_bias"]
    )
    answer = client.completions.create(
        model="prose", prompt=PROMPT, max_tokens=8, temperature=0, extra_body=nulls
    )
    assert answer.choices[0].text == reference.completion("prose", PROMPT, 8)["text"]


def test_a_wrong_key_is_an_authentication_error(pool: Pool) -> None:
    for key in ("wrong", "key-of-the-clients-and-more"):
        with pytest.raises(openai.AuthenticationError) as raised:
            openai.OpenAI(base_url=pool.base_url, api_key=key).models.list()
        assert raised.value.code == "invalid_api_key"


def test_an_expert_that_restarts_is_asked_again_by_the_client_itself(
    pool: Pool, reference: Reference
) -> None:
    expert = pool.experts["code"]
    client = openai.OpenAI(base_url=pool.base_url, api_key=KEY, max_retries=0)
    expert.end()
    try:
        with pytest.raises(openai.InternalServerError) as raised:
            client.completions.create(model="code", prompt="def", max_tokens=4)
        assert raised.value.status_code == 503 and raised.value.response.headers["retry-after"] == "1"
        assert raised.value.code == "expert_unreachable"
    finally:
        expert.start("/ready")
    answer = client.with_options(max_retries=5).completions.create(
        model="code", prompt="def", max_tokens=4, temperature=0
    )
    assert answer.choices[0].text == reference.completion("code", "def", 4)["text"]


def test_a_timeout_is_the_clients_and_frees_the_server(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=openai.Timeout(5, read=0.01)).completions.create(
            model="prose", prompt=PROMPT, max_tokens=400, temperature=1
        )
    assert client.completions.create(model="prose", prompt=PROMPT, max_tokens=1).choices


def test_a_stream_that_the_client_closes_frees_the_server(pool: Pool, client: openai.OpenAI) -> None:
    streams = [
        client.completions.create(model="prose", prompt=PROMPT, max_tokens=450, temperature=1.5, stream=True)
        for _ in range(12)
    ]
    for stream in streams:
        next(iter(stream))
        stream.close()
    started = time.monotonic()
    client.completions.create(model="prose", prompt=PROMPT, max_tokens=1)
    assert time.monotonic() - started < 30
