"""Parquet files that describe far more than they hold, and a decoder that is crashed, killed or stopped."""

import io
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from moe_formats.failure import JobError, TransientError
from moe_formats.job_config import Source
from moe_trainer import limits
from moe_trainer.sources.budget import Budget
from moe_trainer.sources.documents import SourceCount, read_source
from moe_trainer.sources.files import LocalFiles
from moe_trainer.sources.parquet_rows import ParquetReader
from moe_trainer.sources.records import Record

TURNS = pyarrow.list_(pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())]))


def write(root: Path, name: str, column: str, values: list[object], type: pyarrow.DataType) -> None:
    table = pyarrow.table({column: pyarrow.array(values, type)})
    parquet.write_table(table, root / name, compression="zstd")


def read(root: Path, path: str = "*", format: str = "text") -> tuple[list[str], SourceCount]:
    count = SourceCount(Source.model_validate({"root": "corpora", "path": path, "format": format}))
    return [content.text for content in read_source(LocalFiles("corpora", root), count)], count


def refused(root: Path, format: str = "text") -> str:
    with pytest.raises(JobError, match="DataUnreadable") as failed:
        read(root, format=format)
    assert not failed.value.retryable
    return failed.value.message


@pytest.mark.parametrize(("rows", "size", "typed"), [(240, 5_000_000, False), (60, 1_200_000, True)])
def test_a_kilobyte_of_parquet_that_becomes_gigabytes_is_refused(
    tmp_path: Path, rows: int, size: int, typed: bool
) -> None:
    repeated = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows, pyarrow.int32()), ["x" * size])
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": repeated}), path, compression="zstd", store_schema=typed)
    assert path.stat().st_size < 1000
    assert "corpora/a.parquet unpacks to too much" in refused(tmp_path)


def test_a_dictionary_within_a_conversation_gains_nothing(tmp_path: Path) -> None:
    word = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 3000, pyarrow.int32()), ["x" * 1_000_000])
    turns = pyarrow.StructArray.from_arrays([word, word], ["role", "content"])
    table = pyarrow.table({"messages": pyarrow.ListArray.from_arrays([0, 3000], turns)})
    parquet.write_table(table, tmp_path / "a.parquet", compression="zstd")
    assert "takes more than" in refused(tmp_path, "messages")


def repeated(count: int) -> pyarrow.Array:
    """Return a word of a million letters, ``count`` times, for the price of one."""
    return pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * count, pyarrow.int32()), ["x" * 1_000_000])


def list_of_one_length(word: pyarrow.Array) -> pyarrow.Array:
    return pyarrow.FixedSizeListArray.from_arrays(word, len(word))


def list_view(word: pyarrow.Array) -> pyarrow.Array:
    return pyarrow.ListViewArray.from_arrays([0], [len(word)], word)


def map_of_words(word: pyarrow.Array) -> pyarrow.Array:
    return pyarrow.MapArray.from_arrays([0, len(word)], pyarrow.array(map(str, range(len(word)))), word)


def own_type(word: pyarrow.Array) -> pyarrow.Array:
    typed = pyarrow.ExtensionArray.from_storage(pyarrow.opaque(word.type, "word", "nobody"), word)
    return pyarrow.ListArray.from_arrays([0, len(word)], typed)


@pytest.mark.parametrize("nested", [list_of_one_length, list_view, map_of_words, own_type])
def test_a_dictionary_within_any_nested_type_gains_nothing(
    tmp_path: Path, nested: Callable[[pyarrow.Array], pyarrow.Array]
) -> None:
    table = pyarrow.table({"messages": nested(repeated(3000))})
    parquet.write_table(table, tmp_path / "a.parquet", compression="zstd")
    assert "takes more than" in refused(tmp_path, "messages")


@pytest.mark.parametrize("word", [pyarrow.string(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string())])
def test_messages_that_are_maps_are_read_as_objects(tmp_path: Path, word: pyarrow.DataType) -> None:
    far = [[("role", "user"), ("content", "How far?")], [("role", "assistant"), ("content", "Far.")]]
    twice = [[("role", "user"), ("role", "user")]]
    rows = [far, far * 2, None, twice, far]
    pairs = [pair for row in rows for turn in row or () for pair in turn]
    maps = pyarrow.MapArray.from_arrays(
        list(range(0, len(pairs) + 1, 2)),
        pyarrow.array([name for name, _ in pairs]),
        pyarrow.array([said for _, said in pairs]).cast(word),
    )
    lists = pyarrow.ListArray.from_arrays(pyarrow.array([0, 2, None, 6, 7, 9]), maps)
    parquet.write_table(pyarrow.table({"messages": lists}), tmp_path / "a.parquet")
    texts, count = read(tmp_path, format="messages")
    assert texts == ["How far?\n\nFar.", "How far?\n\nFar.\n\nHow far?\n\nFar.", "How far?\n\nFar."]
    assert count.dropped == {"missingField": 1, "brokenRecord": 1}
    assert count.examples["brokenRecord"] == "corpora/a.parquet row 4: a map in it holds a key twice"


