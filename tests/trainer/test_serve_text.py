"""Streaming text: whole characters, and nothing of a stop string."""

from hypothesis import given, settings
from hypothesis import strategies as st

from moe_trainer.server.text import TextStream


def _pieces(stream, data):
    pieces = [stream.push(bytes([byte])) for byte in data]
    return [*pieces, stream.end()]


@settings(deadline=None)
@given(st.text(), st.integers(1, 7))
def test_any_text_arrives_whole_however_its_bytes_are_cut(text, size):
    stream, data = TextStream(), text.encode("utf-8", "replace")
    pieces = [stream.push(data[at : at + size]) for at in range(0, len(data), size)]
    assert "".join([*pieces, stream.end()]) == data.decode()
    assert not any("\ufffd" in piece for piece in pieces) or "\ufffd" in text


def test_a_character_comes_with_its_last_byte():
    assert _pieces(TextStream(), "a€b".encode()) == ["a", "", "", "€", "b", ""]


def test_bytes_that_are_no_character_become_the_replacement_sign():
    assert "".join(_pieces(TextStream(), b"a\xffb\xe2\x82")) == "a\ufffdb\ufffd"


def test_text_ends_before_the_stop_string_which_is_never_sent_in_part():
    stream = TextStream(["\n\n", "END"])
    assert _pieces(stream, b"oneE END two")[:8] == ["o", "n", "e", "", "E ", "", "", ""]
    assert stream.stopped


def test_what_only_began_like_a_stop_string_is_sent_after_all():
    stream = TextStream(["END"])
    assert "".join(_pieces(stream, b"the EN")) == "the EN"
    assert not stream.stopped


@settings(deadline=None)
@given(
    st.text(alphabet="ab", max_size=30), st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3)
)
def test_the_text_is_what_comes_before_the_first_stop_string(text, stops):
    stream = TextStream(stops)
    sent = ""
    for byte in text.encode():
        if stream.stopped:
            break
        sent += stream.push(bytes([byte]))
    sent += stream.end()
    assert not any(stop in sent for stop in stops)
    assert text.startswith(sent)
    assert stream.stopped == any(stop in text for stop in stops)
    if not stream.stopped:
        assert sent == text
