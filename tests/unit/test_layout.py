"""What holds for the repository as a whole: where things are, and what must not be in it."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROGRAMS = (
    "formats/moe_formats",
    "operator/moe_operator",
    "trainer/moe_trainer",
    "gateway/moe_gateway",
    "web/moe_web",
    "client/moe_client",
    "local/moe_local",
)
#: Files whose lines are data rather than our words.
DATA = {".lock", ".sum", ".json", ".jsonl", ".safetensors", ".png", ".txt"}


def tracked() -> list[Path]:
    """Every file that is, or is about to be, in the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"git does not know this folder: {done.stderr.strip()}")
    return [ROOT / line for line in done.stdout.splitlines() if (ROOT / line).is_file()]


def lines(files: list[Path]) -> Iterator[tuple[str, str]]:
    """Every line of text with where it is."""
    for file in files:
        if file.suffix not in DATA and file != Path(__file__):
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                yield f"{file.relative_to(ROOT)}:{number}", line


def found(pattern: str, files: list[Path]) -> list[str]:
    """Where a pattern occurs."""
    return [f"{where}: {line.strip()}" for where, line in lines(files) if re.search(pattern, line)]


def test_no_folder_of_programs_shadows_the_standard_library() -> None:
    for program in PROGRAMS:
        assert not (ROOT / program).parent.joinpath("__init__.py").exists(), (
            f"{program} must not be a sub-package"
        )
        assert (ROOT / program / "__init__.py").is_file()


def test_the_standard_librarys_operator_module_is_still_found_from_the_root() -> None:
    import operator

    assert hasattr(operator, "itemgetter")


def test_no_path_of_somebodys_machine() -> None:
    assert found(r"/home/(?!someone)[a-z]|/Users/[a-z]|/root/|(^|[\s\"'`(])/work/", tracked()) == []


def test_no_package_index_is_named() -> None:
    index = (
        r"pypi\.org|pythonhosted|files\.python|proxy\.golang|registry\.npmjs|--index-url|--extra-index-url"
    )
    assert found(index, tracked()) == []


def test_no_pickle() -> None:
    python = [file for file in tracked() if file.suffix == ".py"]
    assert found(r"^\s*(import|from) (pickle|dill|cloudpickle|joblib)\b|torch\.load\(", python) == []


def test_modules_are_named_for_what_they_do() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
    packages = [file for file in tracked() if str(file.relative_to(ROOT)).startswith(PROGRAMS)]
    assert [file for file in packages if {part.removesuffix(".py") for part in file.parts[-3:]} & vague] == []


#: Test files that hold what several modules do together, with what that is.
SCENARIOS = {
    "moe_formats/resources/test_models.py": "objects as they are read and written",
    "moe_formats/resources/test_reasons_of_jobs.py": "a reason for everything that a Job or a server can report",
    "moe_formats/test_imports.py": "what the formats load",
    "moe_operator/builders/test_golden.py": "all manifests, as reviewed",
    "moe_operator/cluster/test_hostile_objects.py": "objects with any field missing or absurd",
    "moe_operator/generate/test_generate.py": "what is generated is up to date",
    "moe_operator/planner/test_foreign_objects.py": "objects of others that have the names of children",
    "moe_operator/planner/test_forged_pods.py": "pods that somebody made up change no decision",
    "moe_operator/planner/test_kills.py": "the operator is killed between any two writes",
    "moe_operator/planner/test_lifecycle.py": "Experts from apply to serving",
    "moe_operator/planner/test_queue.py": "a pool whose Jobs wait in a queue of Kueue",
    "moe_operator/planner/test_recorded_identities.py": "digests that earlier operators wrote",
    "moe_operator/test_idle_operator.py": "what an idle operator loads",
    "moe_trainer/snapshots/test_recorded_snapshot.py": "a snapshot that an earlier trainer wrote",
    "moe_trainer/sources/test_endless_listings.py": "globs and folders whose listing does not end",
    "moe_trainer/sources/test_swapped_files.py": "what lies in a source is swapped between listing and reading",
    "moe_trainer/snapshots/test_schemes.py": "what a pool's scheme changes in its snapshots",
    "moe_trainer/snapshots/test_source_weights.py": "weights from the spec to the mixture of sources",
}


def test_every_unit_test_is_named_after_the_module_that_it_holds() -> None:
    packages = {ROOT.joinpath(program).name: ROOT / program for program in PROGRAMS}
    unit = ROOT / "tests" / "unit"
    without = set()
    for test in sorted(unit.glob("*/**/test_*.py")):
        package, *folders, name = test.relative_to(unit).parts
        module = packages[package].joinpath(*folders, name.removeprefix("test_").removesuffix(".py"))
        if not (module.with_suffix(".py").is_file() or module.joinpath("__init__.py").is_file()):
            without.add(test.relative_to(unit).as_posix())
    assert without == set(SCENARIOS)


def test_every_module_is_small_enough_to_read() -> None:
    python = [
        file
        for file in tracked()
        if file.suffix == ".py" and str(file.relative_to(ROOT)).startswith(PROGRAMS)
    ]
    longest = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in python}
    assert {name: length for name, length in longest.items() if length > 500} == {}


def test_the_licence_is_apache_2_0() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS" in text
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"] == "Apache-2.0"


def test_every_console_script_names_a_function_that_exists() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for target in scripts.values():
        module, function = target.split(":")
        package = module.split(".")[0]
        (folder,) = [ROOT / program for program in PROGRAMS if program.endswith(package)]
        source = folder.joinpath(*module.split(".")[1:]).with_suffix(".py").read_text()
        assert re.search(rf"^def {function}\(|^{function} = ", source, flags=re.MULTILINE), target


def test_the_chart_installs_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((ROOT / "charts" / "moe-operator" / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == project["version"]


def test_links_between_pages_lead_somewhere() -> None:
    for page in (file for file in tracked() if file.suffix == ".md"):
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
