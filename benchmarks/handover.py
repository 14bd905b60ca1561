"""From a promotion to all traffic on the new revision, under load: how long, and how many requests fail.

    python benchmarks/handover.py processes
        A gateway and two expert servers as processes of this machine. The new revision's server is up;
        "promoted" is the moment at which the new routing policy is written. Once the gateway reports its
        digest, the old server gets SIGTERM, as the operator does it.

    python benchmarks/handover.py cluster --kubeconfig FILE --namespace NAME --expert NAME [--revision NAME]
        An Expert that serves on a cluster whose pods this machine reaches. "Promoted" is the moment at which
        `status.currentRevision` changes. With --revision that is brought about by pinning the revision;
        else the benchmark waits for the next promotion.

The load is bounded: as many requests at once as --clients says, each for 16 tokens, half of them streamed.
Prints the result as JSON and writes it to --output.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from moe_formats.routing_policy import RoutedExpert, RoutingPolicy

#: Seconds of load before the promotion, and after all traffic has moved.
SETTLE_SECONDS = 3.0
#: Seconds after which a handover that has not happened counts as failed.
LIMIT_SECONDS = 300.0


@dataclass(frozen=True)
class Sample:
    """One request: when it began and ended (monotonic seconds), and what came back."""

    began: float
    ended: float
    revision: str | None
    failure: str | None


@dataclass
class Load:
    """Clients that ask one Expert for completions until told to stop."""

    url: str
    expert: str
    clients: int
    samples: list[Sample] = field(default_factory=list)
    stopping: bool = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Load"]:
        """Keep the load up for the length of the block."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
            tasks = [asyncio.create_task(self._client(session, number)) for number in range(self.clients)]
            try:
                yield self
            finally:
                self.stopping = True
                await asyncio.gather(*tasks)

    async def wait_for(self, revision: str) -> None:
        """Return once the newest requests of all clients were answered by a revision."""
        while {sample.revision for sample in self.samples[-2 * self.clients :]} != {revision}:
            await asyncio.sleep(0.05)

    async def _client(self, session: aiohttp.ClientSession, number: int) -> None:
        stream = bool(number % 2)
        body = {"model": self.expert, "prompt": "We the people", "max_tokens": 16, "stream": stream}
        while not self.stopping:
            began, revision, failure = time.monotonic(), None, None
            try:
                async with session.post(f"{self.url}/v1/completions", json=body) as response:
                    text = await response.text()
                    revision = response.headers.get("x-moe-revision")
                    if response.status != 200 or (stream and not text.endswith("data: [DONE]\n\n")):
                        failure = f"{response.status}: {text[-200:]}"
            except (aiohttp.ClientError, TimeoutError) as error:
                failure = repr(error)
            self.samples.append(Sample(began, time.monotonic(), revision, failure))


