"""The real drift and matrix Jobs on a real cluster: text that an Expert no longer fits is found out, and nobody asked for it."""

import json
from collections.abc import Callable, Iterator

import pytest
from small_trainer.behaviour import Behaviour
from stage import Stage, made_up_text


@pytest.fixture(scope="module")
def stage(new_stage: Callable[[str], Stage]) -> Iterator[Stage]:
    """A base and an Expert of a domain that branches from it, both serving."""
    stage = new_stage("drift")
    for folder in ("code", "prose"):
        stage.write(folder)
    both = [{"store": "corpora", "path": f"{folder}/*.txt"} for folder in ("code", "prose")]
    stage.pool()
    stage.expert("general", domain=None, data={"sources": both})
    stage.expert("code", base={"expert": "general"})
    stage.wait_ready("code")
    yield stage
    stage.clear()


def measured(stage: Stage, revision: str, windows: int) -> bool:
    """Return whether the status has the drift of a revision on so many windows."""
    drift = stage.status("code").get("drift") or {}
    return drift.get("revision") == revision and len(drift.get("windows", [])) == windows


def test_text_like_the_first_shows_no_drift(stage: Stage) -> None:
    assert stage.wait_for("code", "Drifted", "Unknown")["reason"] == "TooFewWindows"
    for delivery in (1, 2):
        stage.write("code", seed=delivery)
        stage.patch("Expert", "code", {"spec": {"runID": f"delivery-{delivery}"}})
        revision = f"code-{delivery + 1}"
        stage.wait("its measurement", lambda of=revision, number=delivery: measured(stage, of, number))
    condition = stage.wait_for("code", "Drifted", "False")
    assert condition["reason"] == "NotDrifted", condition
    drift = stage.status("code")["drift"]
    assert drift["base"] == "general-1" and drift["clusters"] >= 20
    assert drift["lowerBound"] < 0.01 and "cause" not in drift


def test_text_that_it_does_not_fit_is_drift_though_no_revision_comes_of_it(stage: Stage) -> None:
    for number in range(150):
        (stage.data / "code" / f"strange-{number}.txt").write_text(made_up_text("strange", f"{number}", 120))
    stage.patch("Expert", "code", {"spec": {"seed": int(Behaviour.BACKWARDS), "runID": "strange"}})
    condition = stage.wait_for("code", "Drifted", "True")
    assert stage.status("code-4", "ExpertRevision")["verdict"]["outcome"] == "Refused"
    assert condition["reason"] == "QualityDrop" and condition["message"].startswith("code-3: ")
    drift = stage.status("code")["drift"]
    assert (drift["revision"], drift["drifted"], len(drift["windows"])) == ("code-3", True, 3)
    assert drift["lowerBound"] > 0.01
    stage.wait("its event", lambda: any(item["reason"] == "QualityDrop" for item in stage.all("Event")))


def test_the_full_matrix_is_filled_on_the_pools_schedule(stage: Stage) -> None:
    assert "matrix" not in stage.status("pool", "ExpertPool")
    stage.pool(evaluation={"holdout": 0.3, "schedule": "weekly"})
    filled = stage.wait("the matrix", lambda: stage.status("pool", "ExpertPool").get("matrix"))
    assert (filled["revisions"], filled["anchors"], filled["cells"]) == (2, 1, 2)
    text = (stage.volume("pool-store") / filled["path"]).read_text()
    found = {(entry["revision"], entry["domain"]) for entry in json.loads(text)["entries"]}
    assert found == {("code-3", "code"), ("general-1", "code")}
