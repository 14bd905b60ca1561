"""LangChain's OpenAI classes, unmodified."""

import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAI

from .conftest import KEY, Pool, Reference

MESSAGES = [SystemMessage("Be short."), HumanMessage("What is a revision?")]
PLAIN = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "What is a revision?"}]


@pytest.fixture(scope="module")
def chat(pool: Pool) -> ChatOpenAI:
    return ChatOpenAI(
        model="prose", base_url=pool.base_url, api_key=KEY, temperature=0, max_tokens=16, max_retries=0
    )


def test_an_answer_has_its_text_and_its_usage(chat: ChatOpenAI, reference: Reference) -> None:
    prompt = reference.chat("prose", PLAIN)
    expected = reference.greedy("prose", prompt, 16)
    answer = chat.invoke(MESSAGES)
    assert answer.content == expected["text"]
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_tokens"] == len(prompt) - 1
    assert answer.usage_metadata["output_tokens"] == len(expected["ids"])


async def test_streams_add_up_and_end_with_the_usage(chat: ChatOpenAI) -> None:
    whole = chat.invoke(MESSAGES)
    chunks = [chunk async for chunk in chat.astream(MESSAGES, stream_usage=True)]
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    assert len(chunks) > 2 and total.content == whole.content and total.usage_metadata == whole.usage_metadata


def test_a_conversation_goes_on_with_the_answer_that_was_got(chat: ChatOpenAI, reference: Reference) -> None:
    first = chat.invoke(MESSAGES)
    again = HumanMessage([{"type": "text", "text": "And "}, {"type": "text", "text": "a pool?"}])
    answer = chat.invoke([*MESSAGES, first, again])
    said = [
        *PLAIN,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": "And a pool?"},
    ]
    assert answer.content == reference.greedy("prose", reference.chat("prose", said), 16)["text"]


def test_logprobs_and_stops_are_passed_on(chat: ChatOpenAI, reference: Reference) -> None:
    expected = reference.greedy("prose", reference.chat("prose", PLAIN), 16)
    answer = chat.bind(logprobs=True, top_logprobs=2).invoke(MESSAGES)
    found = [entry["logprob"] for entry in answer.response_metadata["logprobs"]["content"]]
    assert found == pytest.approx(expected["logprobs"], abs=1e-4)
    stop = expected["text"][4:6]
    assert chat.invoke(MESSAGES, stop=[stop]).content == expected["text"].split(stop, 1)[0]


def test_plain_completions_come_for_several_prompts_at_once(pool: Pool, reference: Reference) -> None:
    model = OpenAI(model="prose", base_url=pool.base_url, api_key=KEY, temperature=0, max_tokens=12)
    prompts = ["The operator", "An Expert"]
    assert model.batch(prompts) == [reference.completion("prose", prompt, 12)["text"] for prompt in prompts]
    assert "".join(model.stream(prompts[0])) == reference.completion("prose", prompts[0], 12)["text"]


def test_the_pool_routes_a_batch_and_keeps_a_conversation(pool: Pool) -> None:
    model = ChatOpenAI(
        model="pool", base_url=pool.base_url, api_key=KEY, max_tokens=4, include_response_headers=True
    )
    answers = model.batch(
        [[HumanMessage("        return self._value")], [HumanMessage("The gateway of a pool")]]
    )
    assert {answer.response_metadata["headers"]["x-moe-expert"] for answer in answers} <= {"prose", "code"}
    first = answers[0]
    following = model.invoke(
        [HumanMessage("        return self._value"), AIMessage(first.content), HumanMessage("x")]
    )
    headers = following.response_metadata["headers"]
    assert headers["x-moe-expert"] == first.response_metadata["headers"]["x-moe-expert"]


def test_what_is_not_supported_is_an_error_and_not_ignored(chat: ChatOpenAI) -> None:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    with pytest.raises(openai.BadRequestError, match="tools: it is not supported here"):
        chat.bind_tools([add]).invoke(MESSAGES)
    with pytest.raises(openai.BadRequestError, match="response_format"):
        chat.with_structured_output(
            {"title": "answer", "type": "object", "properties": {}}, method="json_mode"
        ).invoke(MESSAGES)
    with pytest.raises(openai.AuthenticationError):
        chat.model_copy().__class__(model="prose", base_url=chat.openai_api_base, api_key="wrong").invoke(
            MESSAGES
        )
