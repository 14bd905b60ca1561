"""Compressed files that are made to exhaust the machine that unpacks them."""

import bz2
import gzip
import io
import json
import lzma
import random
import re
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest

from moe_formats.failure import JobError
from moe_formats.job_config import Source
from moe_trainer import limits
from moe_trainer.sources.compression import DamagedError, decompressed
from moe_trainer.sources.documents import SourceCount, read_source
from moe_trainer.sources.faults import FaultyFileError
from moe_trainer.sources.files import LocalFiles

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pyarrow.compress(data, codec="zstd", asbytes=True),
}


class Raw(io.BytesIO, io.RawIOBase):
    """Bytes as a raw stream."""


def read(root: Path, path: str = "*") -> list[str]:
    source = Source(root="corpora", path=path, format="text")
    return [content.text for content in read_source(LocalFiles("corpora", root), SourceCount(source))]


def refused(root: Path, path: str = "*") -> str:
    with pytest.raises(JobError, match="DataUnreadable") as failed:
        read(root, path)
    assert not failed.value.retryable
    return failed.value.message


def unpack(data: bytes, name: str) -> int:
    stream = decompressed(Raw(data), name)
    return sum(len(part) for part in iter(lambda: stream.read(1 << 20), b""))


@pytest.mark.parametrize("suffix", COMPRESSORS)
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_file_that_unpacks_a_thousandfold_is_refused_with_its_name_and_both_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, name: str
) -> None:
    monkeypatch.setattr(limits, "UNPACKED_FREE_BYTES", 1 << 20)
    data = COMPRESSORS[suffix](b'{"text": "again"}\n' * 200_000)
    (tmp_path / (name + suffix)).write_bytes(data)
    message = refused(tmp_path)
    assert f"corpora/{name}{suffix} unpacks to too much" in message
    assert f"the {len(data)} bytes read so far" in message
    assert f"{limits.UNPACKED_RATIO} times as many at most" in message


def test_a_gzip_bomb_of_the_real_size_is_refused_in_little_memory(tmp_path: Path) -> None:
    squeeze = zlib.compressobj(wbits=31)
    with (tmp_path / "a.jsonl.gz").open("wb") as file:
        for _ in range(100):
            file.write(squeeze.compress(b"x" * (1 << 20)))
        file.write(squeeze.flush())
    tracemalloc.start()
    message = refused(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "unpacks to too much" in message
    assert peak < 5 * limits.RECORD_BYTES


def test_many_small_bombs_gain_no_more_than_a_large_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "UNPACKED_FREE_BYTES", 1 << 20)
    for number in range(40):
        (tmp_path / f"{number:02}.txt.gz").write_bytes(gzip.compress(b"again \n\n" * 7500))
    assert "corpora/00" not in refused(tmp_path)


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_text_that_compresses_well_is_read(tmp_path: Path, suffix: str) -> None:
    draw = random.Random(1)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 8))) for _ in range(500)]
    lines = [json.dumps({"text": " ".join(draw.choices(words, k=100))}) for _ in range(500)]
    (tmp_path / f"a.jsonl{suffix}").write_bytes(COMPRESSORS[suffix]("\n".join(lines).encode()))
    assert len(read(tmp_path)) == 500


def with_dictionary(size: int) -> bytes:
    """An xz file whose header asks for a larger dictionary than its data need: 2^(size / 2 + 12) bytes."""
    data = bytearray(lzma.compress(b"text " * 100))
    start, length = 12, (data[12] + 1) * 4
    assert data[start + 2 : start + 4] == b"\x21\x01"  # the filter LZMA2, with one byte of properties
    data[start + 4] = size
    data[start + length - 4 : start + length] = zlib.crc32(data[start : start + length - 4]).to_bytes(
        4, "little"
    )
    return bytes(data)


def test_xz_with_a_dictionary_of_4_gib_is_refused_before_it_is_made(tmp_path: Path) -> None:
    (tmp_path / "a.txt.xz").write_bytes(with_dictionary(40))
    message = refused(tmp_path)
    assert "corpora/a.txt.xz needs too much memory" in message
    assert str(limits.UNPACKING_MEMORY_BYTES) in message and "xz -9" in message


