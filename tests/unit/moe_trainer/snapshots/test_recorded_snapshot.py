"""A snapshot of plain text, recorded: reading may get faster, but may not call the same data another."""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from moe_formats.job_config import ExpertRef, HoldoutRule, SnapshotJob, Source
from moe_formats.job_report import SnapshotHeadline
from moe_trainer import snapshot
from moe_trainer.environment import Environment
from moe_trainer.snapshots.layout import read_documents


def snapshot_of(chats: Sequence[object], tmp_path: Path) -> tuple[SnapshotHeadline, Environment]:
    """Take a snapshot of conversations in one file, and return its headline and where it is."""
    folder = tmp_path / "sources" / "chats"
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    job = SnapshotJob(
        pool_uid="p",
        expert=ExpertRef(name="e", uid="u"),
        sources=(Source(root="chats", path="*.jsonl", format="messages"),),
        holdout=HoldoutRule(fraction=0.25, salt="salt"),
    )
    environment = Environment(store=tmp_path / "store", sources=tmp_path / "sources")
    made = snapshot.run(job, environment)
    return made, environment


def test_the_same_files_make_the_recorded_snapshot(tmp_path: Path) -> None:
    folder = tmp_path / "sources" / "corpora"
    folder.mkdir(parents=True)
    (folder / "short.txt").write_text("A short one.\n")
    (folder / "windows.txt").write_bytes(b"\xef\xbb\xbfwith a mark\r\nand returns\r\n")
    (folder / "long.txt").write_text(
        "".join(f"Paragraph {n} " + "é" * 3000 + "\n" * (1 + n % 4) for n in range(40))
    )
    (folder / "wide.txt").write_text("é🙂x" * 40_000)
    records = [json.dumps({"text": f"record {n} " + "word " * n}) for n in range(30)]
    lines = "\n".join([*records, "", "not json", '{"text": "a\\u2028b"}'])
    (folder / "records.jsonl").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    job = SnapshotJob(
        pool_uid="p",
        expert=ExpertRef(name="e", uid="u"),
        sources=(
            Source(root="corpora", path="*.txt", format="text"),
            Source(root="corpora", path="*.jsonl", format="jsonl"),
        ),
        holdout=HoldoutRule(fraction=0.25, salt="salt"),
    )
    made = snapshot.run(job, Environment(store=tmp_path / "store", sources=tmp_path / "sources"))
    documents = (tmp_path / "store" / made.path / "documents.jsonl").read_bytes()
    assert made.digest == "sha256:aa35d00a8f5cd90705c4e20cf2dcd559873a682262431acc88d4ac94acfa5ec3"
    assert made.anchor.digest == "sha256:92486aded5355b5943b34a4baf15ecd0c5212f89d14d97e0e5f021244c9e33da"
    assert sha256(documents).hexdigest() == "c65860c29915870a5188052d3e6092445f7a3b09b96e22d03ce6a7a5c0072e54"
    assert made.dropped == {"brokenRecord": 1, "duplicate": 2}


def test_a_snapshot_keeps_who_said_what(tmp_path: Path) -> None:
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"What is {n}?"},
                {"role": "assistant", "content": f"{n}."},
            ]
        }
        for n in range(20)
    ]
    made, environment = snapshot_of([*chats, chats[0]], tmp_path)
    assert made.dropped == {"duplicate": 1}
    kept = [
        *read_documents(environment.store / made.path),
        *read_documents(environment.store / made.anchor.path),
    ]
    said = {tuple(document.said()) for document in kept}
    assert said == {(("user", f"What is {n}?"), ("assistant", f"{n}.")) for n in range(20)}
    assert made.digest == "sha256:169ffd11ad65a9c7b408f14d7bcd9941f34968e678ede543cfa7d2784f5fc5c0"
    assert made.anchor.digest == "sha256:9f966c01a0ec5e0180c7eb725978147a3ab6871216abadf48e55e8bc107e6a5a"
    documents = (environment.store / made.path / "documents.jsonl").read_bytes()
    assert sha256(documents).hexdigest() == "545da9b19e42e465ba3b60f712af4559f2d1727a5497ed6de74f486b0f603ece"


def test_a_snapshot_keeps_which_answers_are_not_learnt_and_counts_fields_that_nothing_reads(
    tmp_path: Path,
) -> None:
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"What is {n}?", "name": "Ann"},
                {"role": "assistant", "content": f"{n}!", "weight": 0},
                {"role": "user", "content": "Sure?", "name": None},
                {"role": "assistant", "content": f"Yes, {n}.", "weight": 1, "reasoning_content": "hm"},
            ]
        }
        for n in range(20)
    ]
    made, environment = snapshot_of(chats, tmp_path)
    for path in (made.path, made.anchor.path):
        assert all(document.answers() == [3] for document in read_documents(environment.store / path))
    report = json.loads((environment.store / made.path / "report.json").read_text())
    assert report["sources"][0]["fieldsPassedOver"] == {"name": 20, "reasoning_content": 20}
