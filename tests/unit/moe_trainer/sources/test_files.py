import bz2
import gzip
import io
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest

from moe_formats.failure import JobError, TransientError
from moe_formats.job_config import Source
from moe_trainer.sources.compression import DamagedError, decompressed, without_compression
from moe_trainer.sources.documents import SourceCount, read_source
from moe_trainer.sources.files import File, LocalFiles, literal_folder, matches

DATA = b"".join(b"line %d\n" % number for number in range(20_000))

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pyarrow.compress(data, codec="zstd", asbytes=True),
}


class Raw(io.BytesIO, io.RawIOBase):
    """Bytes as a raw stream."""


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_compressed_data_is_read_as_it_was_also_in_several_members(suffix: str) -> None:
    compress = COMPRESSORS[suffix]
    stream = decompressed(Raw(compress(DATA) + compress(b"more\n")), f"a.jsonl{suffix}")
    assert stream.readline() == b"line 0\n"
    assert stream.read() == DATA[7:] + b"more\n"


@pytest.mark.parametrize("suffix", COMPRESSORS)
@pytest.mark.parametrize("keep", [0.999, 0.5, 0.01])
def test_compressed_data_that_is_cut_short_is_damaged(suffix: str, keep: float) -> None:
    data = COMPRESSORS[suffix](DATA)
    stream = decompressed(Raw(data[: int(len(data) * keep)]), f"a{suffix}")
    with pytest.raises(DamagedError):
        stream.read()


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_what_is_not_compressed_as_its_name_says_is_damaged(suffix: str) -> None:
    with pytest.raises(DamagedError):
        decompressed(Raw(DATA), f"a{suffix}").read()


def test_a_name_says_nothing_of_compression_by_another_ending() -> None:
    assert decompressed(Raw(b"\x1f\x8b plain"), "a.txt").read() == b"\x1f\x8b plain"
    assert without_compression("deep.gz/a.jsonl.gz") == "deep.gz/a.jsonl"
    assert without_compression("deep/a.jsonl") == "deep/a.jsonl"


def test_the_disks_errors_are_not_taken_for_damage() -> None:
    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object) -> int:
            raise OSError(5, "Input/output error")

    for suffix in COMPRESSORS:
        with pytest.raises(OSError, match="Input/output error"):
            decompressed(Broken(), f"a{suffix}").read()


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    folder = tmp_path / "corpora"
    folder.mkdir()
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": f"text {n}"}) + "\n" for n in range(10)))
    return folder


def read(corpora: Path, meanwhile: Callable[[], object]) -> list[str]:
    """Return the texts that are read while something happens after the first one."""
    source = Source(root="corpora", path="*", format="text")
    reading = read_source(LocalFiles("corpora", corpora), SourceCount(source))
    first = next(reading)
    meanwhile()
    return [content.text for content in (first, *reading)]


def test_a_file_that_grows_while_it_is_read_is_told_and_tried_again(corpora: Path) -> None:
    def grow() -> None:
        with (corpora / "a.jsonl").open("a") as file:
            file.write("more\n")

    with pytest.raises(
        TransientError, match=r"DataChanged: corpora/a.jsonl changed while it was read.*rename"
    ):
        read(corpora, grow)


def test_a_file_that_is_cut_while_it_is_read_is_changed_and_not_damaged(corpora: Path) -> None:
    records = (json.dumps({"text": os.urandom(500).hex()}).encode() + b"\n" for _ in range(6000))
    whole = gzip.compress(b"".join(records), compresslevel=1)
    (corpora / "a.jsonl").unlink()
    (corpora / "b.jsonl.gz").write_bytes(whole)
    with pytest.raises(TransientError, match=r"DataChanged: corpora/b.jsonl.gz"):
        read(corpora, lambda: os.truncate(corpora / "b.jsonl.gz", len(whole) // 2))


def test_a_file_that_is_replaced_by_a_rename_is_read_to_its_end(corpora: Path) -> None:
    def replace() -> None:
        (corpora.parent / "new").write_text("another")
        (corpora.parent / "new").rename(corpora / "a.jsonl")

    assert read(corpora, replace) == [f"text {n}" for n in range(10)]
    assert (corpora / "a.jsonl").read_text() == "another"


def test_a_file_that_is_gone_when_its_turn_comes_is_told(corpora: Path) -> None:
    gone = File("corpora", "gone.txt", 3)
    files = LocalFiles("corpora", corpora)
    with (
        pytest.raises(TransientError, match=r"DataChanged: corpora/gone.txt.*no longer exists"),
        files.open(gone),
    ):
        pass


@pytest.mark.skipif(os.getuid() == 0, reason="the superuser may read every file")
def test_a_file_that_may_not_be_read_is_told(corpora: Path) -> None:
    (corpora / "a.jsonl").chmod(0)
    with pytest.raises(JobError, match=r"DataUnreadable: corpora/a.jsonl cannot be read by user"):
        read(corpora, lambda: None)


@pytest.mark.parametrize(
    "pattern",
    [
        "*",
        "**/*",
        "a/*",
        "a/**/*.txt",
        "**/b/*",
        "a/**/b/**/*",
        "?/*",
        "[!a]/*",
        ".*",
        "a/b.txt",
        "./a//b.txt",
    ],
)
def test_a_glob_over_names_means_the_same_as_on_disk(tmp_path: Path, pattern: str) -> None:
    names = ["a.txt", ".b", "a/b.txt", "a/c/d.txt", "a/b/c.txt", "a/b/c/d.txt", "b/b/b", "ab/c", "b/.c"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if not (tmp_path / name).exists():
            (tmp_path / name).write_text("x")
    on_disk = [file.path for file in LocalFiles("x", tmp_path).matching(pattern)]
    assert {name for name in names if matches(name, pattern)} == set(on_disk)
    assert all(name.startswith(literal_folder(pattern)) for name in on_disk)


def test_a_glob_with_many_wildcards_takes_no_time() -> None:
    assert not matches("/".join("a" * 200), "/".join(["**", "a"] * 30) + "/b")
