import asyncio
import json

import pytest
from aiohttp import web

from moe_operator.cluster import api_client
from moe_operator.cluster.api_client import ApiClient, ApiError
from moe_operator.cluster.resources import JOB, ref_of, resource_of

EXPERT = resource_of("Expert")


class Server:
    """Answers from a list, and remembers what was asked."""

    def __init__(self):
        self.answers = []
        self.asked = []

    async def handle(self, request):
        text = await request.text()
        self.asked.append((request, json.loads(text) if text else None))
        status, body, headers = self.answers.pop(0)
        return web.json_response(body, status=status, headers=headers)

    def answer(self, status=200, body=None, **headers):
        self.answers.append((status, body or {}, headers))


class Connection:
    """A connection without credentials."""

    def __init__(self, server, token):
        self.server = server
        self.token = token

    def authorization(self):
        return self.token()

    def ssl_context(self):
        return False


@pytest.fixture
async def server():
    return Server()


@pytest.fixture
async def connect(server, monkeypatch, unused_port=0):
    monkeypatch.setattr(api_client, "RETRY_SECONDS", (0.0, 0.0))
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    clients = []

    def new(token=lambda: None, **options):
        client = ApiClient(Connection(f"http://127.0.0.1:{port}", token), **options)
        clients.append(client)
        return client

    yield new
    for client in clients:
        await client.close()
    await runner.cleanup()


