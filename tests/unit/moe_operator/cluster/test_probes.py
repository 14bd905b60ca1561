import asyncio
import json

import pytest
from aiohttp import web

from moe_formats.format import digest_of
from moe_operator.cluster.gather import Answers
from moe_operator.cluster.probes import LONGEST_ANSWER, Probes

POLICY = '{"pool":"p"}'


@pytest.fixture
async def pod_port():
    """A pod that answers `/progress` and `/policy` with what the test put into `answers`."""
    answers = {}

    async def handle(request):
        answer = answers[request.path]
        if isinstance(answer, web.StreamResponse):
            return answer
        return web.Response(text=answer if isinstance(answer, str) else json.dumps(answer))

    app = web.Application()
    app.router.add_get("/{tail:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield str(site._server.sockets[0].getsockname()[1]), answers
    await runner.cleanup()


@pytest.fixture
async def asking(cache):
    heard = []
    answers = Answers()
    probes = Probes(cache, answers, heard.append)
    yield probes, answers, heard
    await probes.close()


def put_training(cache, make, port, *, owner="J", finished=False):
    template = {"spec": {"containers": [{"env": [{"name": "MOE_PROGRESS_PORT", "value": port}]}]}}
    status = {"conditions": [{"type": "Complete", "status": "True"}]} if finished else {}
    version = 2 if finished else 1
    spec = {"suspend": False, "template": template}
    cache.put(
        make(
            "Job", "j", uid="J", role="train", pool="p", expert="e", spec=spec, status=status, version=version
        )
    )
    cache.put(
        make("Pod", "x", owner=owner, pool="p", expert="e", status={"phase": "Running", "podIP": "127.0.0.1"})
    )


async def test_progress_is_read_and_told_once_per_change(cache, make, asking, pod_port):
    probes, answers, heard = asking
    port, said = pod_port
    said["/progress"] = {"step": 3, "maxSteps": 10}
    put_training(cache, make, port)
    await probes.ask_progress()
    await probes.ask_progress()
    assert answers.progress["J"].step == 3
    assert [item["metadata"]["name"] for item in heard] == ["j"]
    put_training(cache, make, port, finished=True)
    await probes.ask_progress()
    assert answers.progress == {}


HUGE = '{"step": 1, "maxSteps": 2, "x": "%s"}' % ("a" * LONGEST_ANSWER)


@pytest.mark.parametrize("answer", ["no json", '{"step": "many"}', HUGE])
async def test_a_bad_or_huge_answer_is_ignored(cache, make, asking, pod_port, answer):
    probes, answers, _ = asking
    port, said = pod_port
    said["/progress"] = answer
    put_training(cache, make, port)
    await probes.ask_progress()
    assert answers.progress == {}


async def test_a_redirect_is_not_followed(cache, make, asking, pod_port):
    probes, answers, _ = asking
    port, said = pod_port
    said["/progress"] = web.Response(status=302, headers={"Location": "/elsewhere"})
    said["/elsewhere"] = {"step": 3, "maxSteps": 10}
    put_training(cache, make, port)
    await probes.ask_progress()
    assert answers.progress == {}


async def test_a_pod_that_our_job_does_not_control_is_not_asked(cache, make, asking, pod_port):
    probes, answers, _ = asking
    port, said = pod_port
    said["/progress"] = {"step": 3, "maxSteps": 10}
    put_training(cache, make, port, owner="somebody")
    await probes.ask_progress()
    assert answers.progress == {}


async def test_a_pod_that_does_not_answer_is_no_error(cache, make, asking):
    probes, answers, _ = asking
    put_training(cache, make, "1")
    await asyncio.wait_for(probes.ask_progress(), 5)
    assert answers.progress == {}


def put_gateway(cache, make, port, expert):
    template = {"spec": {"containers": [{"env": [{"name": "METRICS_PORT", "value": port}]}]}}
    marks = {"pool": "p", "role": "gateway"}
    cache.put(expert("e"))
    cache.put(make("ConfigMap", "p-routing", data={"policy.json": POLICY}, **marks))
    cache.put(make("Deployment", "p-gateway", spec={"template": template}, **marks))
    status = {"phase": "Running", "podIP": "127.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
    cache.put(make("Pod", "g", uid="G", status=status, **marks))


async def test_a_gateway_is_asked_until_it_serves_by_the_newest_policy(cache, make, asking, pod_port, expert):
    probes, answers, heard = asking
    port, said = pod_port
    put_gateway(cache, make, port, expert)
    said["/policy"] = {"digest": None, "error": "not read yet"}
    await probes.ask_policies()
    assert answers.policies.get("G") is None
    said["/policy"] = {"digest": digest_of(POLICY)}
    await probes.ask_policies()
    assert answers.policies == {"G": digest_of(POLICY)}
    assert {item["metadata"]["uid"] for item in heard} == {"G"}
    del said["/policy"]  # Nobody asks any more: an answer would be an error.
    heard.clear()
    await probes.ask_policies()
    assert heard == []
    cache.put(
        make("ConfigMap", "p-routing", data={"policy.json": "new"}, version=2, pool="p", role="gateway")
    )
    said["/policy"] = {"digest": digest_of("new")}
    await probes.ask_policies()
    assert answers.policies == {"G": digest_of("new")}


async def test_a_gateway_that_went_is_forgotten(cache, make, asking, pod_port, expert):
    probes, answers, _ = asking
    port, said = pod_port
    put_gateway(cache, make, port, expert)
    said["/policy"] = {"digest": digest_of(POLICY)}
    await probes.ask_policies()
    cache.remove("Pod", "ns", "g", "G")
    await probes.ask_policies()
    assert answers.policies == {}


async def test_a_gateway_whose_pool_label_was_taken_away_is_not_asked(cache, make, asking):
    probes, answers, _ = asking
    status = {"phase": "Running", "podIP": "127.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
    cache.put(make("Pod", "g", uid="G", status=status, role="gateway"))
    await probes.ask_policies()
    assert answers.policies == {}
