"""Resolve every program's requirements again: `make requirements`.

One resolution decides all versions (dev.txt, every program and tool together); each program's file is what
it needs of that. With hashes, for every platform and Python from 3.11 on, and naming no index: `pip install
--require-hashes -r requirements/operator.txt` takes exactly these files from wherever packages come from.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: The extras of pyproject.toml that are programs; each gets a file.
PROGRAMS = ("operator", "gateway", "trainer", "client", "local")
#: uv resolves, and installs in the Makefile.
UV = "uv==0.13.8"


def main() -> None:
    """Write every file; raises CalledProcessError where there is no resolution."""
    compile_file("dev", "--all-extras", "--group", "demo", "--group", "dev", "pyproject.toml")
    for program in PROGRAMS:
        compile_file(program, "--constraints", "requirements/dev.txt", "--extra", program, "pyproject.toml")
    compile_file("build", "--constraints", "requirements/dev.txt", "-", text="hatchling\n")
    compile_file("uv", "-", text=UV)


def compile_file(name: str, *arguments: str, text: str | None = None) -> None:
    """Write requirements/<name>.txt; what is resolved comes from the arguments, or from a text for `-`."""
    path = f"requirements/{name}.txt"
    command = [
        "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes",
        "--no-emit-index-url", "--no-annotate", "--custom-compile-command", "make requirements", *arguments,
        "--output-file", path,
    ]  # fmt: skip
    subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=True, input=text, text=True)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
