"""Sources in an object store: a real S3 server, wrong keys, and a network that is slow or breaks."""

import gzip
import io
import os
import subprocess
import sys
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from moe_formats.failure import JobError, TransientError
from moe_formats.job_config import ExpertRef, HoldoutRule, SnapshotJob, Source
from moe_formats.object_stores import ACCESS_KEY_ID, SECRET_ACCESS_KEY, write_object_stores
from moe_trainer import snapshot
from moe_trainer.environment import Environment
from moe_trainer.sources.documents import SourceCount, read_source
from moe_trainer.sources.files import LocalFiles
from moe_trainer.sources.object_store import RANGE_BYTES, ObjectStoreFiles

from .conftest import BUCKET, KEY, PATIENCE, SECRET, Network, Server, jsonl, location, whole


def source(path: str, format: str = "text") -> Source:
    return Source.model_validate({"root": "lake", "path": path, "format": format})


def texts(files: ObjectStoreFiles, path: str) -> list[str]:
    count = SourceCount(source(path))
    found = [content.text for content in read_source(files, count)]
    count.check()
    return found


def job(path: str) -> SnapshotJob:
    return SnapshotJob(
        pool_uid="pool-uid",
        expert=ExpertRef(name="prose", uid="prose-uid"),
        sources=(source(path),),
        holdout=HoldoutRule(fraction=0.25, salt="salt", min_clusters=2),
    )


NAMES = [
    "b.jsonl",
    "a.jsonl",
    ".hidden.jsonl",
    "x/c.jsonl",
    "x/y/d.jsonl",
    "x/y/e.txt",
    "xy/a.jsonl",
    "x-y/a.jsonl",
]


