"""Requests to one TLS server: the connection is kept, and what changes something is never sent twice."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from moe_local.api import Endpoint
from moe_local.certificates import ensure_certificates


class Server(ThreadingHTTPServer):
    """Answers every request, and remembers from which connection it came."""

    def __init__(self, certificates: Path, port: int = 0) -> None:
        self.seen: list[tuple[str, int]] = []
        self.connections: list[socket.socket] = []
        super().__init__(("127.0.0.1", port), Answers)
        context = ssl.create_default_context(
            ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "cluster-ca.pem")
        )
        context.load_cert_chain(str(certificates / "apiserver.pem"))
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.hangs_up = False
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self.thread.start()

    def end(self) -> None:
        self.shutdown()
        self.thread.join()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """A client that has hung up is no news."""


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.connections.append(self.connection)

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.command, self.client_address[1]))
        self.close_connection = self.server.hangs_up
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_POST = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster") / "certificates"
    ensure_certificates(folder)
    return folder


@pytest.fixture
def server(certificates: Path) -> Iterator[Server]:
    server = Server(certificates)
    yield server
    server.end()


def endpoint(server: Server, certificates: Path) -> Endpoint:
    pair = certificates / "admin.pem"
    return Endpoint(server.server_port, authority=certificates / "cluster-ca.pem", pair=pair)


def test_reads_share_a_connection_and_every_write_has_its_own(server: Server, certificates: Path):
    asks = endpoint(server, certificates)
    for method in ("GET", "GET", "POST", "POST", "GET"):
        assert asks.request(method, "/") == (200, "{}")
    first, again, one, other, after = (port for _, port in server.seen)
    assert first == again
    assert len({first, one, other}) == 3
    assert after == other


def test_a_connection_that_the_server_has_closed_since_is_opened_again(server: Server, certificates: Path):
    asks = endpoint(server, certificates)
    server.hangs_up = True
    assert [asks.request("GET", "/")[0] for _ in range(3)] == [200] * 3
    assert len({port for _, port in server.seen}) == 3


def test_a_server_that_is_gone_does_not_answer_and_one_that_is_back_does(certificates: Path):
    server = Server(certificates)
    asks = endpoint(server, certificates)
    assert asks.healthy("/")
    server.end()
    assert not asks.healthy("/")
    again = Server(certificates, server.server_port)
    assert asks.healthy("/")
    again.end()


def test_one_answer_is_waited_for_once(server: Server, certificates: Path, monkeypatch: pytest.MonkeyPatch):
    """A server that hangs would otherwise cost its caller twice the time."""
    asks = endpoint(server, certificates)
    assert asks.healthy("/")
    may_answer = threading.Event()
    monkeypatch.setattr(Answers, "do_GET", lambda self: may_answer.wait(30) and self.answer())
    with pytest.raises(TimeoutError):
        asks.request("GET", "/", timeout=0.05)
    may_answer.set()
    assert asks.healthy("/")
