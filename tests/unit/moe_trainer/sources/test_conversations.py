import hashlib
from collections import Counter

import pytest

from moe_trainer.sources.conversations import UnusableError, parse_conversation
from moe_trainer.text.content import Content, Turn

ASKED = {"role": "user", "content": "How far is the Moon?"}
ANSWERED = {"role": "assistant", "content": "About 384,000 km."}
SYSTEM = {"role": "system", "content": "Be brief."}


def parse(*messages: object) -> Content:
    return parse_conversation(messages, "messages")


def test_a_conversation_is_its_words_and_who_said_them() -> None:
    content = parse(SYSTEM, ASKED, ANSWERED, ASKED)
    assert content.text == "Be brief.\n\nHow far is the Moon?\n\nAbout 384,000 km.\n\nHow far is the Moon?"
    assert list(content.said()) == [
        ("system", "Be brief."),
        ("user", "How far is the Moon?"),
        ("assistant", "About 384,000 km."),
        ("user", "How far is the Moon?"),
    ]


def test_words_come_back_as_they_were_whatever_is_in_them() -> None:
    words = ["a\n\nb\n\n", "\n\n é🙂", " x "]
    roles = ("user", "assistant", "user")
    content = parse(*({"role": r, "content": w} for r, w in zip(roles, words, strict=True)))
    assert [said for _, said in content.said()] == words
    again = Content.model_validate_json(content.to_json())
    assert again == content


def test_other_fields_of_a_message_are_passed_over() -> None:
    assert parse({**ASKED, "id": 3}, {**ANSWERED, "weight": 1}) == parse(ASKED, ANSWERED)


@pytest.mark.parametrize(
    ("messages", "reason", "words"),
    [
        ([], "noAnswer", "messages has no message of role assistant"),
        ([ASKED], "noAnswer", "nothing to learn from"),
        (["hello"], "brokenMessages", r"messages\[0\] is not an object with role and content"),
        (
            [{"content": "x"}],
            "brokenMessages",
            r"messages\[0\] has no role: the role must be one of system, user",
        ),
        ([ASKED, {"role": "bot", "content": "x"}], "brokenMessages", r"messages\[1\] has role 'bot'"),
        ([ASKED, {"role": ["user"], "content": "x"}], "brokenMessages", r"messages\[1\] has role \['user'\]"),
        ([ASKED, {"role": "assistant"}], "brokenMessages", r"messages\[1\] has no content that is text"),
        ([ASKED, {"role": "assistant", "content": [1]}], "brokenMessages", "no content that is text"),
        (
            [ASKED, {"role": "assistant", "content": " "}],
            "brokenMessages",
            r"messages\[1\] has empty content",
        ),
        ([ANSWERED, ASKED], "brokenMessages", r"messages\[0\] has role assistant, but user is expected"),
        ([SYSTEM, ASKED, ASKED], "brokenMessages", r"messages\[2\] has role user, but assistant is expected"),
        (
            [ASKED, {**ANSWERED, "weight": 0}],
            "noAnswer",
            "every message of role assistant in messages has weight 0",
        ),
        (
            [ASKED, {**ANSWERED, "weight": 0.5}],
            "brokenMessages",
            r"messages\[1\] has weight 0.5: it must be 0 or 1",
        ),
        ([ASKED, {**ANSWERED, "weight": True}], "brokenMessages", r"has weight True: it must be 0 or 1"),
        ([ASKED, {**ANSWERED, "weight": "0"}], "brokenMessages", r"has weight '0': it must be 0 or 1"),
        ([ASKED, {**ANSWERED, "tool_calls": [{"id": "1"}]}], "toolCalls", r"messages\[1\] has tool_calls"),
        ([ASKED, ANSWERED, SYSTEM], "brokenMessages", r"messages\[2\] has role system, but user is expected"),
    ],
)
def test_what_is_no_conversation_is_refused_with_its_place(
    messages: list[object], reason: str, words: str
) -> None:
    with pytest.raises(UnusableError, match=words) as refused:
        parse(*messages)
    assert refused.value.reason == reason


