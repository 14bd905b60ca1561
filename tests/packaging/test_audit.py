"""Known weaknesses of pinned packages: what the check refuses, and how an index is asked."""

import importlib.util
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).parents[2] / "requirements"

spec = importlib.util.spec_from_file_location("requirements_audit", REQUIREMENTS / "audit.py")
assert spec is not None and spec.loader is not None
audit = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = audit  # dataclasses look their module up
spec.loader.exec_module(audit)

PIN = ("urllib3", "1.26.20")
#: What the index of the tests has: pages by path.
PAGES = {
    "/pypi/urllib3/json": {"info": {"version": "2.8.0"}, "vulnerabilities": []},
    "/pypi/pyyaml/5.3/json": {
        "info": {"version": "5.3"},
        "vulnerabilities": [
            {"id": "PYSEC-2"},
            {"id": "PYSEC-1"},
            {"id": "PYSEC-0", "withdrawn": "2020-01-01"},
        ],
    },
}


@pytest.fixture
def index() -> Iterator[str]:
    """The address of an index that answers only for some releases, as mirrors do."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = PAGES.get(self.path)
            self.send_response(404 if page is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(page).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/pypi/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_pin_that_was_not_asked_about_is_a_problem() -> None:
    (problem,) = audit.check({PIN}, {}, {})
    assert problem.startswith("urllib3 1.26.20 was never asked about: run `make audit")


def test_a_known_weakness_is_a_problem_unless_it_is_accepted_with_a_reason() -> None:
    answers = {PIN: audit.Answer(["PYSEC-1"])}
    (problem,) = audit.check({PIN}, answers, {})
    assert problem.startswith("urllib3 1.26.20 has the known weakness PYSEC-1: pin a version without it")
    assert audit.check({PIN}, answers, {"PYSEC-1": "we open no such connection"}) == []


def test_an_acceptance_that_nothing_needs_is_a_problem() -> None:
    (problem,) = audit.check({PIN}, {PIN: audit.Answer([])}, {"PYSEC-1": "long ago"})
    assert problem == "PYSEC-1 is accepted in audit.py, but no pinned package has it: remove the entry"


def test_what_the_index_does_not_say_is_named_and_not_called_clean() -> None:
    answers = {PIN: audit.Answer(None), ("kopf", "1.0"): audit.Answer([])}
    assert audit.summary(answers, answers, "2026-01-01") == (
        "1 of 2 pinned packages had no known weakness on 2026-01-01; the index did not say of 1: urllib3 1.26.20"
    )


def test_an_index_is_asked_for_the_release_and_then_for_the_newest_one(index: str) -> None:
    asked = audit.ask({PIN, ("urllib3", "2.8.0"), ("pyyaml", "5.3"), ("nowhere", "1")}, index)
    assert {pin: answer.advisories for pin, answer in asked.items()} == {
        PIN: None,
        ("urllib3", "2.8.0"): [],
        ("pyyaml", "5.3"): ["PYSEC-1", "PYSEC-2"],
        ("nowhere", "1"): None,
    }


def test_every_pinned_package_of_every_file_was_asked_about() -> None:
    pins = audit.pinned(REQUIREMENTS.glob("*.txt"))
    assert len(pins) > 100
    _, answers = audit.read_snapshot()
    assert audit.check(pins, answers, audit.ACCEPTED) == []
