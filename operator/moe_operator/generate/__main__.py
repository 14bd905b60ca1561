"""`python -m moe_operator.generate [--check]`: write what follows from the models, or say what is out of date."""

import argparse
import sys
from pathlib import Path

from moe_operator.generate.manifests import MARK, chart_crd_files, crd_files
from moe_operator.generate.pages import reason_page, reference_pages
from moe_operator.generate.rules import rules_file
from moe_operator.generate.values import values_schema_file

#: Where a file that bears our mark but is not generated any more is out of date too.
FOLDERS = ("crds", "charts/moe-operator/templates/crds", "docs/reference")


def generated_files() -> dict[str, str]:
    """Return path beneath the repository to text of every generated file."""
    return (
        crd_files()
        | chart_crd_files()
        | rules_file()
        | values_schema_file()
        | reference_pages()
        | reason_page()
    )


def out_of_date(root: Path, files: dict[str, str]) -> list[str]:
    """Return the paths whose text differs, is missing, or should not be there."""
    differing = [path for path, text in files.items() if _read(root / path) != text]
    present = [
        path for folder in FOLDERS for path in (root / folder).glob("*.*") if MARK in (_read(path) or "")
    ]
    left_over = [str(path.relative_to(root)) for path in present if str(path.relative_to(root)) not in files]
    return sorted(differing + left_over)


def write(root: Path, files: dict[str, str]) -> None:
    """Make the files as they should be, and remove what is left over from before."""
    for path in out_of_date(root, files):
        if path in files:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(files[path], encoding="utf-8")
        else:
            (root / path).unlink()


def main() -> None:
    """Write or check; exit code 1 where `--check` finds something out of date."""
    parser = argparse.ArgumentParser(prog="python -m moe_operator.generate", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; fail where a file is out of date"
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=Path(__file__).resolve().parents[3],
        help="the repository (default: this one)",
    )
    arguments = parser.parse_args()
    if not (arguments.root / "pyproject.toml").is_file():
        parser.error(f"--root {arguments.root} is not a checkout of moe-operator: it has no pyproject.toml")
    files = generated_files()
    stale = out_of_date(arguments.root, files)
    if not arguments.check:
        write(arguments.root, files)
    for path in stale:
        print(f"{'out of date' if arguments.check else 'written'}: {path}")
    if arguments.check and stale:
        print("run `make generate` and commit what it writes")
        sys.exit(1)


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


if __name__ == "__main__":
    main()
