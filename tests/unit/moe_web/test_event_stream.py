"""Whole events, however they arrive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_web.event_stream import EventTooLarge, WholeEvents, event

ENDS = ("\n\n", "\r\n\r\n", "\r\r")
EVENTS = st.lists(st.tuples(st.text("ab: é", min_size=1), st.sampled_from(ENDS)), max_size=5)


@given(EVENTS, st.text("abc"), st.lists(st.integers(1, 7), max_size=40))
def test_only_whole_events_are_passed_on_and_nothing_is_lost(events, rest, cuts):
    sent = "".join(text + end for text, end in events).encode()
    stream, whole, taken = sent + rest.encode(), WholeEvents(), []
    while stream:
        size = cuts.pop() if cuts else 3
        taken.append(whole.take(stream[:size]))
        stream = stream[size:]
        assert not taken[-1] or taken[-1].decode().endswith(ENDS)
    assert b"".join(taken) == sent
    assert whole.rest() == rest.encode()


def test_an_event_that_does_not_end_is_not_held_for_ever(monkeypatch):
    monkeypatch.setattr("moe_web.event_stream.MAX_EVENT_BYTES", 100)
    whole = WholeEvents()
    whole.take(b"x" * 100)
    with pytest.raises(EventTooLarge):
        whole.take(b"x")


def test_an_event_is_one_line_of_json():
    assert event({"a": "x\ny", "b": "é\ud800"}) == 'data: {"a": "x\\ny", "b": "é?"}\n\n'.encode()
