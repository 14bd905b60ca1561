"""An object store that does not keep to the protocol: lists without an end, answers without an end, absurd names."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

from moe_formats.failure import JobError, TransientError
from moe_formats.object_stores import ObjectStoreLocation
from moe_trainer import limits
from moe_trainer.sources.files import File
from moe_trainer.sources.object_store import RANGE_BYTES, ObjectStoreFiles, Patience

from .conftest import PATIENCE

#: A test that waits for ever fails.
pytestmark = pytest.mark.timeout(60)

Answer = Callable[[BaseHTTPRequestHandler], None]


class Hostile(ThreadingHTTPServer):
    """A server that answers every request as a test says."""

    daemon_threads = True
    answer: Answer
    requests = 0

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that has gone."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.server, Hostile)
        self.server.requests += 1
        self.server.answer(self)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    server = Hostile(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def files(hostile: Hostile) -> ObjectStoreFiles:
    return files_of(hostile, PATIENCE)


def files_of(hostile: Hostile, patience: Patience) -> ObjectStoreFiles:
    location = ObjectStoreLocation(endpoint=f"http://127.0.0.1:{hostile.server_address[1]}", bucket="text")
    return ObjectStoreFiles("lake", location, None, patience)


def page(names: list[str], *, more: bool, size: int = 1, encoding: str = "") -> Answer:
    """A page of a list that names the next one; always the same page, and always the same next one."""
    entries = "".join(
        f"<Contents><Key>{name}</Key><Size>{size}</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        "<ETag>&quot;1&quot;</ETag></Contents>"
        for name in names
    )
    then = "<NextContinuationToken>again</NextContinuationToken>" if more else ""
    text = (
        f"<ListBucketResult><Name>text</Name><KeyCount>{len(names)}</KeyCount><MaxKeys>1000</MaxKeys>"
        f"<IsTruncated>{str(more).lower()}</IsTruncated>{encoding}{then}{entries}</ListBucketResult>"
    ).encode()

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text)

    return answer


def test_the_server_of_these_tests_is_read_as_long_as_it_behaves(
    hostile: Hostile, files: ObjectStoreFiles
) -> None:
    hostile.answer = page(["b.jsonl", "a.jsonl"], more=False)
    assert [file.path for file in files.matching("*.jsonl")] == ["a.jsonl", "b.jsonl"]


def test_pages_without_objects_and_without_an_end_are_given_up(hostile: Hostile) -> None:
    files = files_of(hostile, replace(PATIENCE, listing=2.0))
    hostile.answer = page([], more=True)
    with pytest.raises(
        JobError, match=r"PathNotAllowed: listing lake/\*.jsonl has not ended after 2 s"
    ) as refused:
        files.matching("*.jsonl")
    assert not refused.value.retryable
    assert hostile.requests > 1


@pytest.mark.parametrize("pattern", ["*.jsonl", "*.none"])
def test_the_same_page_again_and_again_is_given_up(
    hostile: Hostile, files: ObjectStoreFiles, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    monkeypatch.setattr(limits, "OBJECTS_LISTED", 5000)
    monkeypatch.setattr(limits, "OBJECTS_MATCHED", 3000)
    hostile.answer = page([f"{number}.jsonl" for number in range(1000)], more=True)
    with pytest.raises(JobError, match=r"PathNotAllowed: lake/.* objects listed so far") as refused:
        files.matching(pattern)
    assert not refused.value.retryable


def test_an_object_with_a_name_of_a_megabyte_is_refused(hostile: Hostile, files: ObjectStoreFiles) -> None:
    hostile.answer = page(["a/" * 500_000 + "a.jsonl"], more=False)
    with pytest.raises(JobError, match=r"DataUnreadable: .*name has 1000007 bytes.*S3 allows 1024"):
        files.matching("**/*.jsonl")


ODD = {
    "old//x.txt": "an empty part",
    "/lead.txt": "an empty part",
    "a/../b.txt": "a part '.' or '..'",
    "./c.txt": "a part '.' or '..'",
    "..": "a part '.' or '..'",
    "a\nb.txt": "a control character",
    "a\x7fb.txt": "a control character",
    "full/": "an empty part",
}


@pytest.mark.parametrize("name", ODD)
def test_an_object_whose_name_is_no_path_is_named_and_the_others_are_read(
    hostile: Hostile, files: ObjectStoreFiles, name: str
) -> None:
    hostile.answer = page(["a.txt", name, "z.txt"], more=False)
    assert [file.path for file in files.matching("**/*")] == ["a.txt", "z.txt"]
    ((path, what),) = files.left_out
    assert path == f"lake/{name.replace(chr(10), chr(92) + 'n').replace(chr(127), chr(92) + 'x7f')}"
    assert ODD[name] in what
    assert files.matching("*.none") == [] and files.left_out == []


@pytest.mark.parametrize(
    "name",
    ["a b%20+.txt", "a%2Fb.txt", "é漢🙂.txt", "a*?[.txt", "a\\b.txt", "~^{}`|<>&'\"#.txt", "...", " ", "-rf"],
)
def test_an_object_with_a_name_that_only_looks_odd_is_read_by_that_name(
    hostile: Hostile, files: ObjectStoreFiles, name: str
) -> None:
    asked = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(urlsplit(request.path).path)
        if "list-type" in request.path:
            page([escape(name)], more=False)(request)
            return
        request.send_response(206)
        for header, value in (("Content-Range", "bytes 0-0/1"), ("Content-Length", "1"), ("ETag", '"1"')):
            request.send_header(header, value)
        request.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        request.end_headers()
        request.wfile.write(b"x")

    hostile.answer = answer
    (file,) = files.matching("**/*")
    with files.open(file) as raw:
        assert raw.read(1) == b"x"
    assert file.path == name == unquote(asked[-1]).removeprefix("/text/")
    assert files.left_out == []


def test_names_that_xml_cannot_hold_are_asked_for_escaped(hostile: Hostile, files: ObjectStoreFiles) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        if "encoding-type=url" not in request.path:
            return page(["a.txt", "b&#x1;.txt"], more=False)(request)
        names = ["a.txt", "b%01.txt", "c%00.txt", "d+e%2B.txt"]
        return page(names, more=False, encoding="<EncodingType>url</EncodingType>")(request)

    hostile.answer = answer
    assert [file.path for file in files.matching("*")] == ["a.txt", "d e+.txt"]
    assert [path for path, _ in files.left_out] == [r"lake/b\x01.txt", r"lake/c\x00.txt"]


def test_a_name_that_is_not_utf_8_is_named(hostile: Hostile, files: ObjectStoreFiles) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        if "encoding-type=url" in request.path:
            names = ["a%FF.txt", "b.txt"]
            page(names, more=False, encoding="<EncodingType>url</EncodingType>")(request)
            return
        text = b"<ListBucketResult><Contents><Key>a\xff.txt</Key></Contents></ListBucketResult>"
        request.send_response(200)
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text)

    hostile.answer = answer
    assert [file.path for file in files.matching("*")] == ["b.txt"]
    ((path, what),) = files.left_out
    assert path == r"lake/a\udcff.txt" and "bytes that are not UTF-8" in what


def test_a_list_whose_headers_trickle_is_given_up(hostile: Hostile, files: ObjectStoreFiles) -> None:
    def trickle(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        with suppress(OSError):
            for _ in range(200):
                request.wfile.write(b"x")
                time.sleep(0.1)

    hostile.answer = trickle
    with pytest.raises(TransientError, match=r"StoreUnreachable: .*takes more than 2 s"):
        files.matching("*")


def test_objects_that_stand_for_folders_are_no_files(hostile: Hostile, files: ObjectStoreFiles) -> None:
    hostile.answer = page(["data/", "data/a.txt", "data/more/"], more=False, size=0)
    assert [file.path for file in files.matching("**/*")] == ["data/a.txt"]
    assert files.left_out == []


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html>moved</html>",
        b"<ListBucketResult>",
        b'<!DOCTYPE a [<!ENTITY b "cccc">]><ListBucketResult><Contents><Key>&b;</Key></Contents></ListBucketResult>',
        b"<ListBucketResult><Contents><Key>a</Key><Size>x</Size></Contents></ListBucketResult>",
        b"\xff\xfe\x00",
    ],
)
def test_what_is_no_list_of_objects_is_given_up(
    hostile: Hostile, files: ObjectStoreFiles, text: bytes
) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text)

    hostile.answer = answer
    with pytest.raises(TransientError, match=r"StoreUnreachable: .* it answers with no list of objects"):
        files.matching("*")


def test_a_list_is_asked_for_nowhere_else(hostile: Hostile, files: ObjectStoreFiles) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(307)
        request.send_header("Location", f"http://127.0.0.1:{hostile.server_address[1]}/elsewhere")
        request.send_header("Content-Length", "0")
        request.end_headers()

    hostile.answer = answer
    with pytest.raises(TransientError, match="status 307"):
        files.matching("*")
    assert hostile.requests == 1


def test_a_glob_that_is_too_long_is_refused_before_anything_is_asked(
    hostile: Hostile, files: ObjectStoreFiles
) -> None:
    with pytest.raises(JobError, match=r"PathNotAllowed: .* 1024 characters"):
        files.matching("**/" * 400 + "*.jsonl")
    assert hostile.requests == 0


def test_an_answer_without_an_end_is_not_taken_into_memory(hostile: Hostile, files: ObjectStoreFiles) -> None:
    sent = 0

    def endless(request: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        request.send_response(206)
        request.send_header("Content-Range", "bytes 0-99/100")
        request.send_header("ETag", '"1"')
        request.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        while True:
            request.wfile.write(b"100000\r\n" + bytes(0x100000) + b"\r\n")
            sent += 0x100000

    hostile.answer = endless
    with (
        files.open(File("lake", "a.txt", 100)) as raw,
        pytest.raises(JobError, match=r"DataChanged|StoreUnreachable"),
    ):
        raw.read(100)
    assert sent < 16 * RANGE_BYTES


def test_a_store_that_trickles_is_given_up(hostile: Hostile, files: ObjectStoreFiles) -> None:
    def trickle(request: BaseHTTPRequestHandler) -> None:
        request.send_response(206)
        request.send_header("Content-Range", "bytes 0-99/100")
        request.send_header("Content-Length", "100")
        request.send_header("ETag", '"1"')
        request.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        request.end_headers()
        for _ in range(100):
            request.wfile.write(b"x")
            time.sleep(0.2)

    hostile.answer = trickle
    with (
        files.open(File("lake", "a.txt", 100)) as raw,
        pytest.raises(TransientError, match="StoreUnreachable"),
    ):
        raw.read(100)
