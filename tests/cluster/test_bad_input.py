"""Every wrong thing that a user can give: a clear condition or a refusal, and a good Expert beside it all."""

import json
import os
from collections.abc import Callable, Iterator

import pytest
from stage import Refused, Stage, made_up_text


@pytest.fixture(scope="module")
def stage(new_stage: Callable[[str], Stage]) -> Iterator[Stage]:
    """A pool with one good Expert and every bad one, all applied at once."""
    stage = new_stage("bad-input")
    stage.write("good")
    _write_bad_data(stage)
    stage.pool()
    for name in ("absent", "empty", "binary", "leads-out", "too-small"):
        stage.expert(name)
    for name in ("half-broken", "mostly-broken"):
        source = {"store": "corpora", "path": f"{name}/*.jsonl", "format": "jsonl"}
        stage.expert(name, data={"sources": [source]})
    stage.expert("poolless", pool="nowhere")
    stage.expert("profileless", training={"resources": {"profile": "quantum"}})
    stage.expert("storeless", data={"sources": [{"store": "attic", "path": "*"}]})
    stage.expert("presetless", base={"preset": "huge"})
    stage.expert("shortsighted", training={"contextTokens": 383})
    stage.expert("baseless", base={"expert": "nobody"})
    stage.expert("hen", base={"expert": "egg"})
    stage.expert("egg", base={"expert": "hen"})
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    stage.apply("PersistentVolumeClaim", "payroll", claim)
    stage.expert("curious", data={"sources": [{"claim": "payroll", "path": "*.txt"}]})
    stage.pool("squatter", storage={"claim": "payroll"})
    stage.expert("squatting", pool="squatter", folder="good")
    stage.expert("claimless", data={"sources": [{"claim": "attic", "path": "*"}]})
    stage.expert("good")
    yield stage
    stage.clear()


def _write_bad_data(stage: Stage) -> None:
    for folder in ("empty", "binary", "leads-out", "too-small", "half-broken", "mostly-broken"):
        (stage.data / folder).mkdir()
    (stage.data / "empty" / "a.txt").write_text("")
    (stage.data / "binary" / "a.txt").write_bytes(os.urandom(4096))
    (stage.data / "leads-out" / "a.txt").symlink_to("/etc/hostname")
    stage.write("too-small", documents=12)
    good = json.dumps({"text": "a record that can be read"})
    (stage.data / "mostly-broken" / "a.jsonl").write_text("\n".join([good] + ['{"text": '] * 9))
    stage.write("half-broken")
    texts = [path.read_text() for path in sorted((stage.data / "half-broken").glob("*.txt"))]
    records = [json.dumps({"text": text}) for text in texts]
    (stage.data / "half-broken" / "a.jsonl").write_text("\n".join(records + ['{"text": 7}', "{", "[]"] * 40))


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        ("poolless", "WaitingForPool", "nowhere"),
        ("profileless", "UnknownProfile", "quantum"),
        ("storeless", "UnknownStore", "attic"),
        ("claimless", "ClaimNotFound", "attic"),
        ("curious", "ClaimNotAllowed", "kubectl label pvc payroll moe-operator.dev/use=source"),
        ("squatting", "ClaimNotAllowed", "kubectl label pvc payroll moe-operator.dev/use=store"),
        ("presetless", "UnknownPreset", "huge"),
        ("shortsighted", "ContextTooShort", "spec.training.contextTokens is 383"),
        ("baseless", "BaseNotFound", "nobody"),
        ("hen", "BaseCycle", "hen -> egg -> hen"),
        ("egg", "BaseCycle", "egg -> hen -> egg"),
    ],
)
def test_what_refers_to_nothing_is_stalled_with_what_there_is(
    stage: Stage, name: str, reason: str, words: str
):
    stalled = stage.wait_for(name, "Stalled", reason=reason)
    assert words in stalled["message"]
    assert stage.condition(name, "Ready")["status"] == "False"
    assert not [job for job in stage.names("Job") if job.startswith(f"{name}-")]


