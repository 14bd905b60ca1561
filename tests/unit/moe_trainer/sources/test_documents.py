import json
import os
from pathlib import Path

import pytest

from moe_formats.failure import JobError
from moe_formats.job_config import Source
from moe_trainer.environment import Environment
from moe_trainer.sources.cutting import MAX_DOCUMENT_BYTES, cut_text
from moe_trainer.sources.documents import SourceCount, read_source
from moe_trainer.sources.files import files_of


def source(path: str, format: str = "text", **more: str) -> Source:
    return Source.model_validate({"root": "corpora", "path": path, "format": format, **more})


def write(root: Path, name: str, data: bytes) -> None:
    path = root / "corpora" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def read(root: Path, wanted: Source) -> tuple[list[str], SourceCount]:
    count = SourceCount(wanted)
    files = files_of(wanted.root, Environment(store=root / "store", sources=root))
    documents = [content.text for content in read_source(files, count)]
    count.check()
    return documents, count


def test_text_files_are_documents_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "deep/c.txt", "other.md"):
        write(tmp_path, name, name.encode())
    assert read(tmp_path, source("*.txt"))[0] == ["a.txt", "b.txt"]
    assert read(tmp_path, source("**/*.txt"))[0] == ["a.txt", "b.txt", "deep/c.txt"]


def test_jsonl_records_are_documents_and_each_bad_line_is_counted_by_its_reason(tmp_path: Path) -> None:
    lines = [
        b'{"text": "one"}',
        b'{"text": "tw',
        b'{"text": 3}',
        b"[1]",
        b"",
        b'{"text": " "}',
        b'{"text": "two"}',
    ]
    lines += [b'{"text": "three"}', b'{"text": "four"}', b'{"text": "a\\u0000b"}', b'{"text": "\\ud800"}']
    lines += [json.dumps({"text": f"more {n}"}).encode() for n in range(5)]
    write(tmp_path, "r.jsonl", b"\n".join(lines))
    documents, count = read(tmp_path, source("r.jsonl", "jsonl"))
    assert documents[:4] == ["one", "two", "three", "four"]
    assert count.dropped == {"brokenRecord": 1, "missingField": 2, "empty": 1, "binary": 1, "notUtf8": 1}


def test_another_field_can_hold_the_text(tmp_path: Path) -> None:
    write(tmp_path, "r.jsonl", b'{"body": "here", "text": "not here"}')
    assert read(tmp_path, source("r.jsonl", "jsonl", textField="body"))[0] == ["here"]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "DataMissing"),
        ({"a.txt": b"", "b.txt": b" \n"}, "DataEmpty"),
        ({"a.txt": b"\x00\x01", "b.txt": b"\xff\xfe\xfa"}, "DataUnreadable"),
        ({"a.txt": b"good", "b.txt": b"\xff", "c.txt": b"\0"}, "DataUnreadable"),
    ],
)
def test_a_source_of_no_use_fails_with_its_reason(
    tmp_path: Path, files: dict[str, bytes], reason: str
) -> None:
    (tmp_path / "corpora").mkdir()
    for name, data in files.items():
        write(tmp_path, name, data)
    with pytest.raises(JobError) as failed:
        read(tmp_path, source("*.txt"))
    assert failed.value.reason == reason
    assert "corpora/*.txt" in failed.value.message
    assert not failed.value.retryable


def test_a_jsonl_source_that_is_mostly_broken_fails(tmp_path: Path) -> None:
    write(tmp_path, "r.jsonl", b'{"text": "one"}\n{"text": \nnot json\n')
    with pytest.raises(JobError, match=r"DataUnreadable.*2 brokenRecord; 1 readable"):
        read(tmp_path, source("r.jsonl", "jsonl"))


def test_a_source_that_is_half_broken_is_read(tmp_path: Path) -> None:
    write(tmp_path, "r.jsonl", b'{"text": "one"}\nnot json\n')
    assert read(tmp_path, source("r.jsonl", "jsonl"))[0] == ["one"]


