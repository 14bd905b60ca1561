"""What is generated is up to date, and `--check` would say so if it were not."""

from pathlib import Path

import pytest
import yaml

from moe_formats.resources.kinds import EXPERT, KINDS
from moe_formats.resources.reasons import Reason
from moe_operator.generate import __main__ as generate
from moe_operator.generate.manifests import MARK

ROOT = Path(__file__).parents[4]


Files = dict[str, str]


@pytest.fixture(scope="module")
def files() -> Files:
    """Every generated file: path to text."""
    return generate.generated_files()


@pytest.fixture
def checkout(tmp_path: Path, files: Files, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with every generated file."""
    monkeypatch.setattr(generate, "generated_files", lambda: files)
    (tmp_path / "pyproject.toml").touch()
    generate.write(tmp_path, files)
    return tmp_path


def test_what_is_generated_is_up_to_date(files: Files) -> None:
    assert generate.out_of_date(ROOT, files) == [], "run `make generate`"


def test_generating_twice_writes_nothing(checkout: Path, files: Files) -> None:
    assert generate.out_of_date(checkout, files) == []


def test_an_edited_a_missing_and_a_left_over_file_are_found_and_put_right(
    checkout: Path, files: Files
) -> None:
    (checkout / "crds/experts.yaml").write_text("edited")
    (checkout / "docs/reasons.md").unlink()
    (checkout / "crds/experttransfers.yaml").write_text(f"# {MARK}\nof a kind that is gone")
    (checkout / "docs/reference/moectl.md").write_text("Written by hand.")
    assert generate.out_of_date(checkout, files) == [
        "crds/experts.yaml",
        "crds/experttransfers.yaml",
        "docs/reasons.md",
    ]
    generate.write(checkout, files)
    assert generate.out_of_date(checkout, files) == []
    assert not (checkout / "crds/experttransfers.yaml").exists()
    assert (checkout / "docs/reference/moectl.md").exists()


def test_check_fails_and_names_the_file(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "crds/experts.yaml").write_text("edited")
    monkeypatch.setattr("sys.argv", ["generate", "--check", "--root", str(checkout)])
    with pytest.raises(SystemExit) as caught:
        generate.main()
    assert caught.value.code == 1
    assert "out of date: crds/experts.yaml" in capsys.readouterr().out
    assert (checkout / "crds/experts.yaml").read_text() == "edited"


def test_another_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["generate", "--root", str(tmp_path)])
    with pytest.raises(SystemExit):
        generate.main()
    assert "is not a checkout of moe-operator" in capsys.readouterr().err


def test_the_crds_are_valid_yaml_with_our_header(files: Files) -> None:
    for kind in KINDS:
        text = files[f"crds/{kind.plural}.yaml"]
        assert text.startswith("# Generated from formats/moe_formats/resources")
        assert yaml.safe_load(text)["metadata"]["name"] == f"{kind.plural}.moe-operator.dev"


def test_a_page_has_a_row_for_every_field_with_bounds_and_default(files: Files) -> None:
    page = files[f"docs/reference/{EXPERT.singular}.md"]
    row = next(line for line in page.splitlines() if line.startswith("| `training.learningRate`"))
    assert "| number | 0 < x ≤ 1 | `0.001` |" in row
    assert "- base needs exactly one of expert, preset and store" in page


def test_the_page_of_reasons_explains_every_reason(files: Files) -> None:
    page = files["docs/reasons.md"]
    for reason in Reason:
        assert f"| `{reason.value}` |" in page and len(reason.meaning) > 10