def test_a_column_whose_name_is_also_a_path_within_another_one_is_read(tmp_path: Path) -> None:
    table = pyarrow.table({"text": [{"en": "not here"}], "text.en": ["here"]})
    parquet.write_table(table, tmp_path / "a.parquet")
    source = Source(root="corpora", path="*", format="text", text_field="text.en")
    found = [content.text for content in read_source(LocalFiles("corpora", tmp_path), SourceCount(source))]
    assert found == ["here"]


def test_rows_that_take_more_memory_than_is_allowed_are_refused_with_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a.parquet", "text", ["x" * 4_000_000] * 30, pyarrow.string())
    monkeypatch.setattr(limits, "PARQUET_MEMORY_BYTES", 50 << 20)
    monkeypatch.setattr(limits, "UNPACKED_FREE_BYTES", 1 << 40)
    message = refused(tmp_path)
    assert f"corpora/a.parquet takes more than {50 << 20} bytes of memory to read" in message
    assert "smaller pages and rows" in message


def test_a_conversation_of_one_long_word_that_is_repeated_is_refused(tmp_path: Path) -> None:
    turn = {"role": "user", "content": "x" * 1_000_000}
    answer = {"role": "assistant", "content": "x" * 1_000_000}
    write(tmp_path, "a.parquet", "messages", [[turn, answer] * 10] * 2, TURNS)
    _, count = read(tmp_path, format="messages")
    assert count.dropped == {"tooLarge": 2}
    assert f"longer than {limits.RECORD_BYTES} bytes" in count.examples["tooLarge"]


def test_a_row_of_millions_of_empty_values_is_passed_over(tmp_path: Path) -> None:
    nothing = pyarrow.list_(pyarrow.null())
    rows: list[object] = [[None], [None] * 3_000_000, [None]]
    write(tmp_path, "a.parquet", "messages", rows, nothing)
    _, count = read(tmp_path, format="messages")
    assert count.dropped == {"brokenMessages": 2, "tooLarge": 1}
    assert "corpora/a.parquet row 2: more than 1000000 values" in count.examples["tooLarge"]


def test_a_value_that_is_too_long_is_passed_over_and_the_rows_keep_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "VALUE_BYTES", 18 << 20)
    write(tmp_path, "a.parquet", "text", ["a", "x" * (20 << 20), "b", None, "c"], pyarrow.string())
    texts, count = read(tmp_path)
    assert texts == ["a", "b", "c"]
    assert count.dropped == {"tooLarge": 1, "missingField": 1}
    assert count.examples["tooLarge"] == f"corpora/a.parquet row 2: longer than {18 << 20} bytes"
    assert count.examples["missingField"].startswith("corpora/a.parquet row 4")


def test_a_value_longer_than_a_record_of_jsonl_is_cut_into_documents(tmp_path: Path) -> None:
    write(tmp_path, "a.parquet", "text", ["word " * 4_000_000], pyarrow.string())
    assert "".join(read(tmp_path)[0]) == "word " * 4_000_000


def test_empty_rows_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UNPACKED_FREE_BYTES", 1 << 20)
    write(tmp_path, "a.parquet", "text", [None] * 150_000, pyarrow.string())
    assert "unpacks to too much" in refused(tmp_path)


@pytest.mark.parametrize(
    "type",
    [
        pyarrow.large_string(),
        pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
        pyarrow.string_view(),
    ],
)
def test_all_types_of_text_are_read(tmp_path: Path, type: pyarrow.DataType) -> None:
    write(tmp_path, "a.parquet", "text", ["one", "two", "one"], type)
    assert read(tmp_path)[0] == ["one", "two", "one"]