def summarise(samples: Sequence[Sample], promoted_at: float, old: str, new: str) -> dict[str, object]:
    """Return the figures of one handover; a request counts for the revision at the time it was sent."""
    on_old = [sample.began for sample in samples if sample.revision == old]
    on_new = [sample.began for sample in samples if sample.revision == new]
    latencies = sorted(sample.ended - sample.began for sample in samples)
    around = [s for s in samples if promoted_at - 1 <= s.began <= promoted_at + 3]
    return {
        "requests": len(samples),
        "failed": [sample.failure for sample in samples if sample.failure][:10],
        "failedRequests": sum(sample.failure is not None for sample in samples),
        "answeredByOld": len(on_old),
        "answeredByNew": len(on_new),
        "secondsToFirstOnNew": round(min(on_new) - promoted_at, 3),
        "secondsToAllOnNew": round(max(0.0, max(on_old) - promoted_at), 3),
        "latencySeconds": {
            "median": round(latencies[len(latencies) // 2], 4),
            "p99": round(latencies[int(len(latencies) * 0.99)], 4),
            "longestAroundHandover": round(max((s.ended - s.began for s in around), default=0.0), 4),
        },
    }


async def between_processes(clients: int) -> dict[str, object]:
    """Hand over between two servers behind a gateway, all started here."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        experts, servers = [], []
        for number in (1, 2):
            expert, process = _start_server(folder, number)
            stack.callback(_end, process)
            experts.append(expert)
            servers.append(process)
        policies = [
            RoutingPolicy(pool="pool", strategy="Distilled", experts=(expert,)).to_json()
            for expert in experts
        ]
        path = folder / "policy.json"
        path.write_text(policies[0])
        port, metrics_port = _free_port(), _free_port()
        environment = {
            "MOE_ROUTING_POLICY": str(path),
            "MOE_STORE": name,
            "PORT": str(port),
            "METRICS_PORT": str(metrics_port),
        }
        code = "from moe_gateway.app import main; main()"
        gateway = subprocess.Popen([sys.executable, "-c", code], env=os.environ | environment)
        stack.callback(_end, gateway)
        url = f"http://127.0.0.1:{port}"
        async with aiohttp.ClientSession() as session:
            for address in (f"{experts[0].url}/ready", f"{experts[1].url}/ready", f"{url}/readyz"):
                await _answers(session, address)
            async with Load(url, "code", clients).running() as load:
                await asyncio.sleep(SETTLE_SECONDS)
                fresh = path.with_suffix(".new")
                fresh.write_text(policies[1])
                promoted_at = time.monotonic()
                fresh.replace(path)
                digest = RoutingPolicy.model_validate_json(policies[1]).digest()
                while await _policy_digest(session, f"http://127.0.0.1:{metrics_port}") != digest:
                    await asyncio.sleep(0.05)
                servers[0].send_signal(signal.SIGTERM)
                await load.wait_for(experts[1].revision)
                await asyncio.sleep(SETTLE_SECONDS)
        old_exit = await asyncio.to_thread(servers[0].wait, 60)
        found = summarise(load.samples, promoted_at, experts[0].revision, experts[1].revision)
        return {"oldServerExitCode": old_exit} | found


async def on_a_cluster(
    clients: int, kubectl: Sequence[str], expert: str, revision: str | None
) -> dict[str, object]:
    """Hand over between two revisions of an Expert that serves on a cluster."""
    seen = json.loads(_run([*kubectl, "get", "expert", expert, "-o", "json"]))
    old, url = seen["status"]["currentRevision"], _gateway_url(kubectl, seen["spec"]["pool"])
    command = [
        *kubectl,
        "get",
        "expert",
        expert,
        "--watch",
        "-o",
        r"jsonpath={.status.currentRevision}{'\n'}",
    ]
    watch = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert watch.stdout is not None
    try:
        async with Load(url, expert, clients).running() as load:
            await asyncio.sleep(SETTLE_SECONDS)
            if revision is not None:
                patch = json.dumps({"spec": {"revision": revision}})
                _run([*kubectl, "patch", "expert", expert, "--type=merge", "-p", patch])
            new = old
            while new in (old, ""):
                new = (await watch.stdout.readline()).decode().strip()
            promoted_at = time.monotonic()
            await load.wait_for(new)
            await asyncio.sleep(SETTLE_SECONDS)
    finally:
        watch.terminate()
        await watch.wait()
    return summarise(load.samples, promoted_at, old, new)


def _gateway_url(kubectl: Sequence[str], pool: str) -> str:
    selector = f"moe-operator.dev/pool={pool},moe-operator.dev/role=gateway"
    pods = json.loads(_run([*kubectl, "get", "pods", "-l", selector, "-o", "json"]))["items"]
    for pod in pods:
        address, port = pod["status"].get("podIP"), pod["spec"]["containers"][0]["ports"][0]["containerPort"]
        if address:
            return f"http://{address}:{port}"
    raise SystemExit(f"the pool {pool!r} has no running gateway")


def _start_server(folder: Path, number: int) -> tuple[RoutedExpert, "subprocess.Popen[bytes]"]:
    """Start an expert server of a random model on a free port."""
    import torch  # here, for the benchmark on a cluster needs none

    from moe_formats.serve_config import ServeConfig, ServedArtefact
    from moe_trainer.methods import checkpoint_format
    from moe_trainer.models.preset_config import preset
    from moe_trainer.models.preset_model import Model, initialise
    from moe_trainer.text.tokenizer import ByteTokenizer

    torch.set_num_threads(1)
    model = Model(preset("tiny"))
    initialise(model, seed=number)
    digest = checkpoint_format.write(folder, f"a{number}", model, ByteTokenizer(), "{}")
    served = ServedArtefact(path=f"a{number}", digest=digest)
    config = ServeConfig(expert="code", revision=f"code-{number}", artefact=served)
    port = _free_port()
    environment = {"MOE_SERVE_CONFIG": config.to_json(), "MOE_STORE": str(folder), "PORT": str(port)}
    process = subprocess.Popen(
        [sys.executable, "-m", "moe_trainer.main", "serve"],
        env=os.environ | environment | {"OMP_NUM_THREADS": "1"},
    )
    url = f"http://127.0.0.1:{port}"
    return RoutedExpert(name="code", revision=config.revision, digest=digest, url=url), process


async def _answers(session: aiohttp.ClientSession, url: str) -> None:
    """Return once a URL answers 200."""
    while True:
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get(url) as response:
                if response.status == 200:
                    return
        await asyncio.sleep(0.05)


async def _policy_digest(session: aiohttp.ClientSession, url: str) -> str | None:
    async with session.get(f"{url}/policy") as response:
        digest: str | None = (await response.json())["digest"]
        return digest


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


def _run(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _machine() -> dict[str, object]:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memoryGiB": round(pages / 2**30),
        "python": sys.version.split()[0],
    }


def main() -> None:
    """Run one mode and write its result."""
    parser = argparse.ArgumentParser(description="Measure a handover under load.")
    parser.add_argument("where", choices=("processes", "cluster"))
    parser.add_argument("--clients", type=int, default=4, choices=range(1, 65), metavar="1..64")
    parser.add_argument("--kubectl", default="kubectl")
    parser.add_argument("--kubeconfig")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--expert")
    parser.add_argument("--revision", help="pin this revision instead of waiting for a promotion")
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    if asked.where == "processes":
        work = between_processes(asked.clients)
    else:
        if asked.expert is None:
            parser.error("--expert is required for a cluster")
        kubeconfig = ["--kubeconfig", asked.kubeconfig] if asked.kubeconfig else []
        kubectl = [asked.kubectl, *kubeconfig, "--namespace", asked.namespace]
        work = on_a_cluster(asked.clients, kubectl, asked.expert, asked.revision)
    found = asyncio.run(asyncio.wait_for(work, LIMIT_SECONDS))
    result = {
        "benchmark": "handover",
        "where": asked.where,
        "clients": asked.clients,
        "machine": _machine(),
    } | found
    text = json.dumps(result, indent=2)
    print(text)
    if asked.output is not None:
        asked.output.parent.mkdir(parents=True, exist_ok=True)
        asked.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
