"""The process that measures: `python -m moe_bench.worker PLAN`.

PLAN is JSON: {"device", "rounds", "cases": [name, …], "without": {case: {layer: why}}, "quick"}. One line of
JSON goes to standard output before each thing that may fail or hang, {"case", "layer", "doing"}, and one
after each case, {"case", "result"} or {"case", "failed"}. What libraries print goes to standard error.
A device that can no longer be used ends the process; the lines say where.
"""

import json
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch

from moe_bench.cases import TINY, cases
from moe_bench.measure import measure


def main() -> None:
    """Measure the cases of the plan."""
    plan = json.loads(sys.argv[1])
    tell = _line_writer()
    warnings.filterwarnings("ignore")
    if plan["device"] == "cpu":
        torch.set_num_threads(1)
    known = {case.name: case for case in (*cases(plan["device"], quick=False), TINY)}
    for name in plan["cases"]:

        def announce(layer: str, doing: str, case: str = name) -> None:
            tell({"case": case, "layer": layer, "doing": doing})

        announce("", "drawing weights and batches")
        try:
            result = measure(
                known[name], plan["device"], plan["without"].get(name, {}), plan["rounds"], announce
            )
            tell({"case": name, "result": result})
        except Exception as error:
            tell({"case": name, "failed": f"{type(error).__name__}: {error}"})
        if plan["device"] != "cpu":
            torch.cuda.synchronize()  # raises if the device cannot be used any more
            torch.cuda.empty_cache()


def _line_writer() -> Callable[[dict[str, Any]], None]:
    """Keep standard output for lines of JSON, and send all else that is printed to standard error."""
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return lambda line: print(json.dumps(line), file=lines)


if __name__ == "__main__":
    main()
