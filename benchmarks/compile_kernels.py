"""Whether every Triton kernel compiles without a GPU, with each version of Triton from 3.6 to the pinned one.

    python benchmarks/compile_kernels.py                 the shapes that the tests use
    python benchmarks/compile_kernels.py --benchmark     the other shapes that benchmarks/moe_layer.py measures

Accelerators' images often carry an older torch and Triton than ours. Each version is installed beside the pinned one, in
a folder of its own (about 700 MB each), and compiles for Hopper what production code would launch: every product in each
of its tiles. The result is written to
benchmarks/results/compile_kernels.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from recording import machine

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULT = HERE / "results" / "compile_kernels.json"
HOPPER = "90"
#: Besides the pinned version. torch 2.11 comes with the first one.
OLDER = ("3.6.0", "3.7.0")


def main() -> None:
    """Compile with every version, and write and print what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--benchmark", action="store_true", help="the benchmark's other shapes")
    shapes = "benchmark" if parser.parse_args().benchmark else "tests"
    pinned = version("triton")
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    found = {name: compiled(name, name == pinned, shapes) for name in (*OLDER, pinned)}
    result[shapes] = {"date": date.today().isoformat(), "machine": machine(), "versions": found}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    for name, outcome in found.items():
        print(f"Triton {name}: {json.dumps(outcome)}")
    sys.exit(any("failed" in outcome or outcome["spilling"] for outcome in found.values()))


def compiled(name: str, is_pinned: bool, shapes: str) -> dict[str, Any]:
    """Compile with one version; nothing that an earlier run compiled is used."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
        path = [str(HERE)]
        if not is_pinned:
            install = (
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--target",
                f"{folder}/triton",
                f"triton=={name}",
            )
            subprocess.run([sys.executable, "-m", "uv", *install], check=True)
            path.insert(0, f"{folder}/triton")
        environment |= {"PYTHONPATH": os.pathsep.join(path), "TRITON_CACHE_DIR": f"{folder}/cache"}
        command = [sys.executable, "-m", "tests.trainer.moe.triton.offline", HOPPER]
        command += ["--benchmark"] if shapes == "benchmark" else []
        start = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        seconds = round(time.monotonic() - start, 1)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1], "calls": len(done.stdout.splitlines())}
    calls = [json.loads(line) for line in done.stdout.splitlines()]
    kernels = [kernel for call in calls for kernel in call["kernels"]]
    return {
        "calls": len(calls),
        "kernels": len(kernels),
        "spilling": sum(kernel["stack"] > 0 for kernel in kernels),
        "mostRegisters": max(kernel["registers"] for kernel in kernels),
        "mostSharedBytes": max(kernel["shared"] for kernel in kernels),
        "productsNotOnTensorCores": sum(k["multiplies"] and k["tensor_cores"] != "wgmma" for k in kernels),
        "productsThatWaitForEachOther": sorted({k["kernel"] for k in kernels if k["in_turn"]}),
        "seconds": seconds,
    }


if __name__ == "__main__":
    main()