def test_a_root_that_is_not_mounted_is_missing_data(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"DataMissing.*not mounted"):
        read(tmp_path, source("*.txt"))


@pytest.mark.parametrize("root", ["..", ".", "", "a/b"])
def test_a_root_must_be_a_name(tmp_path: Path, root: str) -> None:
    with pytest.raises(JobError, match="PathNotAllowed"):
        read(tmp_path, Source(root=root, path="*", format="text"))


def test_links_that_lead_out_are_refused_and_links_within_are_read(tmp_path: Path) -> None:
    write(tmp_path, "real.txt", b"text")
    corpora = tmp_path / "corpora"
    (corpora / "inside.txt").symlink_to(corpora / "real.txt")
    assert read(tmp_path, source("inside.txt"))[0] == ["text"]
    (tmp_path / "secret").write_text("secret")
    (corpora / "out.txt").symlink_to("../secret")
    with pytest.raises(JobError, match=r"PathNotAllowed.*out.txt is a link that leads out"):
        read(tmp_path, source("*.txt"))


def test_a_linked_folder_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.txt").write_text("secret")
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "folder").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(JobError, match="PathNotAllowed"):
        read(tmp_path, source("folder/*.txt"))


def test_what_a_glob_matches_and_cannot_be_read_is_counted_and_named(tmp_path: Path) -> None:
    write(tmp_path, "data/a.txt", b"text")
    write(tmp_path, "linked/b.txt", b"more")
    corpora = tmp_path / "corpora"
    (corpora / "data" / "b").symlink_to("../linked")
    (corpora / "data" / "c\x1b[31m.txt").symlink_to("gone")
    os.mkfifo(corpora / "data" / "d.txt")
    documents, count = read(tmp_path, source("data/**/*.txt"))
    assert documents == ["text", "more"]
    assert count.dropped == {"notRead": 2}
    assert count.examples == {"notRead": r"corpora/data/c\x1b[31m.txt: is a link to nothing"}


def test_if_nothing_else_matches_the_error_says_what_does(tmp_path: Path) -> None:
    write(tmp_path, "other.md", b"text")
    (tmp_path / "corpora" / "a.txt").symlink_to("gone")
    with pytest.raises(
        JobError, match=r"DataMissing.*no file matches, but corpora/a.txt is a link to nothing\."
    ):
        read(tmp_path, source("*.txt"))


@pytest.mark.parametrize("name", ["x" * 300, "é" * 200])
def test_a_name_that_no_file_can_have_matches_nothing(tmp_path: Path, name: str) -> None:
    write(tmp_path, "a.txt", b"text")
    with pytest.raises(JobError, match="DataMissing"):
        read(tmp_path, source(f"{name}.txt"))


def test_a_mount_that_is_a_link_to_itself_is_not_mounted(tmp_path: Path) -> None:
    (tmp_path / "corpora").symlink_to("corpora")
    with pytest.raises(JobError, match=r"DataMissing.*not mounted"):
        read(tmp_path, source("*.txt"))


def test_a_mount_may_itself_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume" / "a.txt").write_text("text")
    (tmp_path / "corpora").symlink_to(tmp_path / "volume")
    assert read(tmp_path, source("*.txt"))[0] == ["text"]


def test_long_documents_are_cut_at_blank_lines() -> None:
    paragraphs = [f"{number} " + "é" * 4000 + "\n\n" for number in range(30)]
    pieces = list(cut_text(["".join(paragraphs)]))
    assert "".join(pieces) == "".join(paragraphs)
    assert all(len(piece.encode()) <= MAX_DOCUMENT_BYTES for piece in pieces)
    assert all(piece.endswith("\n\n") for piece in pieces)


def test_a_paragraph_that_is_too_long_is_cut_between_characters() -> None:
    text = "é🙂" * 50_000
    pieces = list(cut_text([text]))
    assert "".join(pieces) == text
    assert all(len(piece.encode()) <= MAX_DOCUMENT_BYTES for piece in pieces)
    assert list(cut_text(["short"])) == ["short"]
