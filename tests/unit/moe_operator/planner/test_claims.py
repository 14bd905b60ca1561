"""A claim takes part only if somebody who may change it, or the platform's owner, has said so.

The attacker of these tests may write Experts and pools and nothing else. The claim ``payroll`` is another team's.
"""

from datetime import timedelta
from typing import Any

import pytest
from world import CONFIG, POOL, World
from world.manifests import job_config

from moe_operator.config import Store

READS_PAYROLL = {"data": {"sources": [{"claim": "payroll", "path": "*.csv"}]}}
ASKS_PAYROLL = {"targets": {"accuracy": {"evaluator": "sums", "min": 0.5}}}
ITEMS_IN_PAYROLL = {
    "evaluation": {
        "evaluators": [{"name": "sums", "measure": "exactMatch", "claim": "payroll", "path": "*.jsonl"}]
    }
}


def world_with(expert: dict[str, Any], **pool: Any) -> World:
    """Return a world in which everything has happened that can: an Expert of a pool, next to a claim of another team."""
    world = World()
    world.claim("payroll")
    world.pool(**pool)
    world.expert("code", base={"preset": "tiny"}, **expert)
    world.settle()
    return world


def jobs(world: World) -> list[str]:
    return [job["metadata"]["name"] for job in world.all("Job")]


def mounted(world: World) -> set[str]:
    """Return the claims that any pod template mounts."""
    owners = [*world.all("Job"), *world.all("Deployment")]
    volumes = [item for owner in owners for item in owner["spec"]["template"]["spec"]["volumes"]]
    return {item["persistentVolumeClaim"]["claimName"] for item in volumes if "persistentVolumeClaim" in item}


READ_CASES = pytest.mark.parametrize(
    ("expert", "pool", "field"),
    [
        (READS_PAYROLL, {}, "spec.data.sources[0].claim"),
        (ASKS_PAYROLL, ITEMS_IN_PAYROLL, f"evaluator 'sums' of pool {POOL}"),
    ],
    ids=["source", "evaluator"],
)


@READ_CASES
def test_nothing_reads_a_claim_that_nobody_opened(
    expert: dict[str, Any], pool: dict[str, Any], field: str
) -> None:
    world = world_with(expert, **pool)
    assert jobs(world) == []
    status, reason, message = world.condition("code", "Stalled")
    assert (status, reason) == ("True", "ClaimNotAllowed")
    for part in (field, "'payroll'", "kubectl label pvc payroll moe-operator.dev/use=source"):
        assert part in message


@READ_CASES
def test_an_expert_goes_on_as_soon_as_its_claim_is_labelled(
    expert: dict[str, Any], pool: dict[str, Any], field: str
) -> None:
    world = world_with(expert, **pool)
    before = world.now
    world.claim("payroll", use="source")
    world.run(until=before + timedelta(seconds=1))
    assert [name for name in jobs(world) if "-snapshot-" in name]
    world.settle()
    assert world.status("code").phase == "Serving"
    assert world.condition("code", "Stalled")[0] == "False"


def test_nothing_is_stored_in_a_claim_that_nobody_opened() -> None:
    world = world_with({}, storage={"claim": "payroll"})
    assert mounted(world) == set()
    for status, reason, message in (
        world.pool_condition("StorageReady"),
        world.pool_condition("Ready"),
        world.condition("code", "Ready"),
    ):
        assert (status, reason) == ("False", "ClaimNotAllowed")
        assert f"spec.storage.claim of pool {POOL} is 'payroll'" in message
        assert "kubectl label pvc payroll moe-operator.dev/use=store" in message
    assert world.pool_condition("Stalled")[:2] == ("True", "ClaimNotAllowed")
    world.claim("payroll", use="store")
    world.settle()
    assert world.status("code").phase == "Serving"
    assert world.pool_condition("Stalled")[0] == "False"
    assert mounted(world) == {"payroll", "corpora"}


def test_a_pool_that_asks_for_a_size_does_not_take_over_a_claim_of_that_name() -> None:
    world = World()
    world.claim(f"{POOL}-store")
    before = world.get("PersistentVolumeClaim", f"{POOL}-store")["metadata"]["labels"]
    world.pool(storage={"size": "1Gi"})
    world.expert("code", base={"preset": "tiny"})
    world.settle()
    assert mounted(world) == set()
    status, reason, message = world.pool_condition("StorageReady")
    assert (status, reason) == ("False", "ClaimNotAllowed")
    assert f"kubectl label pvc {POOL}-store moe-operator.dev/use=store" in message
    assert world.get("PersistentVolumeClaim", f"{POOL}-store")["metadata"]["labels"] == before == {}