@pytest.mark.parametrize(
    "pattern",
    [
        "*.jsonl",
        "**/*.jsonl",
        "x/*",
        "x/**/*.jsonl",
        "x*/a.jsonl",
        "[ab].jsonl",
        "[!a]*.jsonl",
        "?/y/*",
        "x/y/e.txt",
    ],
)
def test_a_glob_means_the_same_as_on_disk(
    server: Server, files: ObjectStoreFiles, prefix: str, pattern: str, tmp_path: Path
) -> None:
    for name in NAMES:
        server.put(f"{prefix}/{name}", b"x")
        (tmp_path / "lake" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lake" / name).write_text("x")
    server.put(f"{prefix}-beside/a.jsonl", b"x")
    on_disk = [file.path for file in LocalFiles("lake", tmp_path / "lake").matching(pattern)]
    assert [file.path for file in files.matching(pattern)] == on_disk
    assert on_disk


def test_a_snapshot_is_the_same_from_the_store_as_from_disk(
    server: Server, credentials: Path, prefix: str, tmp_path: Path
) -> None:
    data = jsonl(40)
    server.put(f"{prefix}/r.jsonl", data)
    (tmp_path / "sources" / "lake").mkdir(parents=True)
    (tmp_path / "sources" / "lake" / "r.jsonl").write_bytes(data)
    on_disk = Environment(store=tmp_path / "one", sources=tmp_path / "sources")
    in_store = Environment(
        store=tmp_path / "other",
        object_stores={"lake": location(server.port, prefix)},
        credentials=credentials.parent,
    )
    made = snapshot.run(job("*.jsonl"), on_disk)
    assert made.documents
    assert snapshot.run(job("*.jsonl"), in_store).digest == made.digest


def test_compressed_and_columnar_objects_are_read(
    server: Server, files: ObjectStoreFiles, prefix: str
) -> None:
    server.put(f"{prefix}/a.jsonl.gz", gzip.compress(jsonl(3)))
    table = io.BytesIO()
    parquet.write_table(
        pyarrow.table({"n": list(range(300)), "text": [f"row {n}" for n in range(300)]}), table
    )
    server.put(f"{prefix}/b.parquet", table.getvalue())
    assert [text[:8] for text in texts(files, "*.gz")] == ["record 0", "record 1", "record 2"]
    assert texts(files, "*.parquet") == [f"row {n}" for n in range(300)]


def test_a_wrong_key_is_told_with_the_store_and_the_secrets_keys_and_without_their_values(
    network: Network, credentials: Path
) -> None:
    (credentials / SECRET_ACCESS_KEY).write_text("another-secret")
    files = ObjectStoreFiles("lake", location(network.port), credentials, PATIENCE)
    with pytest.raises(JobError, match="StoreDenied") as refused:
        files.matching("*.jsonl")
    message = refused.value.message
    assert not refused.value.retryable
    assert "SignatureDoesNotMatch" in message
    for word in ("'lake'", "'lake-reader'", ACCESS_KEY_ID, SECRET_ACCESS_KEY):
        assert word in message
    for value in (KEY, SECRET, "another-secret"):
        assert value not in message


def test_keys_are_read_through_the_links_of_a_mounted_secret(
    server: Server, network: Network, credentials: Path, prefix: str
) -> None:
    server.put(f"{prefix}/a.jsonl", jsonl(1))
    (credentials / "..2026").mkdir()
    (credentials / "..data").symlink_to("..2026")
    for name in (ACCESS_KEY_ID, SECRET_ACCESS_KEY):
        (credentials / name).rename(credentials / "..2026" / name)
        (credentials / name).symlink_to(f"..data/{name}")
    files = ObjectStoreFiles("lake", location(network.port, prefix), credentials, PATIENCE)
    assert [file.path for file in files.matching("*")] == ["a.jsonl"]


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("kind", "said"),
    [("pipe", "is a named pipe"), ("link out", "is a link that leads out"), ("too large", "has more than")],
)
def test_a_key_that_is_no_file_of_its_mount_is_refused(
    credentials: Path, tmp_path: Path, kind: str, said: str
) -> None:
    key = credentials / SECRET_ACCESS_KEY
    outside = key.rename(tmp_path / "outside")
    match kind:
        case "pipe":
            os.mkfifo(key)
        case "link out":
            key.symlink_to(outside)
        case "too large":
            key.write_bytes(b"x" * (5 << 20))
    with pytest.raises(JobError, match=rf"PathNotAllowed: .*{SECRET_ACCESS_KEY} {said}"):
        ObjectStoreFiles("lake", location(1), credentials, PATIENCE)


@pytest.mark.parametrize(("secret", "code"), [(SECRET, 0), ("another-secret", 64)])
def test_the_command_takes_stores_from_its_environment_and_says_no_secret(
    server: Server, credentials: Path, prefix: str, tmp_path: Path, secret: str, code: int
) -> None:
    server.put(f"{prefix}/r.jsonl", jsonl(40))
    (credentials / SECRET_ACCESS_KEY).write_text(secret)
    variables = {
        "MOE_JOB_CONFIG": job("*.jsonl").to_json(),
        "MOE_STORE": str(tmp_path / "store"),
        "MOE_OBJECT_STORES": write_object_stores({"lake": location(server.port, prefix)}),
        "MOE_CREDENTIALS": str(credentials.parent),
        "MOE_TERMINATION_LOG": str(tmp_path / "termination"),
    }
    command = [sys.executable, "-m", "moe_trainer.main", "snapshot"]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    said = done.stdout + done.stderr + (tmp_path / "termination").read_text()
    assert ("StoreDenied" in said) == (code == 64)
    assert secret not in said and KEY not in said


@pytest.mark.parametrize("missing", [ACCESS_KEY_ID, SECRET_ACCESS_KEY])
def test_a_secret_without_a_key_is_told_before_anything_is_asked(
    network: Network, credentials: Path, missing: str
) -> None:
    (credentials / missing).unlink()
    with pytest.raises(JobError, match=f"StoreDenied.*no key {missing}"):
        ObjectStoreFiles("lake", location(network.port), credentials, PATIENCE)
    assert network.connections == 0


