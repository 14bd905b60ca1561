"""JSON from outside: what is read is what Python's own reader reads, and limits hold before anything is made."""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_web.bounded_json import MAX_DEPTH, MAX_MARKS, JsonError, parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON, st.booleans())
def test_it_reads_what_pythons_reader_reads(value, ascii_only):
    data = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert parse(data) == json.loads(data)


@given(st.binary(max_size=60))
def test_other_bytes_are_an_error_that_says_what_is_wrong(data):
    try:
        expected = json.loads(data.decode("utf-8-sig", "surrogatepass"), parse_constant=float.fromhex)
    except ValueError:
        with pytest.raises(JsonError):
            parse(data)
    else:
        assert parse(data) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested more than 64 deep"),
        ('{"a":' * 100_000, "nested more than 64 deep"),
        ("[" + "{}," * MAX_MARKS + "{}]", "commas and opening brackets; at most 262144 are read"),
        ("[" + "0," * MAX_MARKS + "0]", "commas and opening brackets; at most 262144 are read"),
        ("NaN", "NaN is not a number"),
        ("[1, -Infinity]", "-Infinity is not a number"),
        ("1" * 5000, "an integer of more than 4300 digits$"),
        ("[1e999]", "1e999 is larger than any number that is read"),
        (" \n", "it is empty"),
        ('"\\ud8', "escape"),
    ],
)
def test_what_exceeds_a_limit_is_an_error(text, message):
    with pytest.raises(JsonError, match=message):
        parse(text.encode())


def test_brackets_and_commas_inside_of_strings_do_not_count():
    text = '\\"[{,' * MAX_MARKS
    assert parse(json.dumps([text, text]).encode()) == [text, text]
    assert parse(("[" * MAX_DEPTH + '"]"' + "]" * MAX_DEPTH).encode())


@pytest.mark.parametrize(
    "data",
    [b"[" + b"[]," * 349_000 + b"[]]", b"{" + b'"":{},' * 200_000, b"[" * 1_048_576, b'"' + b'\\"' * 524_000],
    ids=["lists", "objects", "depth", "quotes"],
)
def test_a_megabyte_takes_megabytes_and_not_a_hundred_of_them(data):
    tracemalloc.start()
    with pytest.raises(JsonError):
        parse(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * len(data)  # objects would take 60 to 1000 times as much


def test_text_that_is_not_utf_8_names_the_byte():
    with pytest.raises(JsonError, match="byte 2 is not UTF-8"):
        parse(b'"a\xff"')
    assert parse(b"\xef\xbb\xbf[1]") == [1]


@pytest.mark.parametrize(
    "data", [rb'["a\ud83d", {"\uDC00x": 1}]', b'["a\xed\xa0\xbd", {"\xed\xb0\x80x": 1}]']
)
def test_half_of_an_emoji_becomes_the_sign_for_what_is_no_character(data):
    """A text that was cut inside of an emoji by a program that counts in UTF-16; the half would be in no encoding."""
    assert parse(data) == ["a\ufffd", {"\ufffdx": 1}]
    assert parse(rb'"\ud83d\ude42 \\ud83d"') == "\U0001f642 \\ud83d"
