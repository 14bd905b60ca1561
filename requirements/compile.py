"""Resolve the requirements of every program again: `make requirements`, or `make requirements UPGRADE="certifi pyyaml"`.

Versions stay as they are in dev.txt unless pyproject.toml no longer allows them or UPGRADE names their package.

One resolution, of all programs and tools together, decides all versions and is written to dev.txt. The file of each
program has the part of it that the program needs. What `make clients` calls gateways with has nothing to do with the
programs, so it has a resolution of its own, next to its tests. The files hold hashes, for every platform and for Python 3.11 and
later, and name no index: `pip install --require-hashes -r requirements/operator.txt` installs exactly these packages,
wherever they are downloaded from.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: The extras of pyproject.toml that are programs. Each gets a file of its own.
PROGRAMS = ("operator", "gateway", "trainer", "client", "local")
#: The version of uv that resolves requirements, and that installs them in the Makefile.
UV = "uv==0.13.8"
#: Options with which the versions of dev.txt are used.
DECIDED = ("--constraints", "requirements/dev.txt")


def main() -> None:
    """Write every file. Raises CalledProcessError if the requirements cannot be resolved."""
    upgrades = [f"--upgrade-package={package}" for package in sys.argv[1:]]
    compile_file(
        "requirements/dev.txt",
        *upgrades,
        "--all-extras",
        "--group",
        "demo",
        "--group",
        "dev",
        "pyproject.toml",
    )
    for program in PROGRAMS:
        compile_file(f"requirements/{program}.txt", *DECIDED, *upgrades, "--extra", program, "pyproject.toml")
    compile_file("requirements/build.txt", *DECIDED, *upgrades, "-", text="hatchling\n")
    compile_file("requirements/uv.txt", "-", text=UV)
    compile_file("tests/clients/requirements.txt", *upgrades, "--group", "pyproject.toml:clients")


def compile_file(path: str, *arguments: str, text: str | None = None) -> None:
    """Write a file from the requirements that the arguments name; for `-`, from ``text``."""
    command = [
        "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes",
        "--no-emit-index-url", "--no-annotate", "--custom-compile-command", "make requirements", *arguments,
        "--output-file", path,
    ]  # fmt: skip
    subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=True, input=text, text=True)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
