from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from moe_local.agent import logs
from moe_local.agent.server import LogOptions, chosen
from moe_local.agent.shim import LONGEST_LINE, Log

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def lines(folder: Path) -> list[str]:
    return [line.text for line in logs.read(folder)]


def test_lines_are_kept_in_pieces_as_they_come(tmp_path: Path) -> None:
    log = Log(str(tmp_path), 10_000)
    log.feed(b"one\ntw")
    log.feed(b"o\nthree")
    assert lines(tmp_path) == ["one", "two"]
    log.finish()
    assert lines(tmp_path) == ["one", "two", "three"]


def test_a_line_of_any_length_is_whole_again_when_it_is_read(tmp_path: Path) -> None:
    log = Log(str(tmp_path), 1_000_000)
    text = b"x" * (3 * LONGEST_LINE + 5)
    log.feed(text + b"\nnext\n")
    sent = b"".join(line.rendered(timestamps=False) for line in logs.read(tmp_path))
    assert sent == text + b"\nnext\n"


def test_a_log_is_bounded_and_keeps_the_newest(tmp_path: Path) -> None:
    log = Log(str(tmp_path), 2_000)
    for number in range(200):
        log.feed(b"line %d\n" % number)
    kept = lines(tmp_path)
    assert kept[-1] == "line 199"
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2_000
    assert kept == [f"line {number}" for number in range(200 - len(kept), 200)]


def test_a_follower_misses_no_line_when_the_log_is_rotated(tmp_path: Path) -> None:
    log = Log(str(tmp_path), 400)
    log.feed(b"line 0\n")
    follower = logs.Follower(tmp_path)
    seen = [line.text for line in follower.new_lines()]
    for number in range(1, 30):
        log.feed(b"line %d\n" % number)
        seen += [line.text for line in follower.new_lines()]
    follower.close()
    assert seen == [f"line {number}" for number in range(30)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["a", "b", "c"]),
        ("tailLines=2", ["b", "c"]),
        ("tailLines=9", ["a", "b", "c"]),
        ("tailLines=0", []),
        ("sinceSeconds=60", ["b", "c"]),
        ("sinceTime=2026-01-01T11:59:59Z", ["c"]),
        ("sinceTime=2026-01-01T12:59:59%2B01:00", ["c"]),
    ],
)
def test_a_request_chooses_lines(query: str, expected: list[str]) -> None:
    written = [
        logs.Line("2026-01-01T11:58:00.000000000Z", False, "a"),
        logs.Line("2026-01-01T11:59:30.000000000Z", False, "b"),
        logs.Line("2026-01-01T11:59:59.500000000Z", False, "c"),
    ]
    options = LogOptions.parse(make_mocked_request("GET", f"/containerLogs/n/p/c?{query}"), NOW)
    assert [line.text for line in chosen(written, options)] == expected
