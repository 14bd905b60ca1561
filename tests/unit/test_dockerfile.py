"""The Dockerfile, read: every image installs its own requirements by hash and runs as nobody."""

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = {"operator": "moe-operator", "gateway": "moe-gateway", "trainer": "moe-trainer"}


def stages() -> dict[str, list[str]]:
    """The instructions of every stage, by its name; continued lines joined, comments left out."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    result: dict[str, list[str]] = {}
    for line in (line.strip() for line in text.splitlines()):
        if match := re.fullmatch(r"FROM \S+ AS (\S+)", line):
            result[match[1]] = [line]
        elif line and not line.startswith("#") and result:
            result[list(result)[-1]].append(line)
    return result


def test_there_is_a_target_for_every_program_that_runs_in_a_cluster() -> None:
    assert set(stages()) == {"build", "base", *PROGRAMS}


@pytest.mark.parametrize("target", PROGRAMS)
def test_an_image_installs_its_own_requirements_by_hash_and_the_wheel_without_an_index(target: str) -> None:
    lines = stages()[target]
    assert f"COPY requirements/{target}.txt /requirements.txt" in lines
    installs = [line for line in lines if "pip install" in line]
    assert len(installs) == 2
    assert "--no-deps --require-hashes -r /requirements.txt" in installs[0]
    assert "--no-deps --no-index /wheels/*.whl" in installs[1]


@pytest.mark.parametrize(("target", "program"), PROGRAMS.items())
def test_an_image_runs_its_program_as_an_ordinary_user(target: str, program: str) -> None:
    lines = stages()[target]
    assert lines[-2:] == ["USER 65532:65532", f'ENTRYPOINT ["{program}"]']
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert json.loads(lines[-1].removeprefix("ENTRYPOINT ")) == [program] and program in scripts


def test_whatever_is_copied_exists_and_is_not_ignored() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for lines in stages().values():
        for line in lines:
            if line.startswith("COPY "):
                for source in line.split()[1:-1]:
                    assert (ROOT / source).exists(), source
                    assert source in allowed or f"{Path(source).parent}/*.txt" in allowed, source


def test_every_package_of_the_wheel_is_copied_into_the_build() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    copied = {line.split()[1] for line in stages()["build"] if line.startswith("COPY ")}
    assert {Path(package).parts[0] for package in packages["packages"]} <= copied
