"""What training costs beside its arithmetic, what a second process brings, and what survives being killed.

    python benchmarks/training.py [throughput] [overhead] [checkpoint] [kills] [--folder DIR] [--kills 50]

throughput   tokens per second of two processes over one, single-threaded, on the same batches, in turns
overhead     share of a step that is neither forward, backward nor optimizer, at the example's settings
checkpoint   what writing a checkpoint of 1 GB takes from training, and how long going on from it takes
kills        SIGKILL of a random process of two, at a random moment, again and again in one run: the curve and
             the weights in the end must be those of the run that nobody touched, bit for bit

Each part updates its own section of benchmarks/results/training.json. Throughput wants an idle machine of at
least two cores.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pool_on_disk import PoolOnDisk
from recording import machine, write_result
from specialization import BASE, SALT, example_specs, holdout_fraction, scaled, specs_sources

from moe_client.demo.corpora import write_corpora
from moe_formats import store
from moe_formats.format import digest_of
from moe_formats.job_config import HoldoutRule, TrainJob
from moe_trainer.models.preset_config import preset
from moe_trainer.models.preset_model import Model
from moe_trainer.storage.manifest import sha256_of_file
from moe_trainer.train import Stop, begin, train
from moe_trainer.training import step as training_step
from moe_trainer.training.checkpoint import Checkpoints, Trained
from moe_trainer.training.progress import ProgressServer, Reporter
from moe_trainer.training.run import Run, prepare, training_inputs
from moe_trainer.training.step import take_step

RESULT = Path(__file__).parent / "results" / "training.json"
ROUNDS = 3


def main() -> None:
    """Run the parts that were asked for, all of them by default."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="part", help="throughput, overhead, checkpoint, kills")
    parser.add_argument("--folder", type=Path, help="keep everything here instead of in a temporary folder")
    parser.add_argument("--kills", type=int, default=50)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        job = _job(folder)
        for part in arguments.parts or PARTS:
            before = os.getloadavg()[0]
            found = PARTS[part](job, folder, arguments) | {"loadBefore": round(before, 2)}
            result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
            write_result("training", result | {"machine": machine(), "torch": torch.__version__, part: found})
            print(json.dumps({part: found}, indent=1))


