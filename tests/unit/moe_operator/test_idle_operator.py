"""An operator that has nothing to do holds nothing in memory that only Jobs need."""

import subprocess
import sys

#: What a training Job needs, and whoever builds its manifest: the trainer, TorchX and numerical libraries.
OF_JOBS = {"moe_trainer", "torchx", "torch", "numpy", "scipy", "transformers"}

#: Prints the packages that the operator's program loads.
LOADED = "import sys, moe_operator.main; print(*sorted({name.partition('.')[0] for name in sys.modules}))"


def test_an_idle_operator_loads_no_module_of_the_trainer() -> None:
    loaded = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    packages = set(loaded.stdout.split())
    assert {"moe_operator", "moe_formats", "kopf"} <= packages
    assert packages & OF_JOBS == set()
