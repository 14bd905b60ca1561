"""Conversations stay with their Expert."""

import json

from moe_formats.routing_policy import Limits
from moe_gateway.conversations import Conversation, Conversations, conversation_of
from moe_gateway.decision import Decision
from moe_gateway.openai import parse_call

SERVING = {"a", "b"}


def _decision(expert, probabilities):
    return Decision(expert, "Distilled", "why", probabilities, probabilities.get(expert))


A = _decision("a", {"a": 0.9, "b": 0.1})
A_BARELY = _decision("a", {"a": 0.6, "b": 0.4})
B_BARELY = _decision("b", {"a": 0.4, "b": 0.6})
B_CLEARLY = _decision("b", {"a": 0.1, "b": 0.9})


def _settle(conversations, decision, key="k", begins=False, serving=SERVING):
    conversation = Conversation(key, None if begins else key) if key is not None else None
    return conversations.settle(conversation, decision, margin=0.3, serving=serving)


def test_a_small_lead_does_not_move_a_conversation_and_a_large_one_does():
    conversations = Conversations()
    assert _settle(conversations, A).expert == "a"
    stayed = _settle(conversations, B_BARELY)
    assert (stayed.expert, stayed.strategy, stayed.confidence) == ("a", "Conversation", 0.4)
    assert "b leads by 0.20, not above the margin of 0.3" in stayed.why
    moved = _settle(conversations, B_CLEARLY)
    assert (moved.expert, moved.strategy) == ("b", "Distilled")
    assert _settle(conversations, B_BARELY).strategy == "Distilled"


def test_a_fallback_does_not_move_a_conversation():
    conversations = Conversations()
    _settle(conversations, A)
    stayed = _settle(conversations, Decision("b", "Fallback", "nobody scored"))
    assert (stayed.expert, stayed.confidence) == ("a", None)


def test_an_expert_that_no_longer_serves_binds_nobody():
    conversations = Conversations()
    _settle(conversations, A)
    assert _settle(conversations, B_BARELY, serving={"b"}).expert == "b"


def test_the_first_turn_is_bound_by_nothing():
    conversations = Conversations()
    _settle(conversations, A)
    assert _settle(conversations, B_BARELY, begins=True).expert == "b"


def test_without_a_key_nothing_is_remembered():
    conversations = Conversations()
    assert _settle(conversations, A, key=None) is A
    assert _settle(conversations, B_BARELY, key=None) is B_BARELY


def test_the_conversation_unused_for_longest_is_forgotten():
    conversations = Conversations(capacity=2)
    for key in ("one", "two", "one", "three"):
        _settle(conversations, A, key=key)
    assert _settle(conversations, B_BARELY, key="one").expert == "a"
    assert _settle(conversations, B_BARELY, key="two").expert == "b"


def _call(endpoint="chat/completions", **body):
    return parse_call(endpoint, json.dumps({"model": "pool"} | body).encode(), Limits())


def _turns(*said, **fields):
    """The calls of a conversation: each has all messages so far. `said` are the user's words and the answers in turn."""
    roles = ("user", "assistant")
    messages = [{"role": roles[index % 2], "content": text} for index, text in enumerate(said)]
    return [_call(messages=messages[: index + 1], **fields) for index in range(0, len(messages), 2)]


def test_each_turn_of_a_chat_finds_the_one_before():
    first, second, third = (conversation_of(call, None) for call in _turns("hello", "hi", "and?", "so", "ok"))
    assert first.before is None
    assert (second.before, third.before) == (first.turn, second.turn)
    assert len({first.turn, second.turn, third.turn}) == 3
    assert "hello" not in first.turn


def test_a_message_of_the_system_and_messages_of_tools_belong_to_the_conversation():
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": "42"},
    ]
    asked, answered = _call(messages=messages[:2]), _call(messages=messages)
    assert conversation_of(answered, None).before == conversation_of(asked, None).turn
    assert conversation_of(asked, None).turn != conversation_of(_call(messages=messages[1:2]), None).turn


def test_strangers_who_begin_with_the_same_words_do_not_move_each_other():
    conversations = Conversations()
    ours, theirs = _turns("hi", "hello", "a", "b", "c"), _turns("hi", "hello", "x", "y", "z")
    _settle_call(conversations, ours[0], A), _settle_call(conversations, theirs[0], A)
    assert _settle_call(conversations, theirs[1], B_CLEARLY).expert == "b"
    assert _settle_call(conversations, ours[1], B_BARELY).expert == "a"
    assert _settle_call(conversations, theirs[2], A_BARELY).expert == "b"
    assert _settle_call(conversations, ours[2], B_BARELY).expert == "a"


def test_callers_with_different_keys_never_share_a_conversation():
    calls = [*_turns("hi", "hello", "a"), _call("completions", prompt="x")]
    for header in (None, "c1"):
        for call in calls:
            one, other = (conversation_of(call, header, caller) for caller in ("one", "other"))
            assert (one is None and other is None) or one.turn != other.turn
    by_user = [conversation_of(_turns("hi", user=user)[0], None).turn for user in ("u1", "u2", None)]
    assert len(set(by_user)) == 3


def test_where_a_message_ends_is_part_of_it():
    def key(*contents):
        return conversation_of(_call(messages=[{"role": "user", "content": text} for text in contents]), None)

    assert key("ab", "c").turn != key("a", "bc").turn
    assert key('a", "user').turn != key("a", "").turn


def _settle_call(conversations, call, decision):
    return conversations.settle(conversation_of(call, None), decision, margin=0.3, serving=SERVING)


def test_a_clients_own_id_comes_first_and_a_plain_completion_has_none():
    completion = _call("completions", prompt="x", user="u1")
    assert conversation_of(completion, None) is None
    assert conversation_of(completion, "c1") == conversation_of(_call("completions", prompt="y"), "c1")
    assert conversation_of(completion, "c1").before == conversation_of(completion, "c1").turn