def throughput(job: TrainJob, folder: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Train the same steps in one process and in two, in turns."""
    wide = _with(job, max_steps=60, batch_tokens=8 * 384, validation_every=1000, checkpoint_every=1000)
    rates: dict[int, list[float]] = {1: [], 2: []}
    losses = {}
    for turn in range(ROUNDS):
        for processes in rates:
            asked = wide.model_copy(update={"inputs_digest": digest_of(f"throughput {processes} {turn}")})
            report, rate = _run(asked, folder, processes)
            rates[processes].append(rate)
            losses[processes] = report["losses"]
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    furthest = max(abs(one - two) / one for one, two in zip(losses[1], losses[2], strict=True))
    return {
        "tokensPerSecond": {str(processes): found for processes, found in rates.items()},
        "ratio": {"median": round(statistics.median(ratios), 3), "byRound": [round(r, 3) for r in ratios]},
        "steps": 60,
        "largestRelativeLossDifference": furthest,
    }


def overhead(job: TrainJob, folder: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Time the parts of the example's steps, checkpoints and progress included, validation not."""
    asked = _with(job, max_steps=200, validation_every=1000)
    run = prepare(asked, folder / "store")
    spent = {"forwardBackward": 0.0, "optimizer": 0.0}
    with (
        _timed(spent, "forwardBackward", training_step, "_backward"),
        _timed(spent, "optimizer", run.optimizer, "step"),
    ):
        whole = _train_here(run, folder / "overhead")
    shares = {name: round(seconds / whole, 4) for name, seconds in spent.items()}
    return {
        "stepMilliseconds": round(1000 * whole / run.steps, 2),
        "shares": shares | {"everythingElse": round(1 - sum(spent.values()) / whole, 4)},
        "steps": run.steps,
        "checkpointEvery": asked.training.checkpoint_every,
    }


def checkpoint_cost(job: TrainJob, folder: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Train a model whose checkpoint has 1 GB, with and without writing one in a window of steps."""
    steps, every = 5, 500
    asked = _with(job, max_steps=steps, batch_tokens=384, validation_every=1000, checkpoint_every=1000)
    run = prepare(asked, folder / "store")
    large = Model(preset("tiny").model_copy(update={"hidden_size": 512, "moe_intermediate_size": 3300}))
    for parameter in large.parameters():
        torch.nn.init.normal_(parameter, 0, 0.02)
    run.model = large.train()
    run.optimizer = type(run.optimizer)(large, asked.training)
    run.balancer = type(run.balancer)(large, asked.training)
    checkpoints = _checkpoints(run, folder / "large")
    _steps(run, 1)
    without, with_one = [], []
    for _turn in range(ROUNDS):
        without.append(_steps(run, steps))
        with_one.append(_steps(run, steps, lambda: checkpoints.save(run.curve)))
        checkpoints.wait()
    size = sum(path.stat().st_size for path in (folder / "large").glob("step-*/**/*") if path.is_file())
    kept = len(list((folder / "large").glob("step-*")))
    began = time.monotonic()
    _checkpoints(run, folder / "large").restore()
    resume = time.monotonic() - began
    shutil.rmtree(folder / "large")
    step = statistics.median(without) / steps
    added = statistics.median(w - o for w, o in zip(with_one, without, strict=True))
    return {
        "gigabytes": round(size / kept / 1e9, 3),
        "stepSeconds": round(step, 3),
        "addedSeconds": round(added, 3),
        "addedShareEvery500Steps": round(added / (every * step), 5),
        "windowSteps": steps,
        "restoreSeconds": round(resume, 2),
    }


def kills(job: TrainJob, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Kill a random process of two at a random moment, many times, and compare with the unbroken run."""
    asked = _with(job, max_steps=400, batch_tokens=4 * 384, validation_every=50, checkpoint_every=3)
    unbroken, broken = (
        asked.model_copy(update={"inputs_digest": digest_of(name)}) for name in ("unbroken", "broken")
    )
    whole, _ = _run(unbroken, folder, 2)
    dice, killed, resumed = random.Random(0), 0, []
    for attempt in range(1, 10_000):
        broken = broken.model_copy(update={"attempt": attempt})
        processes = _start(broken, folder, 2)
        lines = []
        if killed < arguments.kills:
            if dice.random() < 0.8:  # else while it starts
                lines = list(_until(processes[0], "from step"))
            time.sleep(dice.uniform(0, 1.5))
            victim = dice.choice(processes)
            killed += victim.poll() is None
            victim.send_signal(signal.SIGKILL)
        output = "".join([*lines, *_ends(processes)])
        resumed += [int(step) for step in re.findall(r"from step (\d+)", output)]
        if all(process.returncode == 0 for process in processes):
            break
    report = _report(broken, folder)
    return {
        "kills": killed,
        "attempts": attempt,
        "steps": len(report["losses"]),
        "resumedFrom": resumed,
        "sameLosses": report["losses"] == whole["losses"],
        "sameWeights": _weights(broken, folder) == _weights(unbroken, folder),
    }


PARTS: dict[str, Callable[[TrainJob, Path, argparse.Namespace], dict[str, Any]]] = {
    "throughput": throughput,
    "overhead": overhead,
    "checkpoint": checkpoint_cost,
    "kills": kills,
}


def _job(folder: Path) -> TrainJob:
    """Return the job of the example's `general`, after taking the snapshot of its text."""
    specs = example_specs()
    write_corpora(folder / "sources" / "corpora", [name for name in specs if name != BASE])
    pool = PoolOnDisk(folder, HoldoutRule(fraction=holdout_fraction(), salt=SALT))
    pool.snapshot(BASE, None, specs_sources(specs)[BASE])
    expert = pool.experts[BASE]
    return TrainJob(
        pool_uid="pool",
        expert=expert.ref,
        revision=f"{BASE}-1",
        attempt=1,
        inputs_digest=digest_of("benchmark"),
        preset="tiny",
        data=expert.data,
        training=scaled(specs[BASE], 1.0),
        seed=1,
    )


def _with(job: TrainJob, **training: Any) -> TrainJob:
    return job.model_copy(update={"training": job.training.model_copy(update=training)})


def _start(job: TrainJob, folder: Path, processes: int) -> list[subprocess.Popen[str]]:
    """Start the processes of a run, as torchrun would."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    common = os.environ | {
        "MOE_JOB_CONFIG": job.to_json(),
        "MOE_STORE": str(folder / "store"),
        "MOE_TERMINATION_LOG": str(folder / "termination-log"),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(processes),
    }
    return [
        subprocess.Popen(
            [sys.executable, "-m", "moe_trainer.main", "train"],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]


def _ends(processes: Sequence[subprocess.Popen[str]]) -> Iterator[str]:
    """Yield what processes print until they end; like torchrun, end the others soon after one has failed."""
    while all(process.poll() in (0, None) for process in processes) and any(
        process.poll() is None for process in processes
    ):
        time.sleep(0.05)
    for process in processes:
        try:
            yield process.communicate(timeout=5)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            yield process.communicate()[0]


def _until(process: subprocess.Popen[str], words: str) -> Iterator[str]:
    """Yield what a process prints, up to the line that has some words."""
    assert process.stdout is not None
    for line in process.stdout:
        yield line
        if words in line:
            return


def _run(job: TrainJob, folder: Path, processes: int) -> tuple[dict[str, Any], float]:
    """Run a job to its end; return its report, and the tokens per second that it says it had."""
    started = _start(job, folder, processes)
    output = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError("\n".join(output))
    rates = re.findall(r"(\d+) tokens/s", output[0])
    return _report(job, folder), float(rates[-1])


def _artefact(job: TrainJob, folder: Path) -> Path:
    revision = folder / "store" / store.revision(job.pool_uid, job.expert.uid, job.inputs_digest)
    return next(path.parent for path in sorted(revision.glob("a*/manifest.json")))


def _report(job: TrainJob, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((_artefact(job, folder) / "report.json").read_text())
    return found


def _weights(job: TrainJob, folder: Path) -> str:
    return sha256_of_file(_artefact(job, folder) / "model.safetensors")


def _checkpoints(run: Run, folder: Path) -> Checkpoints:
    trained = Trained(run.model, run.optimizer, run.balancer, run.processes)
    return Checkpoints(folder.parent, folder.name, training_inputs(run.job), trained)


def _train_here(run: Run, folder: Path) -> float:
    """Train to the end in this process; return the seconds that took."""
    checkpoints = _checkpoints(run, folder)
    begin(run, checkpoints)
    with ProgressServer("127.0.0.1", 0) as progress:
        began = time.monotonic()
        train(run, checkpoints, Reporter(run, progress), Stop())
        return time.monotonic() - began


def _steps(run: Run, steps: int, first: Callable[[], None] = lambda: None) -> float:
    """Return the seconds that something and some steps after it take."""
    began = time.monotonic()
    first()
    for _ in range(steps):
        run.curve.losses.append(take_step(run))
    return time.monotonic() - began


@contextmanager
def _timed(spent: dict[str, float], name: str, owner: Any, function: str) -> Iterator[None]:
    """Add up the seconds within a function of a module or an object."""
    real = getattr(owner, function)

    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        began = time.monotonic()
        try:
            return real(*arguments, **keywords)
        finally:
            spent[name] += time.monotonic() - began

    setattr(owner, function, wrapped)
    yield
    setattr(owner, function, real)


if __name__ == "__main__":
    main()
