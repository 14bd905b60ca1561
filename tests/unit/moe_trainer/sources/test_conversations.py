import hashlib

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