@pytest.mark.parametrize(
    ("expert", "pool"),
    [
        ({"data": {"sources": [{"claim": "theirs-store", "path": "**"}]}}, {}),
        ({}, {"storage": {"claim": "theirs-store"}}),
    ],
    ids=["source", "store"],
)
@pytest.mark.parametrize("use", ["source", "store"])
def test_the_claim_that_the_operator_made_for_a_pool_is_for_nothing_else(
    expert: dict[str, Any], pool: dict[str, Any], use: str
) -> None:
    world = World()
    world.put("ExpertPool", "theirs", {"storage": {"size": "1Gi"}})
    world.settle()
    world.claim("theirs-store", use=use)
    world.pool(**pool)
    world.expert("code", base={"preset": "tiny"}, **expert)
    world.settle()
    assert jobs(world) == []
    assert world.condition("code", "Stalled")[1] == "ClaimNotAllowed"
    assert "is the store of pool theirs" in world.condition("code", "Stalled")[2]


def test_a_claim_is_a_source_or_a_store_but_not_both() -> None:
    world = world_with(READS_PAYROLL)
    world.claim("payroll", use="store")
    world.settle()
    assert jobs(world) == []
    message = world.condition("code", "Stalled")[2]
    assert "says 'store'" in message
    assert "kubectl label --overwrite pvc payroll moe-operator.dev/use=source" in message


def test_pools_that_name_the_same_store_share_it_in_folders_of_their_own() -> None:
    world = world_with({}, storage={"claim": "payroll"})
    world.claim("payroll", use="store")
    world.settle()
    world.put("ExpertPool", "second", {"storage": {"claim": "payroll"}})
    world.expert("letters", pool="second", base={"preset": "tiny"})
    world.settle()
    assert [world.status(name).phase for name in ("code", "letters")] == ["Serving", "Serving"]
    uids = {job_config(job).pool_uid for job in world.all("Job")}
    assert len(uids) == 2


def test_the_owners_list_opens_a_claim_to_be_read_but_not_to_be_written() -> None:
    listed = CONFIG.model_copy(update={"stores": {"wages": Store(claim="payroll")}})
    world = World(listed)
    world.claim("payroll")
    world.pool(storage={"claim": "payroll"})
    for name, source in (("by-store", {"store": "wages"}), ("by-claim", {"claim": "payroll"})):
        world.expert(name, base={"preset": "tiny"}, data={"sources": [{**source, "path": "*.csv"}]})
    world.settle()
    assert jobs(world) == []
    assert world.pool_condition("StorageReady")[1] == "ClaimNotAllowed"
    world.delete("ExpertPool", POOL)
    world.pool()
    world.settle()
    assert [world.status(name).phase for name in ("by-store", "by-claim")] == ["Serving", "Serving"]


def test_the_owners_list_of_another_namespace_opens_nothing() -> None:
    elsewhere = Store(claim="payroll", namespaces=("accounting",))
    world = World(CONFIG.model_copy(update={"stores": {**CONFIG.stores, "wages": elsewhere}}))
    world.claim("payroll")
    world.pool()
    world.expert("code", base={"preset": "tiny"}, **READS_PAYROLL)
    world.settle()
    assert jobs(world) == []
    assert world.condition("code", "Stalled")[1] == "ClaimNotAllowed"


def test_a_missing_claim_is_told_apart_and_may_come_a_little_later_in_the_same_apply() -> None:
    world = World()
    world.pool()
    world.expert("code", base={"preset": "tiny"}, **READS_PAYROLL)
    world.run(until=world.now + timedelta(seconds=1))
    assert (jobs(world), world.condition("code", "Stalled")[0]) == ([], "False")
    world.run(until=world.now + timedelta(seconds=20))
    status, reason, message = world.condition("code", "Stalled")
    assert (jobs(world), status, reason) == ([], "True", "ClaimNotFound")
    assert "create it with the label moe-operator.dev/use=source" in message
    world.claim("payroll", use="source")
    world.settle()
    assert world.status("code").phase == "Serving"


def test_a_missing_store_is_told_apart_in_the_pool() -> None:
    world = World()
    world.pool(storage={"claim": "payroll"})
    world.expert("code", base={"preset": "tiny"})
    world.settle()
    assert jobs(world) == []
    status, reason, message = world.pool_condition("Ready")
    assert (status, reason) == ("False", "ClaimNotFound")
    assert "create it with the label moe-operator.dev/use=store" in message


def test_what_runs_and_serves_goes_on_when_the_label_is_removed_and_nothing_new_starts() -> None:
    world = World()
    world.claim("payroll", use="store")
    world.claim("letters", use="source")
    world.pool(storage={"claim": "payroll"})
    world.expert("code", base={"preset": "tiny"}, data={"sources": [{"claim": "letters", "path": "*"}]})
    world.settle()
    made, served = len(world.created), world.servers()
    assert world.status("code").phase == "Serving"
    for name in ("payroll", "letters"):
        use = world.get("PersistentVolumeClaim", name)["metadata"]["labels"]["moe-operator.dev/use"]
        world.claim(name)
        world.change("code", runID=f"without {name}")
        world.settle()
        assert (world.servers(), len(world.created)) == (served, made)
        assert world.status("code").phase == "Serving"
        assert world.condition("code", "Stalled")[:2] == ("True", "ClaimNotAllowed")
        assert world.condition("code", "Ready")[0] == "True"
        world.claim(name, use=use)
        world.settle()
        assert world.condition("code", "Stalled")[0] == "False"
        assert len(world.created) > made
        made, served = len(world.created), world.servers()