def test_another_teams_claim_is_mounted_by_nothing_until_it_is_labelled(stage: Stage):
    stage.wait_for("squatter", "StorageReady", "False", reason="ClaimNotAllowed", kind="ExpertPool")
    stage.wait_for("curious", "Stalled", reason="ClaimNotAllowed")
    everything = [item for kind in ("Job", "Deployment", "Pod") for item in stage.all(kind)]
    assert not [item["metadata"]["name"] for item in everything if "payroll" in json.dumps(item["spec"])]
    folder = stage.volume("payroll")
    for number in range(12):
        (folder / f"{number}.txt").write_text(made_up_text("payroll", str(number)))
    stage.patch(
        "PersistentVolumeClaim", "payroll", {"metadata": {"labels": {"moe-operator.dev/use": "source"}}}
    )
    stage.wait_for("curious", "DataReady")
    assert 0 < stage.status("curious")["snapshot"]["documents"] <= 12
    assert stage.condition("squatting", "Stalled")["reason"] == "ClaimNotAllowed"
    assert not [job for job in stage.names("Job") if job.startswith("squatting-")]


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        ("absent", "DataMissing", "no file matches"),
        ("empty", "DataEmpty", "hold no text"),
        ("binary", "DataUnreadable", "binary"),
        ("mostly-broken", "DataUnreadable", "9"),
        ("leads-out", "PathNotAllowed", "leads out"),
    ],
)
def test_bad_data_is_stalled_with_the_file_and_the_counts(stage: Stage, name: str, reason: str, words: str):
    stalled = stage.wait_for(name, "Stalled", reason=reason)
    assert words in stalled["message"]
    assert stage.names("ExpertRevision", f"{name}-") == []


def test_half_broken_records_are_counted_and_the_rest_is_used(stage: Stage):
    stage.wait_for("half-broken", "DataReady")
    dropped = stage.status("half-broken")["snapshot"]["dropped"]
    assert sum(dropped.values()) == 120
    assert stage.status("half-broken")["snapshot"]["documents"] > 50


def test_a_holdout_that_is_too_small_waits_for_data_and_refuses_nothing(stage: Stage):
    stage.wait("a verdict", lambda: stage.status("too-small-1", "ExpertRevision").get("verdict"))
    verdict = stage.status("too-small-1", "ExpertRevision")["verdict"]
    assert (verdict["outcome"], verdict["reason"], verdict["final"]) == ("Waiting", "HoldoutTooSmall", False)
    assert stage.status("too-small").get("currentRevision") is None


def test_the_good_one_is_not_affected(stage: Stage):
    expert = stage.wait_ready("good")
    assert expert["status"]["serving"]["revision"] == "good-1"


def test_twins_are_legal_and_warned_of(stage: Stage):
    stage.expert("twin", domain="good", folder="good")
    message = stage.wait("a warning", lambda: _event(stage, "twin", "TwinDomain"))
    assert "good" in message
    assert stage.wait_ready("twin")["status"]["currentRevision"] == "twin-1"


def _event(stage: Stage, name: str, reason: str) -> str:
    events = [item for item in stage.all("Event") if item["involvedObject"]["name"] == name]
    return next((item["message"] for item in events if item["reason"] == reason), "")


def test_names_are_bounded(stage: Stage):
    with pytest.raises(Refused, match="40"):
        stage.expert("a" * 41)


@pytest.mark.parametrize("path", ["../secrets", "a/../../b", "/etc/passwd", ""])
def test_a_path_out_of_the_store_is_refused(stage: Stage, path: str):
    with pytest.raises(Refused, match="path"):
        stage.expert("pathless", data={"sources": [{"store": "corpora", "path": path}]})


def test_a_target_beyond_its_range_is_refused(stage: Stage):
    with pytest.raises(Refused, match="specializationScore"):
        stage.expert("ambitious", targets={"specializationScore": 1.2})


@pytest.mark.parametrize(
    ("change", "words"),
    [({"domain": "other"}, "domain is immutable"), ({"pool": "other"}, "pool is immutable")],
)
def test_what_is_immutable_stays(stage: Stage, change: dict[str, str], words: str):
    with pytest.raises(Refused, match=words):
        stage.patch("Expert", "good", {"spec": change})


def test_the_split_of_a_pool_never_changes(stage: Stage):
    with pytest.raises(Refused, match="immutable"):
        stage.patch("ExpertPool", "pool", {"spec": {"evaluation": {"holdout": 0.2}}})


def test_a_spec_of_300_kb_is_refused(stage: Stage):
    sources = [{"store": "corpora", "path": "a" * 200} for _ in range(1500)]
    with pytest.raises(Refused, match="sources"):
        stage.expert("huge", data={"sources": sources})


def test_a_number_in_quotes_is_refused_by_its_field(stage: Stage):
    with pytest.raises(Refused, match="learningRate"):
        stage.expert("quoted", training={"learningRate": "0.1"})
