"""`moectl route` at a gateway that asks for keys: where the key comes from, and how it is sent."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from moe_client.cli.main import app
from moe_client.errors import ClientError

ROUTE = {
    "expert": "code",
    "strategy": "Posterior",
    "confidence": 0.9,
    "probabilities": {},
    "why": "it is code",
}


class Gateway(BaseHTTPRequestHandler):
    """Knows one key, and only in the header that an API server passes on."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        known = self.headers.get("x-api-key") == "sesame" and "Authorization" not in self.headers
        refused = {"error": {"message": "this API key is not known"}}
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(json.dumps(ROUTE if known else refused).encode())

    def log_message(self, *_: Any) -> None:
        """Write nothing."""


class Cluster:
    """A cluster whose gateway is at an address: of this machine, or one that only the API server reaches."""

    namespace = "default"
    address = "127.0.0.1"
    port = 0
    proxied: Any = None

    def __init__(self, **_: Any) -> None:
        pass

    def gateway_pods(self, _: str) -> list[Any]:
        status = {"conditions": [{"type": "Ready", "status": "True"}], "podIP": self.address}
        return [{"status": status, "spec": {"containers": [{"ports": [{"containerPort": self.port}]}]}}]

    def call(self, method: str, path: str, *, body: Any, headers: Any) -> Any:
        Cluster.proxied = (method, path, headers)
        return ROUTE


@pytest.fixture(autouse=True)
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Cluster]]:
    server = HTTPServer(("127.0.0.1", 0), Gateway)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("moe_client.cli.route.Cluster", Cluster)
    monkeypatch.setattr(Cluster, "port", server.server_port)
    monkeypatch.delenv("MOE_API_KEY", raising=False)
    yield Cluster
    server.shutdown()
    server.server_close()


def route(*options: str) -> str:
    done = CliRunner().invoke(app, ["route", "pool", "x = 1", *options])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOE_API_KEY", "sesame\n")
    assert "code by Posterior" in route()


def test_the_key_comes_from_a_file_as_gateways_read_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MOE_API_KEY", "another")
    (tmp_path / "key").write_text("# mine\nsesame  # of today\n")
    assert "code by Posterior" in route("--api-key-file", str(tmp_path / "key"))


def test_an_api_server_passes_the_key_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cluster, "address", "10.0.0.7")
    monkeypatch.setenv("MOE_API_KEY", "sesame")
    route()
    path = "/api/v1/namespaces/default/services/pool-gateway:http/proxy/v1/route"
    assert Cluster.proxied == ("POST", path, {"x-api-key": "sesame"})


def test_a_gateway_that_wants_a_key_is_told_how_to_give_one() -> None:
    with pytest.raises(
        ClientError, match=r"this API key is not known.*Set MOE_API_KEY, or give --api-key-file"
    ):
        route()


@pytest.mark.parametrize("text", ["", "# nothing\n", "kéy", "two words"])
def test_what_is_no_key_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(ClientError, match="API key") as raised:
        route("--api-key-file", str(tmp_path / "key"))
    assert not text or text not in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match=r"--api-key-file: .*missing"):
        route("--api-key-file", str(tmp_path / "missing"))