@pytest.mark.parametrize(
    "type", [pyarrow.binary(), pyarrow.large_binary(), pyarrow.binary_view(), pyarrow.binary(5)]
)
def test_bytes_that_are_utf_8_are_text_where_the_file_does_not_say_so(
    tmp_path: Path, type: pyarrow.DataType
) -> None:
    """As pandas and Spark read columns without the annotation: pyarrow gives bytes for them."""
    write(tmp_path, "a.parquet", "text", ["süß".encode(), b"\xff\xfe...", b"three"], type)
    found, count = read(tmp_path)
    assert (found, count.dropped) == (["süß", "three"], {"notUtf8": 1})
    assert count.examples["notUtf8"] == (
        "corpora/a.parquet row 2: 'text' is binary and not UTF-8: write it as a column of strings"
    )


def test_messages_of_bytes_are_read_and_other_bytes_in_them_do_no_harm(tmp_path: Path) -> None:
    part = pyarrow.struct([(name, pyarrow.binary()) for name in ("role", "content", "image")])
    said = [
        {"role": b"user", "content": b"Why?", "image": b"\x89PNG\xff"},
        {"role": b"assistant", "content": b"Because."},
    ]
    write(tmp_path, "a.parquet", "messages", [said], pyarrow.list_(part))
    assert read(tmp_path, format="messages")[0] == ["Why?\n\nBecause."]


def test_a_file_of_large_row_groups_is_read_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PARQUET_MEMORY_BYTES", 80 << 20)
    texts = [os.urandom(4000).hex() for _ in range(20_000)]  # 160 MB in one row group
    table = pyarrow.table({"text": texts})
    parquet.write_table(table, tmp_path / "a.parquet", use_dictionary=False, compression="none")
    assert parquet.ParquetFile(tmp_path / "a.parquet").num_row_groups == 1
    assert len(read(tmp_path)[0]) == 20_000


def test_what_is_no_parquet_behind_a_footer_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(
        b"PAR1" + b"\x15" * 1000 + (0xFFFF_FFF0).to_bytes(4, "little") + b"PAR1"
    )
    assert "corpora/a.parquet cannot be read as parquet" in refused(tmp_path)


@pytest.fixture
def reader() -> Iterator[ParquetReader]:
    with ParquetReader(Budget()) as made:
        yield made


def rows(reader: ParquetReader, count: int) -> Iterator[Record]:
    """The rows of a file, of which the decoder cannot send all before somebody reads them."""
    file = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": [os.urandom(2000).hex() for _ in range(count)]}), file)
    return reader.rows(io.FileIO(as_file(file.getvalue())), "text", "textField")


def as_file(data: bytes) -> int:
    descriptor = os.memfd_create("parquet")
    os.write(descriptor, data)
    return descriptor


def end(reader: ParquetReader, how: signal.Signals) -> None:
    assert reader._child is not None
    reader._child.send_signal(how)


@pytest.mark.parametrize("how", [signal.SIGSEGV, signal.SIGABRT])
def test_a_file_that_crashes_the_decoder_is_refused(reader: ParquetReader, how: signal.Signals) -> None:
    reading = rows(reader, 5000)
    next(reading)
    end(reader, how)
    with pytest.raises(Exception, match=f"crashes the reader of parquet \\({how.name}\\)"):
        list(reading)


def test_a_decoder_that_the_system_kills_is_another_attempt(reader: ParquetReader) -> None:
    reading = rows(reader, 5000)
    next(reading)
    end(reader, signal.SIGKILL)
    with pytest.raises(TransientError, match=r"Crashed: the process that reads parquet ended with code -9"):
        list(reading)


def test_a_decoder_that_does_not_come_back_is_given_up(
    reader: ParquetReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = rows(reader, 5000)
    next(reading)
    monkeypatch.setattr(limits, "PARQUET_SECONDS", 0.5)
    end(reader, signal.SIGSTOP)
    with pytest.raises(Exception, match=r"keeps the reader of parquet busy for more than 0 s"):
        list(reading)
    assert reader._child is None


def test_nobody_is_left_when_the_rest_of_a_file_is_not_wanted(reader: ParquetReader) -> None:
    reading = rows(reader, 5000)
    next(reading)
    child = reader._child
    assert child is not None
    reading.close()  # type: ignore[attr-defined]
    assert child.returncode == -signal.SIGKILL


def test_the_decoder_ends_with_its_parent(reader: ParquetReader) -> None:
    reading = rows(reader, 5000)
    next(reading)
    child, connection = reader._child, reader._connection
    assert child is not None and connection is not None
    connection.close()
    reader._connection = None
    deadline = time.monotonic() + 10
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert child.returncode is not None