def test_a_large_dictionary_in_a_later_part_of_the_file_is_not_taken_for_rubbish_at_its_end(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.txt.xz").write_bytes(lzma.compress(b"the first part") + with_dictionary(40))
    assert "needs too much memory" in refused(tmp_path)


def test_lzma_alone_is_bound_in_the_same_way() -> None:
    data = bytearray(lzma.compress(b"text " * 100, format=lzma.FORMAT_ALONE))
    data[1:5] = (0xFFFF_FFFF).to_bytes(4, "little")
    with pytest.raises(FaultyFileError, match="needs too much memory"):
        unpack(bytes(data), "a.xz")


def test_what_xz_itself_makes_is_read() -> None:
    assert unpack(with_dictionary(28), "a.xz") == 500  # 64 MiB, as `xz -9`
    assert unpack(lzma.compress(b"text " * 100, preset=9), "a.xz") == 500


def test_zstandard_with_a_window_of_2_gib_is_refused(tmp_path: Path) -> None:
    header = b"\x28\xb5\x2f\xfd" + bytes([0, 21 << 3])  # a frame with a window of 2^(10 + 21) bytes
    (tmp_path / "a.txt.zst").write_bytes(header + (4 << 3 | 1).to_bytes(3, "little") + b"text")
    assert "corpora/a.txt.zst needs too much memory" in refused(tmp_path)


@pytest.mark.timeout(20)
def test_zeros_after_gzip_are_passed_over_quickly() -> None:
    class Padded(io.RawIOBase):
        """A sparse file takes no space on the disk, however long it is."""

        def __init__(self) -> None:
            self._start = io.BytesIO(gzip.compress(b"text"))
            self._left = 256 << 20

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            if size := self._start.readinto(buffer):
                return size
            size = min(len(buffer), self._left)
            buffer[:size] = bytes(size)
            self._left -= size
            return size

    assert decompressed(Padded(), "a.gz").read() == b"text"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
def test_very_many_tiny_members_are_read_in_time_proportional_to_their_number(suffix: str) -> None:
    compress = COMPRESSORS[suffix]
    members = [compress(b""), compress(b"a"), compress(b"bc")] * 15_000
    assert unpack(b"".join(members), f"a{suffix}") == 3 * 15_000


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
def test_what_follows_the_last_member_is_an_error_where_the_standard_library_ignores_it(suffix: str) -> None:
    libraries = {".gz": gzip, ".bz2": bz2, ".xz": lzma}
    whole = COMPRESSORS[suffix](b"text " * 1000)
    draw = random.Random(suffix)
    padding = b"\0" * 100
    for end in (b"", padding, b"rubbish", whole[:-5], whole[:3], b"\0\0" + whole, draw.randbytes(5000)):
        for data in (whole + end, end):
            if suffix == ".xz" and data == whole + padding:
                continue  # the library refuses it, although xz reads it: see below
            if suffix == ".bz2" and data == whole + b"\0\0" + whole:
                continue  # the library reads one of the two: see below
            try:
                expected = libraries[suffix].open(io.BytesIO(data)).read()  # type: ignore[attr-defined]
                if suffix != ".gz" and end.strip(b"\0") and data != end:
                    raise EOFError  # xz itself refuses it too, and bzip2 warns of it
            except (EOFError, OSError, lzma.LZMAError, zlib.error):
                with pytest.raises(DamagedError):
                    decompressed(Raw(data), f"a{suffix}").read()
            else:
                assert decompressed(Raw(data), f"a{suffix}").read() == expected


@pytest.mark.parametrize("suffix", [".bz2", ".xz"])
@pytest.mark.parametrize("end", [b"rubbish", b"{}\n", b"\0\0x"])
def test_a_file_that_goes_on_after_its_end_is_named(tmp_path: Path, suffix: str, end: bytes) -> None:
    (tmp_path / f"a.txt{suffix}").write_bytes(COMPRESSORS[suffix](b"text") + end)
    assert re.search(
        rf"corpora/a.txt{suffix} is .*bytes that are not compressed follow the end of its last compressed stream.*",
        refused(tmp_path),
    )


def test_streams_of_bzip2_with_zeros_in_between_are_all_read() -> None:
    data = bz2.compress(b"one, ") + bytes(100) + bz2.compress(b"two") + bytes(7)
    assert decompressed(Raw(data), "a.bz2").read() == b"one, two"


@pytest.mark.parametrize("zeros", [4, 100, 200_000])
def test_streams_of_xz_may_be_padded_with_zeros_as_its_format_says(zeros: int) -> None:
    """Section 2.2 of the format: in multiples of four bytes; ``xz -dc`` writes the same."""
    data = lzma.compress(b"one, ") + bytes(zeros) + lzma.compress(b"two") + bytes(zeros)
    assert decompressed(Raw(data), "a.xz").read() == b"one, two"
