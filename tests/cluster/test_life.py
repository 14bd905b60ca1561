"""From apply to served, with the small trainer: what everything else here rests on."""

import random

from stage import Stage


def test_an_expert_is_trained_judged_and_served(stage: Stage):
    stage.write("code")
    stage.pool()
    stage.expert("code")
    expert = stage.wait_ready("code")
    assert expert["status"]["currentRevision"] == "code-1"
    assert stage.status("code-1", "ExpertRevision")["verdict"]["outcome"] == "Promoted"
    assert stage.names("ExpertRevision") == ["code-1"]
    pool = stage.status("pool", "ExpertPool")
    assert pool["routing"]["digest"].startswith("sha256:")


def test_data_that_arrives_becomes_a_promoted_revision_and_nobody_touches_the_object(stage: Stage):
    stage.write("code")
    stage.pool()
    sources = [{"store": "corpora", "path": "code/*.txt"}]
    stage.expert("code", data={"sources": sources, "refresh": "realTime"})
    before = stage.wait_ready("code")
    deliver_tables(stage, "code")
    stage.wait("code-2 to serve", lambda: serving(stage) == "code-2", 240)
    revision = stage.get("ExpertRevision", "code-2") or {}
    assert revision["spec"]["cause"] == "NewData"
    assert revision["spec"]["inputs"]["parent"]["revision"] == "code-1"
    assert revision["status"]["verdict"]["outcome"] == "Promoted"
    assert revision["spec"]["newest"]["clusters"] >= 20
    after = stage.get("Expert", "code") or {}
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert after["status"]["refresh"]["next"] > after["status"]["refresh"]["last"]
    pipelines = stage.status("pool", "ExpertPool")["pipelines"]
    assert (pipelines["active"], pipelines["promotions"]) == (1, 1)
    assert 0 < pipelines["improvement"] < 1
    assert pipelines["bytes"] == after["status"]["snapshot"]["trainBytes"]


def serving(stage: Stage) -> str | None:
    return stage.status("code").get("serving", {}).get("revision")


def deliver_tables(stage: Stage, folder: str) -> None:
    """Put tables of numbers next to the text. They have no byte in common with it, so learning them costs it nothing."""
    arriving = stage.data / "arriving"
    arriving.mkdir()
    for number in range(100):
        dice = random.Random(number)
        rows = "\t".join(f"{dice.randint(1, 6)}{dice.randint(1, 6)}" for _ in range(400))
        (arriving / f"table-{number}.txt").write_text(rows)
    for path in sorted(arriving.iterdir()):
        path.rename(stage.data / folder / path.name)
