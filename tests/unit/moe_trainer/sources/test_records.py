import bz2
import gzip
import io
import json
import lzma
import re
import tracemalloc
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from moe_formats.failure import JobError
from moe_formats.job_config import Source
from moe_trainer import limits
from moe_trainer.sources.documents import SourceCount, read_source
from moe_trainer.sources.files import LocalFiles
from moe_trainer.sources.records import json_lines
from moe_trainer.text.content import Content

CONVERSATION = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]


def read(root: Path, path: str, format: str = "text", **more: str) -> tuple[list[Content], SourceCount]:
    source = Source.model_validate({"root": "corpora", "path": path, "format": format, **more})
    count = SourceCount(source)
    documents = list(read_source(LocalFiles("corpora", root), count))
    count.check()
    return documents, count


def lines(root: Path, name: str, *values: object) -> None:
    (root / name).write_text("".join(json.dumps(value) + "\n" for value in values))


def columns(root: Path, name: str, **values: list[object]) -> None:
    parquet.write_table(pyarrow.table(values), root / name, row_group_size=1000)


def test_a_files_name_says_how_its_records_are_stored(tmp_path: Path) -> None:
    lines(tmp_path, "a.jsonl", {"text": "one"})
    lines(tmp_path, "b.NDJSON", {"text": "two"})
    columns(tmp_path, "c.parquet", text=["three"])
    (tmp_path / "d.txt").write_text('{"text": "four"}')
    documents, count = read(tmp_path, "*")
    assert [document.text for document in documents] == ["one", "two", "three", '{"text": "four"}']
    assert count.files == 4


def test_the_format_jsonl_reads_lines_whatever_the_file_is_called(tmp_path: Path) -> None:
    lines(tmp_path, "records", {"text": "one"}, {"text": "two"})
    assert [document.text for document in read(tmp_path, "*", "jsonl")[0]] == ["one", "two"]


def test_conversations_are_the_same_from_jsonl_and_from_parquet(tmp_path: Path) -> None:
    lines(tmp_path, "a.jsonl", {"messages": CONVERSATION})
    columns(tmp_path, "a.parquet", messages=[CONVERSATION], other=[b"\xff"])
    (one,), _ = read(tmp_path, "*.jsonl", "messages")
    (other,), _ = read(tmp_path, "*.parquet", "messages")
    assert one == other
    assert list(one.said()) == [("user", "Why?"), ("assistant", "Because.")]


def test_another_field_or_column_can_hold_them(tmp_path: Path) -> None:
    lines(tmp_path, "a.jsonl", {"chat": CONVERSATION, "body": "text"})
    columns(tmp_path, "a.parquet", chat=[CONVERSATION], body=["text"])
    for path in ("*.jsonl", "*.parquet"):
        assert read(tmp_path, path, "messages", messagesField="chat")[0][0].text == "Why?\n\nBecause."
        assert read(tmp_path, path, textField="body")[0][0].text == "text"


@pytest.mark.parametrize("name", ["train.json", "train.json.gz", "notes.md", "train.csv", "train"])
def test_a_field_that_is_asked_for_demands_records(tmp_path: Path, name: str) -> None:
    data = b"".join(json.dumps({"body": f"text {n}"}).encode() + b"\n" for n in range(3))
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    with pytest.raises(JobError, match=f"DataUnreadable: corpora/{name} .*textField 'body'.*format: jsonl"):
        read(tmp_path, "*", textField="body")
    assert [content.text for content in read(tmp_path, "*", "jsonl", textField="body")[0]] == [
        "text 0",
        "text 1",
        "text 2",
    ]
    assert read(tmp_path, "*")[0][0].text == data.decode()  # no field is asked for: the file is a text


