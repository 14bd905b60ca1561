"""The mixture-of-experts layer beside others: time, memory and errors of the whole layer, router included.

    python benchmarks/moe_layer.py                          one thread of this machine's CPU, fp32
    python benchmarks/moe_layer.py --device cuda --quick    an accelerator, bf16, in about ten minutes

Every layer computes on the same weights and batches, in one process, in rounds in which each has its turn;
ratios are taken within rounds. Per case: time of forward and backward pass (median, 20th and 80th
percentile), eagerly and as a replayed CUDA graph, operations per second by 6 and 12 NKDF, bytes kept between
the passes and at the peak, and the error of output and every gradient, ‖found - right‖ / ‖right‖ against
fp64. Beside them a plain matrix product; on a CPU the layer's own products alone; decoding on an
accelerator, how long reading the weights takes.

Compared: our backends, torch's grouped products written plainly, and what is installed of
  transformers    its Qwen3-MoE block with each of its implementations of the experts
  ScatterMoE      not on the package index: install it from its public repository (shawntan/scattermoe)
  SonicMoE        package sonic-moe, with the nvidia-cutlass-dsl and quack-kernels that it names; Hopper or
                  newer. It pins an older torch: install it without dependencies beside a newer one
What cannot be had or fails is in the result with the reason. A layer that takes the process down (a first
run of a kernel may) or hangs is left out of that case, and the case is run again.

On a CPU time is that of the process, not of the wall, so that a busy machine is seen less; and every layer
gets the same allocator settings, by GLIBC_TUNABLES: up to 1 GiB is kept rather than given back to the system,
which alone is worth a third to all of them.

The result is written after every case: benchmarks/results/moe_layer_<device>.json.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from moe_bench.cases import TINY, Case, cases
from moe_bench.table import table
from recording import machine

HERE = Path(__file__).parent
TUNABLES = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1073741824"
PACKAGES = (
    "torch",
    "triton",
    "transformers",
    "scattermoe",
    "sonic-moe",
    "quack-kernels",
    "nvidia-cutlass-dsl",
)


def main() -> None:
    """Measure, and write the result after every case."""
    options = parse()
    names = [case.name for case in selected(options)]
    result: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": machine() | device(options.device) | {"loadBefore": round(os.getloadavg()[0], 2)},
        "packages": {name: found for name in PACKAGES if (found := installed(name))},
        "rounds": options.rounds,
        "quick": options.quick,
        "cases": {},
        "notMeasured": {},
    }
    for name, outcome in measured(names, options):
        result["cases" if isinstance(outcome, dict) else "notMeasured"][name] = outcome
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=1) + "\n")
        print(f"{name}: {'measured' if isinstance(outcome, dict) else outcome}", file=sys.stderr)
    print(table(result))


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="skewed routings for one shape only")
    parser.add_argument("--rounds", type=int, default=40, help="default: 40")
    parser.add_argument("--minutes", type=float, default=60.0, help="start no case after this; default: 60")
    parser.add_argument(
        "--silence",
        type=float,
        default=90.0,
        help="seconds without news after which a layer is given up; kernels are compiled and tuned within. Default: 90",
    )
    parser.add_argument(
        "--only", default="", help="only cases whose name has all of these words in it, or `tiny`"
    )
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/moe_layer_<device>.json")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}: at least one round is needed")
    if options.silence <= 0:
        parser.error(f"--silence is {options.silence}: it must be more than 0 seconds")
    options.output = options.output or HERE / "results" / f"moe_layer_{options.device}.json"
    return options


def selected(options: argparse.Namespace) -> list[Case]:
    """Return the cases to measure, in order; ends with an error if there is none of that name."""
    if options.only == "tiny":
        return [TINY]
    words = options.only.split()
    found = [
        case for case in cases(options.device, options.quick) if all(word in case.name for word in words)
    ]
    if not found:
        raise SystemExit(f"--only {options.only}: no case has all of that in its name")
    return found


def measured(names: list[str], options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Yield every case with its result, or with the reason why there is none.

    One worker measures case after case. If it ends or hangs, another goes on with the same case, without
    the layer that was at work.
    """
    deadline = time.monotonic() + 60 * options.minutes
    without: dict[str, dict[str, str]] = {}
    remaining = list(names)
    while remaining and time.monotonic() < deadline:
        at: dict[str, str] = {}
        for line in lines_of_worker(remaining, without, options):
            if "doing" in line:
                at = line
                continue
            at = {"layer": "", "doing": "between two cases"}
            remaining.remove(line["case"])
            yield line["case"], line.get("result") or line["failed"]
            if time.monotonic() > deadline:
                break
        if not at:
            raise SystemExit("the worker did not start: see its messages above")
        if remaining and at["doing"] != "between two cases":
            left_out = without.setdefault(at["case"], {})
            if at["layer"] and at["layer"] not in left_out:
                left_out[at["layer"]] = f"ended the process, or hung, at: {at['doing']}"
            else:
                remaining.remove(at["case"])
                yield at["case"], f"the process ended, or hung, at: {at['layer'] or at['doing']}"
    for name in remaining:
        yield name, f"{options.minutes:g} minutes were over"


def lines_of_worker(
    names: list[str], without: dict[str, dict[str, str]], options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Start a worker and yield its lines until it ends; one that is silent for too long is killed."""
    plan = {"device": options.device, "rounds": options.rounds, "cases": names, "without": without}
    path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path}
    if options.device == "cpu":
        environment |= {"GLIBC_TUNABLES": TUNABLES, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "moe_bench.worker", json.dumps(plan)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        try:
            while True:
                watchdog = threading.Timer(options.silence, worker.kill)
                watchdog.start()
                line = worker.stdout.readline()
                watchdog.cancel()
                if not line:
                    return
                yield json.loads(line)
        finally:
            worker.kill()


def device(name: str) -> dict[str, Any]:
    """Return what a figure depends on: the accelerator's name and memory, or threads and allocator."""
    if name == "cpu":
        return {"threads": 1, "allocator": TUNABLES, "processor": processor()}
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("--device cuda: torch finds no such device here; without one, run --device cpu")
    properties = torch.cuda.get_device_properties(0)
    return {"accelerator": properties.name, "acceleratorGiB": round(properties.total_memory / 2**30)}


def processor() -> str:
    """Return the instructions for matrix products that this CPU has, widest last."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return "unknown"
    return " ".join(name for name in ("avx2", "avx512f", "amx_bf16") if name in flags)


def installed(package: str) -> str | None:
    """Return a package's version, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
