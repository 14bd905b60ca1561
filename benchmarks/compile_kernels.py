"""Whether every Triton kernel compiles without a GPU, with each version of Triton from 3.6 to the pinned one.

    python benchmarks/compile_kernels.py                       the launches that the tests compile
    python benchmarks/compile_kernels.py --benchmark           those of the other shapes that moe_layer.py measures
    python benchmarks/compile_kernels.py --launches 7b-n256    those of one of these shapes, or of decoding
    python benchmarks/compile_kernels.py --triton 3.6.0        one version only

Accelerators' images often carry an older torch and Triton than ours. Each version is installed beside the pinned one, in
a folder of its own (about 700 MB each), and compiles for Hopper what production code would launch: every product in each
of its tiles. Two processes share the work. What came of it is written to benchmarks/results/compile_kernels.json after
each shape and version, so what was measured stays if the rest is stopped.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from moe_bench.cases import TRAINING
from recording import machine

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULT = HERE / "results" / "compile_kernels.json"
HOPPER = "90"
PROCESSES = 2
#: Besides the pinned version. torch 2.11 comes with the first one.
OLDER = ("3.6.0", "3.7.0")
#: Names of launches, as tests/trainer/moe/triton/offline.py takes them.
TESTS = "tests"
BENCHMARK = (*(shape.name for shape in TRAINING[:-1]), "decoding")


def main() -> None:
    """Compile with every version, and write and print what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--benchmark", action="store_true", help="the benchmark's other shapes")
    parser.add_argument("--launches", choices=(TESTS, *BENCHMARK), help="one set of launches only")
    parser.add_argument("--triton", metavar="VERSION", help="compile with this version only")
    given = parser.parse_args()
    names = (given.launches,) if given.launches else BENCHMARK if given.benchmark else (TESTS,)
    pinned = version("triton")
    failed = False
    for triton in (given.triton,) if given.triton else (*OLDER, pinned):
        with installed(None if triton == pinned else triton) as environment:
            for launches in names:
                outcome = compiled(environment, launches)
                write(launches, triton, outcome)
                print(f"Triton {triton}, {launches}: {json.dumps(outcome)}", flush=True)
                failed |= "failed" in outcome or outcome["spilling"] > 0
    sys.exit(failed)


def write(launches: str, triton: str, outcome: dict[str, Any]) -> None:
    """Put what came of some launches with one version into the result's file."""
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    versions = result.get(launches, {}).get("versions", {}) | {triton: outcome}
    result[launches] = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": dict(sorted(versions.items())),
    }
    ordered = {name: result[name] for name in (TESTS, *BENCHMARK) if name in result}
    RESULT.write_text(json.dumps(ordered, indent=1) + "\n")


@contextmanager
def installed(triton: str | None) -> Iterator[dict[str, str]]:
    """Yield the environment of processes that use a version of Triton; None: the installed one."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
        path = [str(HERE)]
        if triton is not None:
            install = ("pip", "install", "--quiet", "--no-deps", "--target", folder, f"triton=={triton}")
            subprocess.run([sys.executable, "-m", "uv", *install], check=True)
            path.insert(0, folder)
        yield environment | {"PYTHONPATH": os.pathsep.join(path)}


def compiled(environment: dict[str, str], launches: str) -> dict[str, Any]:
    """Compile some launches; nothing that an earlier run compiled is used."""
    command = [sys.executable, "-m", "tests.trainer.moe.triton.offline", HOPPER, "--launches", launches]
    commands = [[*command, "--share", f"{number}/{PROCESSES}"] for number in range(PROCESSES)]
    start, cpu = time.monotonic(), cpu_seconds()
    with tempfile.TemporaryDirectory() as cache, ThreadPoolExecutor(PROCESSES) as threads:
        environment = environment | {"TRITON_CACHE_DIR": cache}
        run = partial(subprocess.run, cwd=ROOT, env=environment, capture_output=True, text=True)
        done = list(threads.map(run, commands))
    seconds, cpu = round(time.monotonic() - start, 1), round(cpu_seconds() - cpu, 1)
    calls = [json.loads(line) for process in done for line in process.stdout.splitlines()]
    for process in done:
        if process.returncode:
            return {"failed": process.stderr.strip().splitlines()[-1], "calls": len(calls)}
    kernels = [kernel for call in calls for kernel in call["kernels"]]
    return {
        "calls": len(calls),
        "kernels": len(kernels),
        "spilling": sum(kernel["stack"] > 0 for kernel in kernels),
        "spillingCalls": sorted(
            c["call"] for c in calls if any(kernel["stack"] > 0 for kernel in c["kernels"])
        ),
        "mostRegisters": max(kernel["registers"] for kernel in kernels),
        "mostSharedBytes": max(kernel["shared"] for kernel in kernels),
        "productsNotOnTensorCores": sum(k["multiplies"] and k["tensor_cores"] != "wgmma" for k in kernels),
        "productsThatWaitForEachOther": sorted({k["kernel"] for k in kernels if k["in_turn"]}),
        "seconds": seconds,
        "cpuSeconds": cpu,  # of both processes; on a busy machine they say more than seconds
    }


def cpu_seconds() -> float:
    """Return the processor time of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
