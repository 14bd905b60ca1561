"""From apply to served, with the small trainer: what everything else here rests on."""

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
