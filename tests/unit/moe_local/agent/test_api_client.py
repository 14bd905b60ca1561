from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from moe_local.agent import api_client
from moe_local.agent.api_client import APIClient, ConflictError, Event, NotFoundError, read_kubeconfig


def item(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


class Cluster:
    """A collection that answers each request as the test has laid down, and keeps what it was asked."""

    def __init__(self) -> None:
        self.lists: list[dict[str, Any]] = []
        self.watches: list[list[dict[str, Any]]] = []
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            self.asked.append("list")
            return web.json_response(self.lists.pop(0))
        self.asked.append(request.query["resourceVersion"])
        lines = [json.dumps(change) for change in self.watches.pop(0)]
        return web.Response(text="\n".join(lines) + "\n")


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
async def client(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[APIClient]:
    monkeypatch.setattr(api_client, "RECONNECT_SECONDS", 0.0)
    application = web.Application()
    application.router.add_get("/things", cluster.answer)
    async with TestServer(application) as server, aiohttp.ClientSession(server.make_url("/")) as session:
        client = APIClient.__new__(APIClient)
        client._session = session
        yield client


async def take(client: APIClient, count: int) -> list[Event]:
    found = []
    async for event in client.watch("/things"):
        found.append(event)
        if len(found) == count:
            break
    return found


async def test_a_watch_goes_on_where_it_was_cut_off(cluster: Cluster, client: APIClient) -> None:
    cluster.lists = [{"metadata": {"resourceVersion": "5"}, "items": [item("a", 4)]}]
    cluster.watches = [
        [{"type": "ADDED", "object": item("b", 6)}, {"type": "BOOKMARK", "object": item("", 9)}],
        [{"type": "DELETED", "object": item("a", 10)}],
    ]
    events = await take(client, 3)
    assert [(e.kind, [o["metadata"]["name"] for o in e.objects]) for e in events] == [
        ("listed", ["a"]),
        ("changed", ["b"]),
        ("deleted", ["a"]),
    ]
    assert cluster.asked == ["list", "5", "9"]


async def test_a_version_that_is_too_old_lists_again(cluster: Cluster, client: APIClient) -> None:
    cluster.lists = [
        {"metadata": {"resourceVersion": "5"}, "items": []},
        {"metadata": {"resourceVersion": "50"}, "items": [item("new", 44)]},
    ]
    gone = {"type": "ERROR", "object": {"code": 410, "message": "too old resource version"}}
    cluster.watches = [[gone], [{"type": "MODIFIED", "object": item("new", 51)}]]
    events = await take(client, 3)
    assert [e.kind for e in events] == ["listed", "listed", "changed"]
    assert cluster.asked == ["list", "5", "list", "50"]


async def test_a_line_longer_than_a_buffer_is_one_change(cluster: Cluster, client: APIClient) -> None:
    cluster.lists = [{"metadata": {"resourceVersion": "5"}, "items": []}]
    big = item("big", 6) | {"data": "x" * 1_000_000}
    cluster.watches = [[{"type": "ADDED", "object": big}]]
    events = await take(client, 2)
    assert events[1].objects == [big]


def test_errors_are_told_apart_by_what_can_be_done() -> None:
    assert isinstance(api_client._error(404, '{"message": "no such pod"}'), NotFoundError)
    assert isinstance(api_client._error(409, '{"message": "exists"}'), ConflictError)
    assert str(api_client._error(500, "<html>")) == "<html>"


def test_a_kubeconfig_without_certificate_files_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(
        "current-context: c\n"
        "contexts: [{name: c, context: {cluster: k, user: u}}]\n"
        "clusters: [{name: k, cluster: {server: 'https://127.0.0.1:1'}}]\n"
        "users: [{name: u, user: {token: t}}]\n"
    )
    with pytest.raises(ValueError, match="'certificate-authority' is not there"):
        read_kubeconfig(path)
