"""The kind of a value is that of its first element, and the first error is told in the client's words."""

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, StrictInt, StrictStr, Tag, ValidationError

from moe_web.validation import PROMPT_KIND, first_error, text_or_list

_Ids = Annotated[list[StrictInt], Field(fail_fast=True)]


class Inner(BaseModel):
    text: StrictStr


class Asked(BaseModel):
    prompt: Annotated[
        Annotated[StrictStr, Tag("one")]
        | Annotated[list[StrictStr], Field(fail_fast=True), Tag("many")]
        | Annotated[_Ids, Tag("ids")]
        | Annotated[list[_Ids], Field(fail_fast=True), Tag("many_ids")],
        PROMPT_KIND,
    ] = ""
    content: Annotated[
        Annotated[StrictStr, Tag("one")] | Annotated[list[Inner], Field(fail_fast=True), Tag("many")],
        text_or_list("parts"),
    ] = ""


@pytest.mark.parametrize("prompt", ["a", "", ["a", "b"], [1, 2], [[1], [2, 3]], []])
def test_a_prompt_of_each_kind_is_taken_as_it_is(prompt: object) -> None:
    assert Asked.model_validate({"prompt": prompt}).prompt == prompt


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"prompt": ["a", 1]}, "prompt", "prompt.1: Input should be a valid string"),
        ({"prompt": [1, "a"]}, "prompt", "prompt.1: Input should be a valid integer"),
        ({"prompt": [[1], [2.5]]}, "prompt", "prompt.1.0: Input should be a valid integer"),
        ({"prompt": [True]}, "prompt", "prompt: give a text, a list of texts, a list of token ids, or"),
        ({"prompt": {"a": 1}}, "prompt", "prompt: give a text, a list of texts, a list of token ids, or"),
        ({"content": 5}, "content", "content: give a text, or a list of parts"),
        ({"content": [{"text": "a"}, 1]}, "content", "content.1: Input should be an object"),
        ({"content": [{"text": 1}]}, "content", "content.0.text: Input should be a valid string"),
    ],
)
def test_an_error_names_the_field_and_the_kind_that_was_sent(
    body: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Asked.model_validate(body)
    told = first_error(caught.value, (Asked, Inner))
    assert told[0] == field and told[1].startswith(message)


def test_a_list_that_is_wrong_everywhere_has_one_error() -> None:
    with pytest.raises(ValidationError) as caught:
        Asked.model_validate({"prompt": ["a", *[1] * 10_000]})
    assert caught.value.error_count() == 1
