"""A real pool for real clients: two expert servers and a gateway that asks for keys, each a process of its own.

`make clients` runs these tests in an environment that has the clients; the programs are those of `.venv`.
"""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
#: The environment of the programs, which has torch and transformers but no client.
PROGRAMS = HERE.parents[1] / ".venv" / "bin"
KEY = "key-of-the-clients"
#: Without the clients, as in the environment of all other tests, there is nothing to run here.
collect_ignore_glob = [] if find_spec("openai") else ["test_*.py"]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Process:
    """A server process: where it answers, and how to start it again at the same address."""

    program: str
    variables: dict[str, str]
    log: Path
    port: int = field(default_factory=free_port)
    running: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, probe: str) -> None:
        """Start it, and wait until its readiness probe succeeds."""
        command = [str(PROGRAMS / part) if part.startswith("moe-") else part for part in self.program.split()]
        environment = os.environ | self.variables | {"PORT": str(self.port), "OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while not _answers(self.url + probe):
            assert self.running.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it by a signal."""
        if self.running is not None:
            self.running.send_signal(number)
            self.running.wait(60)
            self.running = None


@dataclass
class Pool:
    """A pool's programs, and the policy by which its gateway routes."""

    folder: Path
    experts: dict[str, Process]
    policy: dict[str, Any]
    gateway: Process = field(init=False)

    @property
    def base_url(self) -> str:
        """Return what clients call `base_url`."""
        return f"{self.gateway.url}/v1"

    @contextmanager
    def gateway_with(self, **changes: Any) -> Iterator[Process]:
        """Run a gateway of its own whose policy has some fields changed."""
        name = f"gateway-{free_port()}"
        policy = self.folder / f"{name}.json"
        policy.write_text(json.dumps(self.policy | changes))
        variables = {
            "MOE_ROUTING_POLICY": str(policy),
            "MOE_STORE": str(self.folder / "store"),
            "MOE_API_KEYS_FILE": str(self.folder / "keys"),
        }
        gateway = Process("moe-gateway", variables, self.folder / f"{name}.log")
        try:
            gateway.start("/readyz")
            yield gateway
        finally:
            gateway.end()

    def tokenizer(self, expert: str) -> str:
        """Return the folder of an Expert's tokenizer."""
        return str(self.folder / "store" / expert)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the models, trained once."""
    folder = tmp_path_factory.mktemp("pool")
    command = [PROGRAMS / "python", HERE / "made_here.py", folder]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def pool(made: Path) -> Iterator[Pool]:
    """A gateway in front of two expert servers."""
    experts: dict[str, Process] = {}
    routed = []
    for config in json.loads((made / "experts.json").read_text()):
        name = config["expert"]
        variables = {"MOE_SERVE_CONFIG": json.dumps(config), "MOE_STORE": str(made / "store")}
        experts[name] = Process("moe-trainer serve", variables, made / f"{name}.log")
        routed.append(
            {
                "name": name,
                "domain": name,
                "revision": config["revision"],
                "digest": config["artefact"]["digest"],
                "url": experts[name].url,
            }
        )
    (made / "keys").write_text(f"{KEY}  # for these tests\n")
    pool = Pool(made, experts, {"pool": "pool", "strategy": "Posterior", "experts": routed})
    try:
        for expert in experts.values():
            expert.start("/ready")
        with pool.gateway_with() as pool.gateway:
            yield pool
    finally:
        for expert in experts.values():
            expert.end()


class Reference:
    """Asks transformers what an Expert says (reference.py)."""

    def __init__(self, store: Path) -> None:
        """Start it with the store that has the weights."""
        command = [str(PROGRAMS / "python"), str(HERE / "reference.py"), str(store)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _ask(self, name: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps([name, arguments]), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def encode(self, expert: str, text: str) -> list[int]:
        """Return the ids of a text."""
        return self._ask("encode", expert, text)

    def chat(self, expert: str, messages: Sequence[dict[str, str]]) -> list[int]:
        """Return the ids of the prompt of a conversation."""
        return self._ask("chat", expert, messages)

    def decode(self, expert: str, ids: Sequence[int]) -> str:
        """Return the text of ids."""
        return self._ask("decode", expert, ids)

    def logprobs(self, expert: str, ids: Sequence[int], top: int = 5) -> list[dict[str, Any]]:
        """Return the log-probability of each id after the first, and of the most probable ones in its place."""
        return self._ask("logprobs", expert, ids, top)

    def greedy(self, expert: str, ids: Sequence[int], tokens: int) -> dict[str, Any]:
        """Return the most probable continuation of ids."""
        return self._ask("greedy", expert, ids, tokens)

    def completion(self, expert: str, prompt: str, tokens: int) -> dict[str, Any]:
        """Return the most probable continuation of a text, which is read after the token that begins one."""
        return self.greedy(expert, [0, *self.encode(expert, prompt)], tokens)

    def close(self) -> None:
        """End it."""
        self._process.stdin and self._process.stdin.close()
        self._process.wait(60)


@pytest.fixture(scope="session")
def reference(pool: Pool) -> Iterator[Reference]:
    """The models in transformers."""
    asked = Reference(pool.folder / "store")
    yield asked
    asked.close()