@pytest.mark.parametrize("role", ["snapshot", "train"])
def test_a_job_that_runs_finishes_and_one_that_waits_is_deleted_when_the_label_is_removed(role: str) -> None:
    world = World()
    world.claim("letters", use="source")
    world.pool(budget={"trainingJobs": 1})
    world.kubelet.durations[role] = timedelta(minutes=5)
    for name in ("code", "law"):
        world.expert(name, base={"preset": "tiny"}, data={"sources": [{"claim": "letters", "path": "*"}]})
    world.run(until=world.now + timedelta(minutes=1))
    suspended = {job["metadata"]["name"]: job["spec"]["suspend"] for job in world.all("Job", role=role)}
    assert sorted(suspended.values()) == [False, True]
    world.claim("letters")
    world.settle()
    (kept,) = world.all("Job", role=role)
    assert not suspended[kept["metadata"]["name"]]
    assert kept["status"]["succeeded"] == 1
    world.claim("letters", use="source")
    world.settle()
    assert [world.status(name).phase for name in ("code", "law")] == ["Serving", "Serving"]


def test_a_job_that_waits_for_kueue_is_deleted_too() -> None:
    world = World(CONFIG.model_copy(update={"queue": "fair"}))
    world.claim("letters", use="source")
    world.pool()
    world.expert("code", base={"preset": "tiny"}, data={"sources": [{"claim": "letters", "path": "*"}]})
    world.run(until=world.now + timedelta(seconds=1))
    assert len(jobs(world)) == 1
    world.claim("letters")
    world.run(until=world.now + timedelta(seconds=1))
    assert jobs(world) == []


def test_servers_and_gateways_that_stood_still_are_not_started_without_the_label() -> None:
    world = World()
    world.claim("payroll", use="store")
    world.pool(storage={"claim": "payroll"})
    world.expert("code", base={"preset": "tiny"})
    world.settle()
    world.change("code", serving={"replicas": 0})
    world.pool(storage={"claim": "payroll"}, gateway={"replicas": 0})
    world.settle()
    world.claim("payroll")
    world.change("code", serving={"replicas": 2})
    world.pool(storage={"claim": "payroll"}, gateway={"replicas": 2})
    world.settle()
    assert {item["spec"]["replicas"] for item in world.all("Deployment")} == {0}
    for item in world.all("Deployment"):
        world.delete("Deployment", item["metadata"]["name"])
    world.settle()
    assert world.all("Deployment") == []
    world.claim("payroll", use="store")
    world.settle()
    assert [item["spec"]["replicas"] for item in world.all("Deployment")] == [2, 2]
    assert world.status("code").phase == "Serving"


def test_no_table_is_made_in_a_store_whose_label_was_removed() -> None:
    world = World()
    world.claim("payroll", use="store")
    world.pool(storage={"claim": "payroll"}, routing={"strategy": "Posterior"})
    world.expert("general")
    world.expert("code")
    world.settle()
    world.claim("payroll")
    world.pool(storage={"claim": "payroll"}, routing={"strategy": "Distilled"})
    world.settle()
    assert world.all("Job", role="distill") == []
    world.claim("payroll", use="store")
    world.settle()
    assert world.pool_status().routing.table is not None


def test_a_pool_that_is_made_anew_brings_no_server_to_a_claim_that_nobody_opened() -> None:
    world = World()
    world.claim("payroll")
    world.pool()
    world.expert("code", base={"preset": "tiny"})
    world.settle()
    world.delete("ExpertPool", POOL)
    world.pool(storage={"claim": "payroll"})
    world.change("code", serving={"temperature": 0.5, "replicas": 2}, runID="again")
    world.settle()
    assert world.servers() == {"code-1": 2}
    assert "payroll" not in mounted(world)
    assert world.condition("code", "Stalled")[1] == "ClaimNotAllowed"


def test_no_job_starts_before_the_claim_of_its_pool_is_there() -> None:
    world = World()
    world.pool()
    world.expert("code", base={"preset": "tiny"})
    world.reconcile("Expert", "code")
    world.tick(10)
    plan = world.plan("ExpertPool", POOL)
    assert ([item["kind"] for item in plan.create], plan.resume) == (["PersistentVolumeClaim"], ())
    world.settle()
    assert world.status("code").phase == "Serving"