@pytest.mark.parametrize("ending", [".GZ", ".Gz", ".BZ2", ".XZ"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.JSONL", "a.txt"])
def test_the_end_of_a_name_says_the_same_in_capitals(tmp_path: Path, name: str, ending: str) -> None:
    compress = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[ending.lower()]
    is_text = name.endswith("txt")
    (tmp_path / f"{name}{ending}").write_bytes(compress(b"one" if is_text else b'{"text": "one"}\n'))
    assert [content.text for content in read(tmp_path, "*")[0]] == ["one"]


def test_each_broken_record_is_counted_and_the_first_is_told_with_its_place(tmp_path: Path) -> None:
    good: list[object] = [{"messages": CONVERSATION}] * 9
    bad: list[object] = [
        {"messages": [{"content": "x"}]},
        {"chat": 1},
        {"messages": "x"},
        {"messages": CONVERSATION[:1]},
    ]
    lines(tmp_path, "a.jsonl", *good, *bad, {"messages": []})
    _, count = read(tmp_path, "*", "messages")
    assert count.dropped == {"brokenMessages": 1, "missingField": 2, "noAnswer": 2}
    assert count.examples == {
        "brokenMessages": "corpora/a.jsonl line 10: messages[0] has no role: the role must be one of system, user, assistant",
        "missingField": "corpora/a.jsonl line 11: no field 'messages'; it has: chat",
        "noAnswer": "corpora/a.jsonl line 13: messages has no message of role assistant, so there is nothing to learn from",
    }


def test_messages_without_roles_fail_with_file_line_and_message(tmp_path: Path) -> None:
    lines(tmp_path, "a.jsonl", *[{"messages": [{"content": "x"}]}] * 3)
    with pytest.raises(
        JobError,
        match=r"DataUnreadable.*First: corpora/a.jsonl line 1: messages\[0\] has no role.*messagesField",
    ):
        read(tmp_path, "*", "messages")


def test_a_jsonl_file_that_is_not_utf8_or_not_json_fails_with_file_line_and_place(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes('{"text": "caf\u00e9"}\n'.encode("latin-1"))
    with pytest.raises(JobError, match=r"First: corpora/a.jsonl line 1: byte 14 is not UTF-8"):
        read(tmp_path, "*")
    (tmp_path / "a.jsonl").write_text('\n{"text": oops}\n')
    with pytest.raises(
        JobError, match=r"First: corpora/a.jsonl line 2: not JSON: Expecting value.*column 10"
    ):
        read(tmp_path, "*")


def test_a_text_that_is_not_utf8_fails_with_the_byte(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 au lait")
    with pytest.raises(JobError, match=r"First: corpora/a.txt: near byte 4"):
        read(tmp_path, "*")
    (tmp_path / "a.txt").write_bytes(b"ends in half \xc3")
    with pytest.raises(JobError, match=r"First: corpora/a.txt: near byte 14"):
        read(tmp_path, "*")
    (tmp_path / "a.txt").write_bytes(b"ab\0c")
    with pytest.raises(JobError, match=r"First: corpora/a.txt: byte 3 is NUL"):
        read(tmp_path, "*")


def test_messages_in_a_text_file_are_refused_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(
        JobError, match=r"DataUnreadable: corpora/a.txt is read as plain text.*rename the file"
    ):
        read(tmp_path, "*", "messages")


def test_a_line_that_is_too_long_is_one_record_and_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RECORD_BYTES", 100)
    lines(tmp_path, "a.jsonl", {"text": "a"}, {"text": "x" * 950}, {"text": "b"}, {"text": "c"})
    documents, count = read(tmp_path, "*")
    assert [document.text for document in documents] == ["a", "b", "c"]
    assert count.dropped == {"tooLarge": 1}
    assert count.examples["tooLarge"].startswith("corpora/a.jsonl line 2: longer than 100 bytes")


def test_a_record_that_is_nested_without_end_is_broken(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("[" * 200_000 + "\n" + '{"text": "a"}\n' * 2)
    documents, count = read(tmp_path, "*")
    assert (len(documents), count.dropped) == (2, {"brokenRecord": 1})


def test_a_parquet_file_without_the_column_is_refused_with_those_it_has(tmp_path: Path) -> None:
    columns(tmp_path, "a.parquet", body=["x"], title=["y"])
    with pytest.raises(
        JobError,
        match=r"corpora/a.parquet has no column 'text'; it has: body, title. Name one of them in textField",
    ):
        read(tmp_path, "*")
    with pytest.raises(JobError, match=r"no column 'messages'.*messagesField"):
        read(tmp_path, "*", "messages")


def test_values_of_another_type_are_counted_by_row(tmp_path: Path) -> None:
    columns(tmp_path, "a.parquet", text=["x", None, "y"])
    _, count = read(tmp_path, "*")
    assert count.dropped == {"missingField": 1}
    assert count.examples["missingField"] == "corpora/a.parquet row 2: 'text' is not text"
    columns(tmp_path, "b.parquet", text=[1, 2])
    with pytest.raises(JobError, match=r"First: corpora/b.parquet row 1: 'text' is not text"):
        read(tmp_path, "b.parquet")


@pytest.mark.parametrize("kept", [0.9, 0.5, 0.0])
def test_a_parquet_file_that_is_cut_short_or_none_is_refused(tmp_path: Path, kept: float) -> None:
    columns(tmp_path, "a.parquet", text=[f"row {n}" for n in range(3000)])
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(JobError, match=r"DataUnreadable: corpora/a.parquet cannot be read as parquet"):
        read(tmp_path, "*")


def test_bytes_that_changed_in_a_parquet_file_are_found_by_its_checksums(tmp_path: Path) -> None:
    table = pyarrow.table({"text": [f"row {n} " + "word " * 20 for n in range(3000)]})
    sink = io.BytesIO()
    parquet.write_table(table, sink, compression="none", use_dictionary=False, write_page_checksum=True)
    data = bytearray(sink.getvalue())
    data[len(data) // 2] ^= 1
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(JobError, match=r"DataUnreadable: corpora/a.parquet cannot be read as parquet"):
        read(tmp_path, "*")


def test_a_truncated_gzip_file_is_refused_with_the_fix(tmp_path: Path) -> None:
    import gzip

    data = gzip.compress(b"".join(json.dumps({"text": f"{n} " * 50}).encode() + b"\n" for n in range(1000)))
    (tmp_path / "a.jsonl.gz").write_bytes(data[:-20])
    with pytest.raises(
        JobError, match=r"DataUnreadable: corpora/a.jsonl.gz is cut short.*whole file"
    ) as refused:
        read(tmp_path, "*")
    assert not refused.value.retryable


def test_a_text_file_larger_than_the_buffer_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moe_trainer.sources.documents.BUFFER_BYTES", 1000)
    text = "".join(f"Absatz {n} mit ä, é und 🙂.\n\n" for n in range(10_000))
    (tmp_path / "a.txt").write_text(text)
    documents, _ = read(tmp_path, "*")
    assert "".join(document.text for document in documents) == text
    assert len(documents) > 4


def conversation(role: bytes) -> bytes:
    turns = b'{"role": %s, "content": "Why?"}, {"role": "assistant", "content": "Because."}' % role
    return b'{"messages": [%s]}\n' % turns


def test_a_role_that_is_nested_deeply_is_broken_and_no_crash(tmp_path: Path) -> None:
    for depth in (50, 97, 98, 400, 980, 100_000):
        (tmp_path / f"{depth}.jsonl").write_bytes(conversation(b"[" * depth + b"]" * depth))
    (tmp_path / "good.jsonl").write_bytes(conversation(b'"user"') * 6)
    documents, count = read(tmp_path, "*", "messages")
    assert (len(documents), count.dropped) == (6, {"brokenMessages": 2, "brokenRecord": 4})
    assert f"nested too deeply: more than {limits.RECORD_DEPTH} levels" in count.examples["brokenRecord"]


def test_a_number_of_a_million_digits_is_broken(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": %s}\n{"text": "a"}\n' % (b"1" * 1_000_000))
    _, count = read(tmp_path, "*")
    assert count.dropped == {"brokenRecord": 1}
    assert count.examples["brokenRecord"] == (
        "corpora/a.jsonl line 1: a whole number of more than 4,300 digits, which is the limit: write it as text"
    )


@pytest.mark.parametrize(
    ("encoding", "first"),
    [
        ("utf-16", "line 1: it begins like UTF-16 or UTF-32: convert it to UTF-8"),
        ("utf-32", "line 1: it begins like UTF-16 or UTF-32: convert it to UTF-8"),
        ("utf-16-le", "line 1: byte 2 is NUL, as in UTF-16: convert it to UTF-8"),
        ("utf-16-be", "line 1: byte 1 is NUL, as in UTF-16: convert it to UTF-8"),
    ],
)
def test_lines_in_another_encoding_fail_with_the_encoding_first(
    tmp_path: Path, encoding: str, first: str
) -> None:
    text = "".join(json.dumps({"text": f"line {n}"}) + "\n" for n in range(5))
    (tmp_path / "a.jsonl").write_bytes(text.encode(encoding))
    with pytest.raises(JobError) as refused:
        read(tmp_path, "*")
    assert refused.value.reason == "DataUnreadable"
    assert re.search(r"\([0-9]+ notUtf8; 0 readable\)", refused.value.message)
    assert f"First: corpora/a.jsonl {first}" in refused.value.message


@pytest.mark.parametrize("values", ["[],", '{"":0},'])
def test_millions_of_lists_and_objects_are_not_taken_into_memory(tmp_path: Path, values: str) -> None:
    line = '{"text": "a", "more": [' + values * 1_100_000 + "0]}\n"
    assert len(line) < limits.RECORD_BYTES
    (tmp_path / "a.jsonl").write_text(line + '{"text": "b"}\n')
    documents, count = read(tmp_path, "*")
    assert ([document.text for document in documents], count.dropped) == (["b"], {"tooLarge": 1})
    assert "corpora/a.jsonl line 1: more than 1000000 lists and objects" in count.examples["tooLarge"]


def test_brackets_within_text_are_text(tmp_path: Path) -> None:
    text = '[{\\"' * 600_000 + "\\"
    lines(tmp_path, "a.jsonl", {"text": text})
    assert "".join(document.text for document in read(tmp_path, "*")[0]) == text


def test_a_line_without_an_end_is_passed_over_in_bounded_memory() -> None:
    class Endless(io.RawIOBase):
        left = 200

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            self.left -= 1
            buffer[:] = b"x" * len(buffer)
            return len(buffer) if self.left >= 0 else 0

    tracemalloc.start()
    (record,) = json_lines(io.BufferedReader(Endless(), 1 << 20), "text")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert record.fault is not None and record.fault.reason == "tooLarge"
    assert peak < 5 * limits.RECORD_BYTES


def test_pieces_of_a_conversation_do_not_repeat_a_long_system_message_without_end(tmp_path: Path) -> None:
    turns = [{"role": role, "content": "a"} for _ in range(2000) for role in ("user", "assistant")]
    lines(tmp_path, "a.jsonl", {"messages": [{"role": "system", "content": "s" * 500_000}, *turns]})
    with pytest.raises(JobError, match=r"DataUnreadable: corpora/a.jsonl unpacks to too much") as refused:
        read(tmp_path, "*", "messages")
    assert not refused.value.retryable
