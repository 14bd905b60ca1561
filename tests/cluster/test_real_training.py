"""The real trainer, on two nodes: an Expert from apply to a routed answer, although a process of its training is lost."""

import json
import os
import signal
import sysconfig
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest
from stage import Json, Stage

pytestmark = [pytest.mark.real_training, pytest.mark.timeout(1200)]

#: Seconds for what four processes of the real trainer go through on two busy cores.
PATIENCE = 600.0

#: Steps of the training, few and small: the Expert need not be good, only better than a unigram.
STEPS = 24


@pytest.fixture(scope="module")
def stage(new_stage: Callable[[str], Stage]) -> Iterator[Stage]:
    """An Expert on real text that trains in four processes; one of them is killed after its first checkpoint."""
    stage = new_stage("real")
    library = Path(sysconfig.get_paths()["stdlib"])
    (stage.data / "code").mkdir()
    for source in sorted(library.glob("*.py"))[:100]:
        (stage.data / "code" / f"{source.name}.txt").write_bytes(source.read_bytes()[:8_000])
    stage.pool(routing={"strategy": "Posterior"})
    resources = {"profile": "real", "nodes": 2, "devicesPerNode": 2, "expertParallelism": 2}
    training = {"maxSteps": STEPS, "batchTokens": 2048, "learningRate": 0.003, "checkpointEvery": 5}
    stage.expert("code", training=training | {"resources": resources}, serving={"profile": "real"})
    store = stage.volume("pool-store")
    stage.wait("a checkpoint", lambda: any(store.rglob("checkpoints/step-*/manifest.json")), PATIENCE)
    pool = (stage.get("ExpertPool", "pool") or {})["metadata"]["uid"]
    trainers = [process for process in psutil.process_iter(["cmdline", "environ"]) if _trains(process, pool)]
    assert len(trainers) == 4
    victim = max(trainers, key=lambda process: process.info["environ"]["RANK"])
    os.kill(victim.pid, signal.SIGKILL)
    yield stage
    stage.clear()


def _trains(process: psutil.Process, pool: str) -> bool:
    """Say whether a process is one of a gang that trains for a pool; other suites on this machine have their own."""
    arguments, environment = process.info["cmdline"] or [], process.info["environ"] or {}
    ours = pool in environment.get("MOE_JOB_CONFIG", "")
    return arguments[-2:] == ["moe_trainer.main", "train"] and "RANK" in environment and ours


def jobs(stage: Stage) -> list[Json]:
    return [item for item in stage.all("Job") if item["metadata"]["name"].startswith("code-1-a")]


def ask(stage: Stage, path: str, body: Json) -> tuple[Json, dict[str, str]]:
    """Ask the pool's gateway; return its answer and headers."""
    pods = [
        pod for pod in stage.all("Pod") if pod["metadata"]["labels"].get("moe-operator.dev/role") == "gateway"
    ]
    connection = HTTPConnection(pods[0]["status"]["podIP"], 8080, timeout=90)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read()
    assert response.status == 200, text
    return json.loads(text), {name.lower(): value for name, value in response.getheaders()}


def test_progress_is_seen_while_it_trains(stage: Stage):
    seen = stage.wait("progress", lambda: stage.status("code").get("training", {}).get("step"), PATIENCE)
    assert 0 < seen <= STEPS


def test_the_attempt_ends_with_any_process_and_the_next_goes_on(stage: Stage) -> None:
    stage.wait_ready("code", PATIENCE)
    artefact = stage.status("code-1", "ExpertRevision")["artefact"]
    assert artefact["resumedFrom"] >= 5 and artefact["steps"] == STEPS
    assert [item["metadata"]["name"] for item in jobs(stage)] == ["code-1-a1", "code-1-a2"], stage.describe()
    assert all(item["spec"]["parallelism"] == 2 for item in jobs(stage))
    assert stage.names("ExpertRevision", "code-") == ["code-1"]


def test_an_expert_gets_from_apply_to_a_routed_answer(stage: Stage):
    expert = stage.wait_ready("code", PATIENCE)
    revision = stage.status("code-1", "ExpertRevision")
    assert revision["verdict"]["outcome"] == "Promoted"
    assert revision["evidence"]["decisions"][0]["against"] == "unigram"
    assert 0 < expert["status"]["scores"]["bitsPerByte"]["value"] < 8
    answer, headers = ask(stage, "/v1/completions", {"model": "pool", "prompt": "def main(", "max_tokens": 8})
    assert answer["usage"]["completion_tokens"] == 8
    assert headers["x-moe-expert"] == "code"
    decision, _ = ask(stage, "/v1/route", {"model": "pool", "prompt": "import os"})
    assert (decision["expert"], decision["revision"]) == ("code", "code-1")
    assert stage.status("pool", "ExpertPool")["routing"]["digest"] == decision["policy"]


def test_its_weights_are_committed_beneath_its_own_uid(stage: Stage):
    expert = stage.wait_ready("code", PATIENCE)
    artefact = stage.status("code-1", "ExpertRevision")["artefact"]
    folder = stage.volume("pool-store") / artefact["path"]
    assert expert["metadata"]["uid"] in artefact["path"]
    assert {"model.safetensors", "config.json", "tokenizer.json", "manifest.json"} <= {
        path.name for path in folder.iterdir()
    }
