"""Each requirement file installs alone, by hash, and its program starts; as the images are built.

Packages come from uv's cache where they are there (after `make setup` they are), linked rather than copied.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements"
#: What starts in each environment, and what it says then.
PROGRAMS = {
    "operator": (["moe-operator", "--help"], "usage: moe-operator"),
    "gateway": (["moe-gateway"], "set MOE_ROUTING_POLICY"),
    "trainer": (["moe-trainer", "--help"], "usage: moe-trainer"),
    "client": (["moectl", "--help"], "Usage: moectl"),
    "local": (["python", "-m", "moe_local.agent", "--help"], "usage:"),
}
#: The package of each program, and its modules that another program's requirements are for.
PACKAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "operator": ("moe_operator", ()),
    "gateway": ("moe_gateway", ()),
    "trainer": ("moe_trainer", ("moe_trainer.component",)),  # TorchX reads it, in the operator.
    "client": ("moe_client", ("moe_client.demo", "moe_client.cli.local")),  # These start a small cluster.
    "local": ("moe_local", ()),
}
#: Never in the images that know Kubernetes or route requests.
HEAVY = {"torch", "numpy", "scipy", "transformers", "pandas"}
#: Bytes of packages in the operator's image. The Kubernetes client is 64 MB of it.
OPERATOR_BUDGET = 110_000_000


def uv(*arguments: str | Path) -> None:
    """Run uv; what it says shows when it fails."""
    command = [sys.executable, "-m", "uv", "--quiet", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one wheel that every image installs."""
    folder = tmp_path_factory.mktemp("wheel")
    uv("build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the environments are."""
    return tmp_path_factory.mktemp("environments")


@pytest.fixture(scope="session", params=sorted(PROGRAMS))
def environment(request: pytest.FixtureRequest, environments: Path, wheel: Path) -> Path:
    """An environment with what one requirement file names, and the wheel; nothing else."""
    folder = environments / str(request.param)
    python = folder / "bin" / "python"
    uv("venv", "--python", sys.executable, folder)
    install = ("pip", "install", "--python", python, "--link-mode", "symlink", "--no-deps")
    uv(*install, "--require-hashes", "-r", REQUIREMENTS / f"{request.param}.txt")
    uv(*install, "--no-index", wheel)
    return folder


def installed(environment: Path) -> dict[str, str]:
    """The packages of an environment with their versions."""
    command = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "list",
        "--format",
        "json",
        "--python",
        environment / "bin" / "python",
    ]
    listing = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {item["name"]: item["version"] for item in listing}


def size(environment: Path) -> int:
    """Bytes of an environment's packages."""
    (folder,) = environment.glob("lib/python*/site-packages")
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def run(environment: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program of an environment, knowing nothing of this one."""
    variables = {"PATH": f"{environment / 'bin'}:{os.defpath}", "HOME": str(environment), "LANG": "C.UTF-8"}
    program = environment / "bin" / command[0]
    return subprocess.run([program, *command[1:]], env=variables, capture_output=True, text=True)


def test_a_program_starts_with_its_own_requirements_alone(environment: Path) -> None:
    command, words = PROGRAMS[environment.name]
    done = run(environment, *command)
    assert words in done.stdout + done.stderr


def test_every_module_of_a_program_imports_with_its_own_requirements_alone(environment: Path) -> None:
    package, others = PACKAGES[environment.name]
    code = (
        "import importlib, pkgutil, sys\n"
        "package, *others = sys.argv[1:]\n"
        "for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + '.'):\n"
        "    if not module.name.startswith(tuple(others) or ('-',)) and not module.name.endswith('__main__'):\n"
        "        importlib.import_module(module.name)\n"
    )
    done = run(environment, "python", "-c", code, package, *others)
    assert done.returncode == 0, done.stderr


def test_nothing_is_missing_and_only_torchx_contradicts(environment: Path) -> None:
    command = [sys.executable, "-m", "uv", "pip", "check", "--python", str(environment / "bin" / "python")]
    said = subprocess.run(command, capture_output=True, text=True).stderr
    contradictions = [line for line in said.splitlines() if line.startswith("The package ")]
    # Only TorchX's metadata ask for an old urllib3 (docs/decisions/0005). Its modules are imported by the test above,
    # and tests/unit/moe_operator/builders renders Jobs with it.
    version = pins("dev")["urllib3"]
    known = f"The package `torchx` requires `urllib3>=1.21.1,<1.27`, but `{version}` is installed"
    assert contradictions == ([known] if environment.name == "operator" else []), said
    assert contradictions or "All installed packages are compatible" in said


def test_the_urllib3_that_gets_no_more_corrections_is_nowhere() -> None:
    versions = {name: pins(name).get("urllib3") for name in FILES}
    assert {version.split(".")[0] for version in versions.values() if version} == {"2"}, versions


def test_what_knows_kubernetes_or_routes_has_no_tensor_library(environment: Path) -> None:
    packages = installed(environment)
    print(f"\n{environment.name}: {len(packages)} packages, {size(environment) / 1e6:.0f} MB")
    if environment.name in ("operator", "gateway", "client", "local"):
        assert not HEAVY & set(packages)
    if environment.name == "trainer":
        assert not {"kubernetes", "kopf", "torchx"} & set(packages)


def test_the_operators_packages_stay_within_their_budget(environment: Path) -> None:
    if environment.name == "operator":
        assert size(environment) < OPERATOR_BUDGET


def pins(name: str) -> dict[str, str]:
    """Package to version of a requirement file."""
    text = (REQUIREMENTS / f"{name}.txt").read_text()
    return dict(re.findall(r"^([A-Za-z0-9_.\[\]-]+)==([^ ;\\\n]+)", text, flags=re.MULTILINE))


FILES = sorted(path.stem for path in REQUIREMENTS.glob("*.txt"))


@pytest.mark.parametrize("name", FILES)
def test_every_requirement_is_pinned_by_hash_and_names_no_index(name: str) -> None:
    text = (REQUIREMENTS / f"{name}.txt").read_text()
    entries = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).strip())
    for entry in entries:
        assert re.match(r"[A-Za-z0-9_.\[\]-]+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry
    assert "://" not in text and "--index" not in text and "--find-links" not in text


@pytest.mark.parametrize("name", [name for name in FILES if name != "uv"])
def test_all_files_come_of_one_resolution(name: str) -> None:
    together = pins("dev")
    assert {
        package: version for package, version in pins(name).items() if together.get(package) != version
    } == {}


def test_what_pyproject_asks_for_is_in_the_files() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra, requirements in project["optional-dependencies"].items():
        wanted = {re.split(r"[<>=~ \[]", requirement)[0] for requirement in requirements}
        assert wanted <= set(pins(extra)), extra