def test_a_bucket_that_does_not_exist_is_missing_data(network: Network, credentials: Path) -> None:
    nowhere = location(network.port).model_copy(update={"bucket": "nowhere"})
    files = ObjectStoreFiles("lake", nowhere, credentials, PATIENCE)
    with pytest.raises(JobError, match=r"DataMissing.*'nowhere'"):
        files.matching("*.jsonl")


def test_a_connection_that_breaks_costs_one_range_and_loses_nothing(
    server: Server, files: ObjectStoreFiles, network: Network, prefix: str
) -> None:
    data = jsonl(100_000)
    assert len(data) > 2 * RANGE_BYTES
    server.put(f"{prefix}/r.jsonl", data)
    (file,) = files.matching("*.jsonl")
    network.cuts = [1_000_000, 100, 3_000_000]
    network.reconnect()
    with files.open(file) as raw:
        assert whole(raw) == data
    assert not network.cuts
    assert network.passed < len(data) + 3 * RANGE_BYTES + 100_000


def test_a_store_from_which_nothing_arrives_is_given_up(
    server: Server, network: Network, credentials: Path, prefix: str
) -> None:
    server.put(f"{prefix}/r.jsonl", jsonl(100_000))
    files = ObjectStoreFiles("lake", location(network.port, prefix), credentials, PATIENCE)
    (file,) = files.matching("*.jsonl")
    network.stalls_after = network.passed + 1_000_000
    with (
        pytest.raises(TransientError, match=r"StoreUnreachable.*reading lake/r.jsonl at byte 0"),
        files.open(file) as raw,
    ):
        raw.read(RANGE_BYTES)


def test_a_store_that_vanishes_leaves_nothing_behind(
    server: Server,
    network: Network,
    credentials: Path,
    prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.put(f"{prefix}/r.jsonl", jsonl(100_000, words=25))
    environment = Environment(
        store=tmp_path / "store",
        object_stores={"lake": location(network.port, prefix)},
        credentials=credentials.parent,
    )
    monkeypatch.setattr("moe_trainer.sources.object_store.PATIENCE", PATIENCE)
    files = ObjectStoreFiles("lake", location(network.port, prefix), credentials, PATIENCE)
    reading = read_source(files, SourceCount(source("*.jsonl")))
    next(reading)
    network.down = True
    network.reconnect()
    with pytest.raises(TransientError, match="StoreUnreachable"):
        for _ in reading:
            pass
    with pytest.raises(TransientError, match="StoreUnreachable"):
        snapshot.run(job("*.jsonl"), environment)
    assert not list((tmp_path / "store").rglob("*"))


def test_an_object_that_is_replaced_while_it_is_read_is_told(
    server: Server, files: ObjectStoreFiles, prefix: str
) -> None:
    server.put(f"{prefix}/r.jsonl", jsonl(50))
    (file,) = files.matching("*.jsonl")
    with files.open(file) as raw, pytest.raises(TransientError, match=r"DataChanged: lake/r.jsonl changed"):
        assert raw.read(10)
        server.put(f"{prefix}/r.jsonl", jsonl(60))
        raw.read(10)


def test_an_object_that_is_removed_while_it_is_read_is_told(
    server: Server, files: ObjectStoreFiles, prefix: str
) -> None:
    server.put(f"{prefix}/r.jsonl", jsonl(50))
    (file,) = files.matching("*.jsonl")
    server.delete(f"{prefix}/r.jsonl")
    with files.open(file) as raw, pytest.raises(TransientError, match=r"DataChanged: lake/r.jsonl changed"):
        raw.read(10)


def test_a_prefix_is_a_folder_and_not_the_beginning_of_a_name(
    server: Server, files: ObjectStoreFiles, prefix: str
) -> None:
    server.put(f"{prefix}2/a.jsonl", b"x")
    assert files.matching("*.jsonl") == []
    assert BUCKET not in str(files.matching("**/*"))
