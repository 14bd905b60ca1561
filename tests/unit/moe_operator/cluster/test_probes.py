import asyncio
import json

import aiohttp
import pytest
from aiohttp import web

from moe_formats.format import digest_of
from moe_operator.cluster.asking import LONGEST_ANSWER, PodClient
from moe_operator.cluster.gather import Answers
from moe_operator.cluster.probes import Ports, Probes

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
    yield site._server.sockets[0].getsockname()[1], answers
    await runner.cleanup()


@pytest.fixture
async def asking(cache, expert, pod_port):
    """Probes that ask at the pod's port."""
    heard = []
    answers = Answers()
    cache.put(expert("e", uid="E"))
    pods = PodClient()
    yield Probes(cache, answers, pods, heard.append, ports=Ports(pod_port[0], pod_port[0])), answers, heard
    await pods.close()


def training_pod(port="8090"):
    """The part of a training Job's pod that names the port for progress."""
    return {"spec": {"containers": [{"name": "main", "env": [{"name": "MOE_PROGRESS_PORT", "value": port}]}]}}


def put_training(cache, make, job_pod, *, owner=None, finished=False, expert="E", **pod):
    status = {"conditions": [{"type": "Complete", "status": "True"}]} if finished else {}
    version = 2 if finished else 1
    marks = {"role": "train", "pool": "p", "expert": "e", "owner": expert}
    spec = {"suspend": False, "template": training_pod()}
    job = make("Job", "j", uid="J", spec=spec, status=status, version=version, **marks)
    cache.put(job)
    given = {"status": {"phase": "Running", "podIP": "127.0.0.1"}, "owner": owner or job, **pod}
    cache.put(job_pod(job, pool="p", expert="e", **given))


async def test_progress_is_read_and_told_once_per_change(cache, make, job_pod, asking, pod_port):
    probes, answers, heard = asking
    _, said = pod_port
    said["/progress"] = {"step": 3, "maxSteps": 10}
    put_training(cache, make, job_pod)
    await probes.ask_progress()
    await probes.ask_progress()
    assert answers.progress["J"].step == 3
    assert [item["metadata"]["name"] for item in heard] == ["j"]
    put_training(cache, make, job_pod, finished=True)
    await probes.ask_progress()
    assert answers.progress == {}


HUGE = '{"step": 1, "maxSteps": 2, "x": "%s"}' % ("a" * LONGEST_ANSWER)


@pytest.mark.parametrize("answer", ["no json", '{"step": "many"}', HUGE])
async def test_a_bad_or_huge_answer_is_ignored(cache, make, job_pod, asking, pod_port, answer):
    probes, answers, _ = asking
    _, said = pod_port
    said["/progress"] = answer
    put_training(cache, make, job_pod)
    await probes.ask_progress()
    assert answers.progress == {}


async def test_a_redirect_is_not_followed(cache, make, job_pod, asking, pod_port):
    probes, answers, _ = asking
    _, said = pod_port
    said["/progress"] = web.Response(status=302, headers={"Location": "/elsewhere"})
    said["/elsewhere"] = {"step": 3, "maxSteps": 10}
    put_training(cache, make, job_pod)
    await probes.ask_progress()
    assert answers.progress == {}


async def test_a_pod_that_our_job_does_not_control_is_not_asked(cache, make, job_pod, asking, pod_port):
    probes, answers, _ = asking
    _, said = pod_port
    said["/progress"] = {"step": 3, "maxSteps": 10}
    put_training(cache, make, job_pod, owner="somebody")
    await probes.ask_progress()
    assert answers.progress == {}


async def test_a_pod_that_does_not_answer_is_no_error(cache, make, job_pod, asking):
    probes, answers, _ = asking
    put_training(cache, make, job_pod, status={"phase": "Running", "podIP": "127.0.0.2"})
    await asyncio.wait_for(probes.ask_progress(), 5)
    assert answers.progress == {}


