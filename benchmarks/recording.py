"""How benchmarks write down what they measured, and on what. Needs nothing but Python."""

import json
import os
import sys
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Return the machine in general terms: what a figure depends on, nothing that identifies it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cores": os.cpu_count(), "memoryGiB": round(memory / 2**30), "python": sys.version.split()[0]}


def write_result(name: str, result: dict[str, Any]) -> None:
    """Write a benchmark's raw result beside the others."""
    path = Path(__file__).parent / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
    print(
        f"written: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}",
        file=sys.stderr,
    )
