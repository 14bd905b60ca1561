"""Every program stands on the formats, so they may load nothing that one of them would not want."""

import subprocess
import sys

#: Pydantic and what it is made of.
ALLOWED = {"pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}

#: Loads every module of the formats, and prints the packages that came with them.
LOADED = """
import importlib, pkgutil, sys
before = set(sys.modules)
import moe_formats
for module in pkgutil.walk_packages(moe_formats.__path__, "moe_formats."):
    importlib.import_module(module.name)
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))
"""


def test_the_formats_load_nothing_heavier_than_pydantic() -> None:
    loaded = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    # The platform's own part of sysconfig is not among the names of the standard library.
    packages = {name for name in loaded.stdout.split() if not name.startswith("_sysconfigdata")}
    assert {"moe_formats", "pydantic"} <= packages
    assert packages - ALLOWED == {"moe_formats"}
