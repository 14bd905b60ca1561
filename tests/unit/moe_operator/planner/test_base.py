"""An Expert whose base is a checkpoint of a data store."""

import json
from typing import Any

import pytest
from world import CONFIG, World

from moe_formats import store
from moe_formats.job_report import Unreadable
from moe_operator.config import Store

FIRST, SECOND = ("sha256:" + digit * 64 for digit in "12")


def base(digest: str) -> dict[str, str]:
    return {"store": "corpora", "path": "models/small", "digest": digest}


def world_with_base(digest: str, **pool: Any) -> World:
    world = World()
    world.pool(**pool)
    world.expert("code", base=base(digest))
    world.settle()
    return world


def job_configs(world: World) -> list[dict[str, Any]]:
    containers = [job["spec"]["template"]["spec"]["containers"][0] for job in world.all("Job")]
    return [
        json.loads(item["value"])
        for container in containers
        for item in container["env"]
        if item["name"] == "MOE_JOB_CONFIG"
    ]


def snapshot_configs(world: World) -> list[dict[str, Any]]:
    return [config for config in job_configs(world) if config["kind"] == "snapshot"]


def parent(world: World, revision: str) -> dict[str, Any]:
    found: dict[str, Any] = world.get("ExpertRevision", revision)["spec"]["inputs"]["parent"]
    return found


def test_the_snapshot_job_copies_it_and_the_revision_starts_from_the_copy() -> None:
    world = world_with_base(FIRST)
    (config,) = snapshot_configs(world)
    assert config["base"] == {"root": "corpora", "path": "models/small", "digest": FIRST}
    found = parent(world, "code-1")
    assert (found["path"], found["digest"]) == (store.imported(config["poolUid"], FIRST), FIRST)
    assert not found.get("ancestry")
    assert world.status("code").phase == "Serving"
    assert "what it was trained on is unknown" in world.condition("code", "BaseModelReady")[2]


@pytest.mark.parametrize(("segment_bytes", "told"), [(None, None), (256, None), (3968, 3968)])
def test_every_job_that_cuts_segments_is_told_the_size_of_the_pools(
    segment_bytes: int | None, told: int | None
) -> None:
    given = {"segmentBytes": segment_bytes} if segment_bytes is not None else {}
    world = world_with_base(FIRST, evaluation=given)
    world.expert("prose", base=base(FIRST), training={"contextTokens": 4096})
    world.settle()
    sizes: dict[str, set[int | None]] = {}
    for config in job_configs(world):
        sizes.setdefault(config["kind"], set()).add(config.get("segmentBytes"))
    assert sizes == {"snapshot": {told}, "train": {None}, "evaluate": {told}, "distill": {told}}
    sequences = {config["expert"]["name"]: config.get("contextTokens") for config in snapshot_configs(world)}
    assert sequences == {"code": None, "prose": 4096}


def test_it_is_what_the_first_revision_is_measured_against() -> None:
    world = world_with_base(FIRST)
    assert world.status("code").scores.gain is not None


def test_another_checkpoint_makes_another_revision_and_the_same_one_none() -> None:
    world = world_with_base(FIRST)
    world.change("code", base=base(FIRST) | {"path": "models/moved"})
    world.settle()
    assert world.status("code").current_revision == "code-1"
    world.change("code", base=base(SECOND))
    world.settle()
    assert parent(world, "code-2")["digest"] == SECOND
    assert world.status("code").current_revision == "code-2"


def test_new_data_goes_on_from_the_current_revision() -> None:
    world = world_with_base(FIRST)
    world.data["code"] = 2
    world.change("code", data={"sources": [{"store": "corpora", "path": "code/more-*.txt"}]})
    world.settle()
    assert parent(world, "code-2")["revision"] == "code-1"


def contamination(world: World, expert: str) -> tuple[str | None, str | None]:
    """Return what the scores of the current revision say, and what the Expert's status repeats."""
    revision = world.get("ExpertRevision", str(world.status(expert).current_revision))
    found: str | None = revision["status"]["evidence"]["scores"].get("contamination")
    return found, world.status(expert).scores.contamination


def test_its_contamination_is_unknown_and_so_is_that_of_all_that_descends_from_it() -> None:
    world = world_with_base(FIRST)
    world.expert("python", base={"expert": "code"})
    world.expert("scratch", base={"preset": "tiny"})
    world.settle()
    world.data["python"] = 2
    world.change("python", data={"sources": [{"store": "corpora", "path": "python/more-*.txt"}]})
    world.settle()
    assert parent(world, "python-1")["revision"] == "code-1"
    assert parent(world, "python-2")["revision"] == "python-1"
    assert world.status("python").current_revision == "python-2"
    assert contamination(world, "code") == contamination(world, "python") == ("Unknown", "Unknown")
    assert contamination(world, "scratch") == (None, None)
    message = world.condition("python", "BaseModelReady")[2]
    assert "branches from code-1; not everything that it was trained on is known" in message


def test_it_is_said_while_either_side_descends_from_it_and_decides_nothing() -> None:
    world = world_with_base(FIRST)
    world.change("code", base={"preset": "tiny"})
    world.settle()
    assert "parent" not in world.get("ExpertRevision", "code-2")["spec"]["inputs"]
    assert world.status("code").current_revision == "code-2"
    assert contamination(world, "code") == ("Unknown", "Unknown")
    world.data["code"] = 2
    world.change("code", data={"sources": [{"store": "corpora", "path": "code/more-*.txt"}]})
    world.settle()
    assert world.status("code").current_revision == "code-3"
    assert contamination(world, "code") == (None, None)


