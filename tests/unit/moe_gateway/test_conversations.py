"""Conversations stay with their Expert."""

import json

from moe_formats.routing_policy import Limits
from moe_gateway.conversations import Conversations, conversation_of
from moe_gateway.decision import Decision
from moe_gateway.openai import parse_call

SERVING = {"a", "b"}


def _decision(expert, probabilities):
    return Decision(expert, "Distilled", "why", probabilities, probabilities.get(expert))


A = _decision("a", {"a": 0.9, "b": 0.1})
B_BARELY = _decision("b", {"a": 0.4, "b": 0.6})
B_CLEARLY = _decision("b", {"a": 0.1, "b": 0.9})


def _settle(conversations, decision, key="k", begins=False, serving=SERVING):
    return conversations.settle(key, decision, begins=begins, margin=0.3, serving=serving)


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


def test_a_chat_is_known_by_its_first_user_message_and_its_user():
    first = {"role": "user", "content": "hello"}
    later = [{"role": "system", "content": "be brief"}, first, {"role": "assistant", "content": "hi"}]
    key = conversation_of(_call(messages=[first], user="u1"), None)
    assert key == conversation_of(_call(messages=later, user="u1"), None)
    assert key != conversation_of(_call(messages=[first], user="u2"), None)
    assert key != conversation_of(_call(messages=[{"role": "user", "content": "bye"}], user="u1"), None)
    assert "hello" not in key


def test_a_clients_own_id_comes_first_and_a_plain_completion_has_none():
    completion = _call("completions", prompt="x", user="u1")
    assert conversation_of(completion, None) is None
    assert conversation_of(completion, "c1") == conversation_of(_call("completions", prompt="y"), "c1")
