"""Check the pinned packages for known weaknesses: `make check` does, without a network.

`make audit INDEX=https://…/pypi` asks a package index again; INDEX is the address of its JSON API.

PyPI's JSON API lists the advisories of a release, from the Python Packaging Advisory Database, which pip-audit reads as
well. What it answered about each pinned package is kept in advisories.json. The check fails if a package is pinned that
was not asked about in that version, or if a version has an advisory that is not accepted below. Mirrors often answer
only for the newest release of a package. The check prints the packages that this leaves unknown.
"""

import argparse
import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
SNAPSHOT = FOLDER / "advisories.json"
#: Advisories that do not keep a version from being used: the advisory's id and the reason why it does not affect us.
ACCEPTED: Mapping[str, str] = {}
#: Seconds after which an answer of the index is no longer waited for.
TIMEOUT = 30

_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)

#: A package and its pinned version.
Pin = tuple[str, str]


@dataclass(frozen=True)
class Answer:
    """What the index said of one release."""

    #: Ids of its advisories; None if the index does not answer for this release.
    advisories: list[str] | None


def main() -> None:
    """Check the snapshot, after asking the index again with `--ask`. Exits with 1 and the reasons if it is not good."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ask", metavar="ADDRESS", help="ask this index, and write advisories.json")
    index = parser.parse_args().ask
    pins = pinned(FOLDER.glob("*.txt"))
    if index:
        try:
            write_snapshot(ask(pins, index), datetime.now(UTC).date().isoformat())
        except (OSError, ValueError) as error:
            sys.exit(
                f"the index at {index} did not answer as expected ({error}); {SNAPSHOT.name} is as it was"
            )
    asked, answers = read_snapshot()
    problems = check(pins, answers, ACCEPTED)
    print(summary(pins, answers, asked))
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(1 if problems else 0)


def pinned(files: Iterable[Path]) -> set[Pin]:
    """Return every package that a requirement file pins, with its version."""
    return {(name, version) for file in files for name, version in _PIN.findall(file.read_text())}


def check(pins: Iterable[Pin], answers: Mapping[Pin, Answer], accepted: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the pinned packages, one sentence per problem."""
    problems, found = [], set[str]()
    for name, version in sorted(pins):
        answer = answers.get((name, version))
        if answer is None:
            problems.append(
                f"{name} {version} was never asked about: run `make audit INDEX=…`, and commit {SNAPSHOT.name}"
            )
            continue
        for advisory in answer.advisories or ():
            found.add(advisory)
            if advisory not in accepted:
                problems.append(
                    f"{name} {version} has the known weakness {advisory}: pin a version without it"
                    f' (`make requirements UPGRADE="{name}"`), or accept it in audit.py with a reason'
                )
    for advisory in sorted(accepted.keys() - found):
        problems.append(f"{advisory} is accepted in audit.py, but no pinned package has it: remove the entry")
    return problems


def summary(pins: Iterable[Pin], answers: Mapping[Pin, Answer], asked: str) -> str:
    """Return how many packages are known to have no advisory, and the names of those of which nothing is known."""
    known = {pin: answers[pin].advisories for pin in pins if pin in answers}
    unknown = [f"{name} {version}" for (name, version), found in sorted(known.items()) if found is None]
    clean = sum(found == [] for found in known.values())
    text = f"{clean} of {len(known)} pinned packages had no known weakness on {asked}"
    return f"{text}; the index did not say of {len(unknown)}: {', '.join(unknown)}" if unknown else text


def ask(pins: Iterable[Pin], index: str) -> dict[Pin, Answer]:
    """Return the index's answer for every release. Raises OSError or ValueError if it does not answer with JSON."""
    with ThreadPoolExecutor(8) as pool:
        return dict(pool.map(lambda pin: (pin, _ask(pin, index.rstrip("/"))), sorted(pins)))


def _ask(pin: Pin, index: str) -> Answer:
    name, version = pin
    for address in (f"{index}/{name}/{version}/json", f"{index}/{name}/json"):
        page = _page(address)
        if page is not None and page["info"]["version"] == version:
            return Answer(sorted(item["id"] for item in page["vulnerabilities"] if not item.get("withdrawn")))
    return Answer(None)


def _page(address: str) -> Any:
    """Return the JSON at an address; None where the index has no such page."""
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def read_snapshot() -> tuple[str, dict[Pin, Answer]]:
    """Return the day on which the index was asked, and its answers."""
    content = json.loads(SNAPSHOT.read_text())
    return content["asked"], {
        (entry["name"], entry["version"]): Answer(entry["advisories"]) for entry in content["packages"]
    }


def write_snapshot(answers: Mapping[Pin, Answer], asked: str) -> None:
    """Write the answers, ordered by name."""
    packages = [
        {"name": name, "version": version, "advisories": answer.advisories}
        for (name, version), answer in sorted(answers.items())
    ]
    lines = ",\n".join("  " + json.dumps(entry) for entry in packages)
    SNAPSHOT.write_text(f'{{"asked": "{asked}", "packages": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