async def test_a_list_is_read_page_by_page_with_the_selector(server, connect):
    server.answer(
        body={
            "metadata": {"resourceVersion": "7", "continue": "next"},
            "items": [{"metadata": {"name": "a"}}],
        }
    )
    server.answer(body={"metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "b"}}]})
    listing = await connect().list(JOB)
    assert [item["metadata"]["name"] for item in listing.items] == ["a", "b"]
    assert listing.items[0]["kind"] == "Job"
    assert listing.resource_version == 7
    request = server.asked[1][0]
    assert request.query["continue"] == "next"
    assert request.query["labelSelector"] == "app.kubernetes.io/managed-by=moe-operator"


async def test_a_page_is_let_go_before_the_next_is_read(server, connect):
    server.answer(
        body={
            "metadata": {"resourceVersion": "7", "continue": "next"},
            "items": [{"metadata": {"name": "a", "managedFields": [1]}}],
        }
    )
    server.answer(body={"metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "b"}}]})
    asked = []

    def keep(item):
        asked.append(len(server.asked))
        return {"name": item["metadata"]["name"]}

    listing = await connect().list(JOB, keep=keep)
    assert listing.items == [{"name": "a"}, {"name": "b"}]
    assert asked == [1, 2], "what is kept of a page is decided before the next one is asked for"


async def test_an_expired_page_starts_the_list_over(server, connect):
    server.answer(
        body={
            "metadata": {"resourceVersion": "7", "continue": "next"},
            "items": [{"metadata": {"name": "a"}}],
        }
    )
    server.answer(410, {"reason": "Expired", "message": "too old"})
    server.answer(body={"metadata": {"resourceVersion": "8"}, "items": [{"metadata": {"name": "b"}}]})
    listing = await connect().list(EXPERT, "ns")
    assert [item["metadata"]["name"] for item in listing.items] == ["b"]
    assert server.asked[0][0].path == "/apis/moe-operator.dev/v1alpha1/namespaces/ns/experts"


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_request_is_made_again_while_it_may_help(server, connect, status):
    server.answer(status, {"reason": "Busy"}, **{"Retry-After": "0"})
    server.answer(body={"metadata": {"name": "a"}})
    assert (await connect().get(JOB, "ns", "a"))["metadata"]["name"] == "a"
    assert len(server.asked) == 2


async def test_it_gives_up_with_the_servers_words(server, connect):
    for _ in range(3):
        server.answer(503, {"reason": "ServiceUnavailable", "message": "etcd is away"})
    with pytest.raises(ApiError, match="etcd is away"):
        await connect().get(JOB, "ns", "a")


@pytest.mark.parametrize(
    ("reason", "attribute"), [("AlreadyExists", "already_exists"), ("Conflict", "conflict")]
)
async def test_a_refusal_is_not_repeated_and_says_which(server, connect, reason, attribute):
    server.answer(409, {"reason": reason})
    with pytest.raises(ApiError) as caught:
        await connect().create(JOB, {"metadata": {"namespace": "ns", "name": "a"}})
    assert getattr(caught.value, attribute)
    assert len(server.asked) == 1


async def test_a_write_asks_for_permission_each_time(server, connect):
    class Stop(Exception):
        pass

    def no():
        raise Stop

    with pytest.raises(Stop):
        await connect(may_write=no).create(JOB, {"metadata": {"namespace": "ns", "name": "a"}})
    assert server.asked == []
    server.answer(body={"metadata": {}})
    await connect(may_write=no).get(JOB, "ns", "a")


async def test_the_token_is_asked_for_with_every_request(server, connect):
    tokens = iter(["Bearer one", "Bearer two"])
    client = connect(lambda: next(tokens))
    for _ in range(2):
        server.answer(body={})
        await client.get(JOB, "ns", "a")
    assert [request.headers["Authorization"] for request, _ in server.asked] == ["Bearer one", "Bearer two"]


async def test_an_object_is_applied_as_the_one_field_manager(server, connect):
    server.answer(body={})
    await connect().apply(JOB, {"metadata": {"namespace": "ns", "name": "a", "uid": "u"}})
    request, body = server.asked[0]
    assert request.method == "PATCH"
    assert request.headers["Content-Type"] == "application/apply-patch+yaml"
    assert dict(request.query) == {"fieldManager": "moe-operator", "force": "true"}
    assert body["metadata"]["name"] == "a"


async def test_a_status_is_replaced_at_its_version(server, connect):
    server.answer(body={})
    ref = ref_of(
        {"apiVersion": "x", "kind": "Expert", "metadata": {"namespace": "ns", "name": "e", "uid": "u"}}
    )
    await connect().replace_status(EXPERT, ref, {"phase": "X"}, "12")
    request, body = server.asked[0]
    assert request.path.endswith("/experts/e/status")
    assert {"op": "add", "path": "/metadata/resourceVersion", "value": "12"} in body
    assert {"op": "add", "path": "/status", "value": {"phase": "X"}} in body


async def test_a_delete_names_the_uid_and_the_version(server, connect):
    server.answer(body={})
    ref = ref_of({"apiVersion": "x", "kind": "Job", "metadata": {"namespace": "ns", "name": "j", "uid": "u"}})
    await connect().delete(JOB, ref, "12")
    only = {"uid": "u", "resourceVersion": "12"}
    assert server.asked[0][1] == {"propagationPolicy": "Background", "preconditions": only}


async def test_no_patch_is_sent_that_names_no_uid(server, connect):
    manifest = {"metadata": {"namespace": "ns", "name": "j"}}
    client = connect()
    with pytest.raises(ValueError, match=r"metadata\.uid"):
        await client.apply(JOB, manifest)
    with pytest.raises(ValueError, match=r"metadata\.uid"):
        await client.merge(JOB, ref_of({"apiVersion": "x", "kind": "Job", **manifest}), {"spec": {}})
    assert server.asked == []


def test_a_patch_for_an_object_that_was_replaced_is_a_conflict():
    message = 'Service "a" is invalid: metadata.uid: Invalid value: "u": field is immutable'
    assert ApiError(422, "Invalid", message).conflict
    assert not ApiError(422, "Invalid", 'Service "a" is invalid: spec.ports: Required value').conflict


async def test_a_lost_connection_is_an_error_that_callers_know(monkeypatch, connect):
    client = connect()
    client._connection.server = "http://127.0.0.1:1"
    with pytest.raises((OSError, asyncio.TimeoutError)):
        await client.get(JOB, "ns", "a")
