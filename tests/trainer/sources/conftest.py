"""A real S3 server on this machine (SeaweedFS), and a network before it that can be slow or break."""

import io
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import BaseError
from obstore.store import S3Store

from moe_formats.object_stores import ACCESS_KEY_ID, SECRET_ACCESS_KEY, ObjectStoreLocation
from moe_trainer.sources.object_store import RANGE_BYTES, ObjectStoreFiles, Patience

BUCKET = "text"
KEY, SECRET = "reader-key-id", "a-secret-that-nobody-may-see"
#: For stores that do not answer, short enough for a test.
PATIENCE = Patience(connect=1, stall=0.5, request=2, give_up=3)
#: For stores that answer: a busy machine may pause for seconds.
UNHURRIED = Patience(connect=60, stall=60, request=60, give_up=120)


@dataclass(frozen=True)
class Server:
    """An S3 server and one bucket in it."""

    port: int

    def put(self, name: str, data: bytes) -> None:
        """Store an object."""
        obstore.put(self._store, name, data, use_multipart=False)

    def delete(self, name: str) -> None:
        """Remove an object."""
        obstore.delete(self._store, name)

    @property
    def _store(self) -> S3Store:
        return S3Store(
            BUCKET,
            endpoint=f"http://127.0.0.1:{self.port}",
            region="us-east-1",
            access_key_id=KEY,
            secret_access_key=SECRET,
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )


@dataclass
class Network:
    """A port that leads to the server, as long as nothing is wrong with it."""

    target: int
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    #: Bytes of answers after which each connection is cut, in the order of connections; then none is.
    cuts: list[int] = field(default_factory=list)
    #: Nothing arrives any more after so many bytes of answers, all connections together.
    stalls_after: int | None = None
    #: Every connection is closed at once.
    down: bool = False
    connections: int = 0
    #: Bytes of answers so far.
    passed: int = 0
    clients: list[socket.socket] = field(default_factory=list)

    @property
    def port(self) -> int:
        """Where to connect."""
        port: int = self.listener.getsockname()[1]
        return port

    def reconnect(self) -> None:
        """Break every connection that is open."""
        for client in self.clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        self.clients.clear()

    def serve(self) -> None:
        """Accept connections until the listener is closed."""
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self.clients.append(client)
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        if self.down:
            client.close()
            return
        cut = self.cuts.pop(0) if self.cuts else None
        server = socket.create_connection(("127.0.0.1", self.target))
        threading.Thread(target=self._requests, args=(client, server), daemon=True).start()
        self._answers(server, client, cut)
        for end in (client, server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)

    def _answers(self, server: socket.socket, client: socket.socket, cut: int | None) -> None:
        sent = 0
        with suppress(OSError):
            while data := server.recv(65536):
                if self.down or (cut is not None and sent + len(data) > cut):
                    return
                if self.stalls_after is not None and self.passed + len(data) > self.stalls_after:
                    while client.recv(1):  # until the client goes
                        pass
                    return
                client.sendall(data)
                sent += len(data)
                self.passed += len(data)


def _free_ports(count: int) -> list[int]:
    """Return ports that are free, and so are those 10,000 above, which the server takes for gRPC."""
    found: list[int] = []
    while len(found) < count:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            with suppress(OSError, OverflowError), socket.create_server(("127.0.0.1", port + 10_000)):
                found.append(port)
    return found


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server, with an empty bucket."""
    program = Path(sys.executable).parent / "weed"
    assert program.exists(), "SeaweedFS is not installed: make setup"
    folder = tmp_path_factory.mktemp("s3")
    keys = {"accessKey": KEY, "secretKey": SECRET}
    reader = {"name": "reader", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List"]}
    (folder / "identities.json").write_text(json.dumps({"identities": [reader]}))
    master, volume, filer, s3 = _free_ports(4)
    options = {
        **dict.fromkeys(("ip", "ip.bind"), "127.0.0.1"),
        **dict.fromkeys(("filer", "s3"), "true"),
        "dir": folder,
        "s3.config": folder / "identities.json",
        "master.port": master,
        "volume.port": volume,
        "filer.port": filer,
        "s3.port": s3,
        "s3.port.iceberg": 0,
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "server", *(f"-{name}={value}" for name, value in options.items())],
            stdout=log,
            stderr=log,
            env={"HOME": str(folder)},
        )
    made = Server(s3)
    try:
        _wait_until_it_stores(made, process, folder / "log")
        yield made
    finally:
        process.kill()
        process.wait()


def _wait_until_it_stores(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(BaseError):
            server.put("ready", b"yes")
            return
        time.sleep(0.1)
    raise AssertionError(f"the S3 server does not store: {log.read_text()[-2000:]}")


@pytest.fixture
def network(server: Server) -> Iterator[Network]:
    """A way to the server."""
    made = Network(server.port)
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    yield made
    made.listener.shutdown(socket.SHUT_RDWR)
    made.listener.close()
    thread.join()


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    """The folder of a mounted Secret."""
    folder = tmp_path / "credentials" / "lake"
    folder.mkdir(parents=True)
    (folder / ACCESS_KEY_ID).write_text(KEY)
    (folder / SECRET_ACCESS_KEY).write_text(SECRET + "\n")
    return folder


def location(port: int, prefix: str = "") -> ObjectStoreLocation:
    """Where the bucket is."""
    return ObjectStoreLocation(
        endpoint=f"http://127.0.0.1:{port}", bucket=BUCKET, prefix=prefix, secret="lake-reader"
    )


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A prefix of the bucket that no other test uses."""
    return f"tests/{request.node.name.replace('[', '-').replace(']', '')}"


@pytest.fixture
def files(network: Network, credentials: Path, prefix: str) -> ObjectStoreFiles:
    """The store as a Job reads it, through the network."""
    return ObjectStoreFiles("lake", location(network.port, prefix), credentials, UNHURRIED)


def whole(raw: io.RawIOBase) -> bytes:
    """Return what is left of a stream, in as few requests as it takes."""
    return b"".join(iter(lambda: raw.read(RANGE_BYTES), b""))


def jsonl(count: int, words: int = 20) -> bytes:
    """Return records of jsonl that differ."""
    return b"".join(
        json.dumps({"text": f"record {number} " + "word " * words}).encode() + b"\n"
        for number in range(count)
    )