def test_a_text_has_the_name_of_its_bytes_and_a_conversation_another_one() -> None:
    text = Content(text="How far is the Moon?\n\nAbout 384,000 km.")
    assert text.name() == hashlib.sha256(text.text.encode()).hexdigest()[:32]
    conversation = parse(ASKED, ANSWERED)
    assert conversation.text == text.text
    assert conversation.name() != text.name()


def test_the_same_words_in_other_roles_are_another_document() -> None:
    names = {
        Content(text="aXXb", turns=(Turn(role="user", length=1), Turn(role="assistant", length=1))).name(),
        Content(text="aXXb", turns=(Turn(role="system", length=1), Turn(role="user", length=1))).name(),
        Content(text="aXXb", turns=(Turn(role="user", length=4),)).name(),
        Content(text="aXXb", turns=()).name(),
        Content(text="aXXb").name(),
    }
    assert len(names) == 5


def test_an_answer_of_weight_0_is_read_and_not_learnt() -> None:
    content = parse(ASKED, {**ANSWERED, "weight": 0}, ASKED, {**ANSWERED, "weight": 1})
    assert content.answers() == [3]
    assert list(content.said()) == list(parse(ASKED, ANSWERED, ASKED, ANSWERED).said())
    assert Content.model_validate_json(content.to_line()) == content
    assert content.to_line() == content.to_json().encode() + b"\n"
    assert content.name() != parse(ASKED, ANSWERED, ASKED, ANSWERED).name()


@pytest.mark.parametrize("weight", [1, 1.0, None])
def test_an_answer_of_weight_1_is_one_without_a_weight(weight: float | None) -> None:
    content = parse(ASKED, {**ANSWERED, "weight": weight})
    assert content.to_line() == parse(ASKED, ANSWERED).to_line()
    assert content.name() == parse(ASKED, ANSWERED).name()


def test_fields_that_nothing_reads_are_counted_by_name_and_at_most_33_names_are_kept() -> None:
    found: Counter[str] = Counter()
    parse_conversation(
        [{**ASKED, "weight": 1, "name": "Ann"}, {**ANSWERED, "audio": None}], "messages", found
    )
    assert found == {"weight": 1, "name": 1}
    odd = {f"field {number}": 1 for number in range(100)} | {"x" * 1000: 1}
    parse_conversation([{**ASKED, **odd, "name": "Ann"}, ANSWERED], "messages", found)
    assert len(found) == 33 and found["name"] == 2 and found["others"] == 71


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_thoughts_in_a_field_of_their_own_are_a_turn_before_their_answer(name: str) -> None:
    messages = [ASKED, {**ANSWERED, name: "Far, I think."}, ASKED, {**ANSWERED, "weight": 0, name: " "}]
    found: Counter[str] = Counter()
    content = parse_conversation(messages, "messages", found, thoughts=True)
    assert list(content.said()) == [
        ("user", ASKED["content"]),
        ("thoughts", "Far, I think."),
        ("assistant", ANSWERED["content"]),
        ("user", ASKED["content"]),
        ("assistant", ANSWERED["content"]),
    ]
    assert content.answers() == [2] and not found
    assert Content.model_validate_json(content.to_line()) == content
    before = parse_conversation(messages, "messages", found)
    assert before.text == "\n\n".join([ASKED["content"], ANSWERED["content"]] * 2)
    assert found == {name: 2}


def test_thoughts_that_are_no_text_and_those_of_others_are_not_read() -> None:
    with pytest.raises(UnusableError, match=r"messages\[1\] has reasoning that is no text: make it a text"):
        parse_conversation([ASKED, {**ANSWERED, "reasoning": ["x"]}], "messages", thoughts=True)
    found: Counter[str] = Counter()
    content = parse_conversation([{**ASKED, "reasoning": "x"}, ANSWERED], "messages", found, thoughts=True)
    assert content == parse(ASKED, ANSWERED) and found == {"reasoning": 1}


def test_a_conversation_with_thoughts_is_another_document_than_one_without() -> None:
    thoughtful = parse_conversation([ASKED, {**ANSWERED, "reasoning": "x"}], "messages", thoughts=True)
    assert thoughtful.name() != parse(ASKED, ANSWERED).name()
