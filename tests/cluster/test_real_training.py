"""The real trainer: an Expert from apply to a routed answer."""

import json
import sysconfig
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from stage import Json, Stage

pytestmark = pytest.mark.real_training

#: Seconds for everything that an Expert goes through with the real trainer, on two busy cores.
PATIENCE = 240.0


@pytest.fixture(scope="module")
def stage(new_stage: Callable[[str], Stage]) -> Iterator[Stage]:
    """An Expert on real text, trained for a few steps: it need not be good, only better than a unigram."""
    stage = new_stage("real")
    library = Path(sysconfig.get_paths()["stdlib"])
    (stage.data / "code").mkdir()
    for source in sorted(library.glob("*.py"))[:100]:
        (stage.data / "code" / f"{source.name}.txt").write_bytes(source.read_bytes()[:20_000])
    stage.pool(routing={"strategy": "Posterior"})
    training = {
        "maxSteps": 40,
        "learningRate": 0.003,
        "checkpointEvery": 10,
        "resources": {"profile": "real"},
    }
    stage.expert("code", training=training, serving={"profile": "real"})
    yield stage
    stage.clear()


def ask(stage: Stage, path: str, body: Json) -> tuple[Json, dict[str, str]]:
    """Ask the pool's gateway; return its answer and headers."""
    pods = [
        pod for pod in stage.all("Pod") if pod["metadata"]["labels"].get("moe-operator.dev/role") == "gateway"
    ]
    connection = HTTPConnection(pods[0]["status"]["podIP"], 8080, timeout=30)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read()
    assert response.status == 200, text
    return json.loads(text), {name.lower(): value for name, value in response.getheaders()}


def test_progress_is_seen_while_it_trains(stage: Stage):
    seen = stage.wait("progress", lambda: stage.status("code").get("training", {}).get("step"), PATIENCE)
    assert 0 < seen <= 40


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