READY = {"phase": "Running", "podIP": "127.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}


def put_gateway(make, deploy, cache, pool, *, version=1, policy=POLICY, **pod):
    owner, marks = pool("p"), {"pool": "p", "role": "gateway"}
    cache.put(owner)
    data = {"policy.json": policy}
    cache.put(make("ConfigMap", "p-routing", data=data, owner=owner, version=version, **marks))
    given = {"uid": "G", "status": READY, **pod}
    container = {"name": "main", "env": [{"name": "PORT", "value": "8080"}]}
    spec = {"template": {"spec": {"containers": [container]}}}
    return deploy(make("Deployment", "p-gateway", owner=owner, spec=spec, **marks), "g", **given, **marks)


async def test_a_gateway_is_asked_until_it_serves_by_the_newest_policy(
    cache, make, asking, pod_port, deploy, pool
):
    probes, answers, heard = asking
    _, said = pod_port
    put_gateway(make, deploy, cache, pool)
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
    put_gateway(make, deploy, cache, pool, version=2, policy="new")
    said["/policy"] = {"digest": digest_of("new")}
    await probes.ask_policies()
    assert answers.policies == {"G": digest_of("new")}


async def test_a_gateway_that_went_is_forgotten(cache, make, asking, pod_port, deploy, pool):
    probes, answers, _ = asking
    _, said = pod_port
    put_gateway(make, deploy, cache, pool)
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


@pytest.fixture
def forbidden(monkeypatch):
    """Every request that is sent, which none should be."""
    sent = []

    def get(_, url, **__):
        sent.append(str(url))
        raise aiohttp.ClientConnectionError

    monkeypatch.setattr(aiohttp.ClientSession, "get", get)
    return sent


async def test_the_port_that_a_manifest_names_is_not_asked(cache, make, job_pod, asking, forbidden, pod_port):
    probes, _, _ = asking
    spec = {"suspend": False, "template": training_pod(port="@host:80/path#")}
    job = make("Job", "j", uid="J", role="train", pool="p", expert="e", owner="E", spec=spec)
    cache.put(job)
    cache.put(job_pod(job, status={"phase": "Running", "podIP": "127.0.0.1"}))
    await probes.ask_progress()
    assert forbidden == [f"http://127.0.0.1:{pod_port[0]}/progress"]


async def test_a_job_that_only_bears_our_labels_is_not_asked(cache, make, job_pod, asking, forbidden):
    probes, _, _ = asking
    put_training(cache, make, job_pod, expert=None)
    put_training(cache, make, job_pod, expert="made-up")
    await probes.ask_progress()
    assert forbidden == []


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1", "host/path", "a@b", "", "127.0.0.1:80"]
)
async def test_an_address_that_no_pod_can_have_is_not_asked(
    cache, make, job_pod, deploy, pool, asking, forbidden, address
):
    probes, _, _ = asking
    put_training(cache, make, job_pod, status={"phase": "Running", "podIP": address})
    put_gateway(make, deploy, cache, pool, status={**READY, "podIP": address})
    await probes.ask_progress()
    await probes.ask_policies()
    assert forbidden == []


async def test_the_operators_own_node_is_not_asked_in_a_cluster(
    cache, make, job_pod, forbidden, monkeypatch, expert
):
    monkeypatch.setenv("POD_IP", "10.0.0.7")
    pods = PodClient()
    probes = Probes(cache, Answers(), pods, lambda _: None)
    cache.put(expert("e", uid="E"))
    put_training(cache, make, job_pod, status={"phase": "Running", "podIP": "127.0.0.1"})
    await probes.ask_progress()
    await pods.close()
    assert forbidden == []


async def test_a_pod_in_its_nodes_network_is_not_asked(cache, make, job_pod, deploy, pool, asking, forbidden):
    probes, _, _ = asking
    put_training(cache, make, job_pod, spec={"hostNetwork": True})
    put_gateway(make, deploy, cache, pool, spec={"hostNetwork": True})
    await probes.ask_progress()
    await probes.ask_policies()
    assert forbidden == []


async def test_a_pod_that_only_bears_a_gateways_labels_is_not_asked(
    cache, make, deploy, pool, asking, forbidden
):
    probes, answers, _ = asking
    put_gateway(make, deploy, cache, pool)
    answers.policies["G"] = digest_of(POLICY)
    cache.put(make("Pod", "forged", status=READY, pool="p", role="gateway"))
    cache.put(make("Pod", "poolless", status=READY, role="gateway"))
    cache.put(make("Pod", "owned", status=READY, pool="p", role="gateway", owner=pool("p")))
    await probes.ask_policies()
    assert forbidden == []
    assert answers.policies == {"G": digest_of(POLICY)}


async def test_two_pods_that_both_claim_to_be_rank_zero_are_not_asked(
    cache, make, job_pod, asking, forbidden
):
    probes, _, _ = asking
    put_training(cache, make, job_pod)
    cache.put(
        job_pod(cache.get("Job", "ns", "j"), "zzzzz", status={"phase": "Running", "podIP": "10.0.0.66"})
    )
    await probes.ask_progress()
    assert forbidden == []


async def test_a_round_that_fails_is_followed_by_the_next(asking, monkeypatch):
    probes, _, _ = asking
    rounds = []

    async def ask_policies():
        rounds.append(1)
        raise KeyError("moe-operator.dev/pool")

    monkeypatch.setattr(probes, "ask_policies", ask_policies)
    for name in ("probes.POLICY_SECONDS", "asking.PAUSE_SECONDS"):
        monkeypatch.setattr(f"moe_operator.cluster.{name}", 0.001)
    running = asyncio.create_task(probes.run())
    async with asyncio.timeout(5):
        while len(rounds) < 3:
            await asyncio.sleep(0.001)
    assert not running.done()
    running.cancel()