@pytest.mark.parametrize("between", [[], ["middle"]])
def test_a_snapshot_is_told_the_checkpoint_that_its_base_expert_descends_from(between: list[str]) -> None:
    world = World()
    world.pool()
    world.expert("root", base=base(FIRST))
    for child, above in zip([*between, "code"], ["root", *between], strict=True):
        world.expert(child, base={"expert": above})
    world.settle()
    told = {config["expert"]["name"]: config for config in snapshot_configs(world)}
    assert told["code"]["rootBase"] == {"root": "corpora", "path": "models/small", "digest": FIRST}
    assert "base" not in told["code"]
    assert "rootBase" not in told["root"]


@pytest.mark.parametrize("root", [{"preset": "tiny"}, {**base(FIRST), "store": "unknown"}])
def test_a_snapshot_is_told_no_checkpoint_where_there_is_none(root: dict[str, str]) -> None:
    world = World()
    world.pool()
    world.expert("root", base=root)
    world.expert("code", base={"expert": "root"})
    world.reconcile("Expert", "code")
    (told,) = [config for config in snapshot_configs(world) if config["expert"]["name"] == "code"]
    assert "rootBase" not in told


def test_a_snapshot_reads_no_store_that_its_namespace_may_not_use() -> None:
    """An Expert that names such a store is refused, and must not lend it to the Experts that name it as their base."""
    elsewhere = Store(claim="payroll", namespaces=("accounting",))
    world = World(CONFIG.model_copy(update={"stores": {**CONFIG.stores, "payroll": elsewhere}}))
    world.pool()
    world.expert("root", base={**base(FIRST), "store": "payroll"})
    world.expert("code", base={"expert": "root"})
    world.reconcile("Expert", "code")
    (told,) = [config for config in snapshot_configs(world) if config["expert"]["name"] == "code"]
    assert "rootBase" not in told
    assert "payroll" not in json.dumps([dict(job["spec"]) for job in world.all("Job")])


def test_a_tokenizer_that_could_not_be_tried_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.pool()
    world.expert("root", base=base(FIRST))
    world.expert("code", base={"expert": "root"})
    made = world.trainer._snapshot
    found = Unreadable(segments=0, of=100, why="corpora/models/small holds no checkpoint")
    monkeypatch.setattr(
        world.trainer, "_snapshot", lambda job: made(job).model_copy(update={"unreadable": found})
    )
    world.settle()
    assert (
        "whether the base's tokenizer gives the text of the 100 held-out segments back could not be tried, so some may not "
        "be measured: corpora/models/small holds no checkpoint"
    ) in world.condition("code", "DataReady")[2]


def reads(world: World, expert: str) -> list[dict[str, Any]]:
    """Return what the snapshot Jobs of an Expert were told, oldest first."""
    return [config for config in snapshot_configs(world) if config["expert"]["name"] == expert]


def test_a_snapshot_is_told_the_pinned_revision_whatever_its_expert_starts_from_by_now() -> None:
    world = world_with_base(FIRST)
    world.expert("python", base={"expert": "code"})
    world.settle()
    world.change("code", base=base(SECOND))
    world.settle()
    assert world.status("code").current_revision == "code-2"
    world.change("python", runID="again")
    world.settle()
    told = reads(world, "python")[-1]
    assert (told["baseArtefact"]["revision"], "rootBase" in told) == ("code-1", False)
    assert parent(world, "python-2")["revision"] == "code-1"


@pytest.mark.parametrize("other", [{"expert": "other"}, {"preset": "tiny"}])
def test_another_base_asks_for_a_snapshot_since_its_tokenizer_may_give_other_text_back(
    other: dict[str, str],
) -> None:
    world = world_with_base(FIRST)
    world.expert("other", base=base(SECOND))
    world.expert("python", base={"expert": "code"})
    world.settle()
    assert len(reads(world, "python")) == 1
    world.change("python", base=other)
    world.settle()
    taken = [name for name in world.created if name.startswith("python-snapshot-")]
    assert len(taken) == len(set(taken)) == 2
    told = reads(world, "python")[-1]
    assert told.get("baseArtefact", {}).get("revision") == ("other-1" if "expert" in other else None)
    assert world.status("python").current_revision == "python-2"
    before = world.writes
    world.settle()
    assert world.writes == before


def test_a_base_that_is_changed_while_the_first_snapshot_is_taken_is_tried_by_another_one() -> None:
    world = world_with_base(FIRST)
    world.expert("other", base=base(SECOND))
    world.settle()
    world.expert("python", base={"expert": "code"})
    while not reads(world, "python"):
        world.reconcile("Expert", "python")
    assert reads(world, "python")[-1]["baseArtefact"]["revision"] == "code-1"
    world.change("python", base={"expert": "other"})
    world.settle()
    taken = [name for name in world.created if name.startswith("python-snapshot-")]
    assert len(taken) == len(set(taken)) == 2
    assert reads(world, "python")[-1]["baseArtefact"]["revision"] == "other-1"
    assert world.status("python").snapshot.base == "other"
    assert world.status("python").current_revision == "python-1"
    assert parent(world, "python-1")["revision"] == "other-1"
    before = world.writes
    world.settle()
    assert world.writes == before


def test_an_upgrade_asks_for_no_snapshot_that_an_earlier_operator_took_for_another_base() -> None:
    world = world_with_base(FIRST)
    world.expert("other", base=base(SECOND))
    world.expert("python", base={"expert": "code"})
    world.settle()
    world.edit("Expert", "python", {"status": {"snapshot": {"base": None}}})
    world.change("python", base={"expert": "other"})
    world.settle()
    assert len([name for name in world.created if name.startswith("python-snapshot-")]) == 1
    assert world.status("python").current_revision == "python-2"
