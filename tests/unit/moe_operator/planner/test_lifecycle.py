"""What becomes of Experts from apply to serving, in a world where Jobs succeed unless told otherwise."""

from datetime import timedelta
from typing import Any

import pytest
from world import POOL, World
from world.manifests import is_finished

from moe_formats.job_report import Failure
from moe_formats.resources import labels
from moe_formats.resources.kinds import EXPERT
from moe_formats.resources.reasons import Reason
from moe_operator.state import Manifest

DOMAINS = ("code", "mathematics", "speeches")


@pytest.fixture(scope="module")
def settled() -> World:
    world = World()
    world.pool()
    for name in (*DOMAINS, "general"):
        world.expert(name)
    world.settle()
    return world


@pytest.fixture
def served(settled: World) -> World:
    """A pool whose Experts all serve."""
    return settled.fork()


def test_a_pool_of_experts_ends_up_serving_and_routed_by_the_distilled_table(served: World) -> None:
    for name in (*DOMAINS, "general"):
        status = served.status(name)
        assert (status.phase, status.current_revision) == ("Serving", f"{name}-1")
        assert status.serving.revision == f"{name}-1"
        assert served.condition(name, "Ready")[0] == "True"
        assert served.condition(name, "Reconciling")[0] == "False"
    policy = served.policy()
    assert policy is not None
    assert policy.strategy == "Distilled"
    assert [entry.name for entry in policy.experts] == sorted((*DOMAINS, "general"))
    assert served.pool_status().experts == "4/4"


def test_a_settled_world_is_planned_without_a_single_write(served: World) -> None:
    served.now += timedelta(minutes=5)
    for key in served.subjects():
        plan = served.plan(*key)
        assert (plan.create, plan.apply, plan.resume, plan.delete, plan.statuses, plan.events) == ((),) * 6
        assert plan.requeue is None


def test_the_snapshot_job_exists_after_the_first_plan() -> None:
    world = World()
    world.pool()
    world.expert("general")
    plan = world.reconcile("Expert", "general")
    (job,) = plan.create
    assert job["metadata"]["name"].startswith("general-snapshot-")
    assert job["spec"]["suspend"] is True


def test_domains_branch_from_the_promoted_base_and_are_measured_on_every_domain(served: World) -> None:
    revision = served.revision("code-1")
    assert revision.spec.inputs.parent is not None
    assert revision.spec.inputs.parent.revision == "general-1"
    assert served.status("code").base_revision == "general-1"
    for name in DOMAINS:
        assert {item.domain for item in served.revision(f"{name}-1").spec.suite} == set(DOMAINS)


def test_snapshots_run_one_at_a_time_and_the_base_comes_last(served: World) -> None:
    names = [name for name in served.created if "-snapshot-" in name]
    taken = {name: served.status(name).snapshot.time for name in (*DOMAINS, "general")}
    assert len(names) == 4
    assert max(taken, key=lambda name: (taken[name], name == "general")) == "general"


def test_new_data_makes_one_revision_from_the_current_one_and_traffic_moves_to_it(served: World) -> None:
    served.data["code"] = 1
    served.change("code", data={**served.get("Expert", "code")["spec"]["data"], "refresh": "hourly"})
    served.now += timedelta(hours=1)
    served.settle()
    revision = served.revision("code-2")
    assert revision.spec.cause == "NewData"
    assert revision.spec.inputs.parent is not None
    assert revision.spec.inputs.parent.revision == "code-1"
    assert served.status("code").serving.revision == "code-2"
    assert not served.has("Deployment", "code-1")
    assert not served.has("Service", "code-1")


def test_a_refresh_that_finds_the_same_data_trains_nothing_and_says_so(served: World) -> None:
    served.change("code", data={**served.get("Expert", "code")["spec"]["data"], "refresh": "hourly"})
    served.now += timedelta(hours=1)
    served.settle()
    assert served.revisions("code") == ["code-1"]
    assert Reason.DATA_UNCHANGED in served.reasons("code")


def test_junk_data_is_refused_by_the_anchor_and_the_last_good_revision_serves_on(served: World) -> None:
    served.data["code"], served.trainer.junk = 1, {1}
    data = served.get("Expert", "code")["spec"]["data"]
    served.change("code", data={**data, "refresh": "hourly"})
    served.now += timedelta(hours=1)
    served.settle()
    verdict = served.revision("code-2").status.verdict
    assert verdict is not None
    assert (verdict.outcome, verdict.clause, verdict.final) == ("Refused", "anchor", True)
    assert "+0.0800" in verdict.message
    assert served.status("code").serving.revision == "code-1"
    assert served.status("code").reason == "PromotionRefused"
    assert served.condition("code", "Ready")[0] == "True"
    assert served.condition("code", "Stalled")[0] == "False"
    assert not served.has("Deployment", "code-2")
    assert served.reasons("code").count(Reason.PROMOTION_REFUSED) == 1


def test_refused_inputs_are_not_tried_again(served: World) -> None:
    test_junk_data_is_refused_by_the_anchor_and_the_last_good_revision_serves_on(served)
    served.now += timedelta(hours=1)
    served.settle()
    assert served.revisions("code") == ["code-1", "code-2"]


def test_a_changed_spec_starts_from_the_pinned_base_again(served: World) -> None:
    served.change("code", training={"learningRate": 0.002})
    served.settle()
    revision = served.revision("code-2")
    assert revision.spec.cause == "SpecChanged"
    assert revision.spec.inputs.parent is not None
    assert revision.spec.inputs.parent.revision == "general-1"
    assert served.status("code").serving.revision == "code-2"


def test_a_new_revision_of_the_base_retrains_nobody(served: World) -> None:
    served.change("general", seed=7)
    served.settle()
    assert served.status("general").current_revision == "general-2"
    assert served.revisions("code") == ["code-1"]


def test_going_back_to_an_old_spec_moves_the_pointer_and_trains_nothing(served: World) -> None:
    spec = served.get("Expert", "code")["spec"]
    served.change("code", seed=5)
    served.settle()
    served.put("Expert", "code", spec)
    before = len(served.created)
    served.settle()
    assert served.status("code").current_revision == "code-1"
    assert served.status("code").serving.revision == "code-1"
    assert served.revisions("code") == ["code-1", "code-2"]
    assert [name for name in served.created[before:] if name.startswith("code")] == []


def test_settings_that_change_no_weights_make_no_revision(served: World) -> None:
    served.change("code", training={"checkpointEvery": 10, "maxAttempts": 9}, targets={"gain": 0.1})
    served.settle()
    assert served.revisions("code") == ["code-1"]
    assert served.status("code").targets == "1/1"


def test_a_new_run_id_reads_the_data_again_and_trains_again(served: World) -> None:
    served.change("code", runID="again")
    served.settle()
    assert served.revision("code-2").spec.cause == "SpecChanged"
    assert sum(name.startswith("code-snapshot-") for name in served.created) == 2


def test_a_pin_serves_an_older_revision_and_removing_it_the_newest_again(served: World) -> None:
    served.change("code", seed=5)
    served.settle()
    served.change("code", revision="code-1")
    served.settle()
    assert served.status("code").serving.revision == served.status("code").serving.target == "code-1"
    (column,) = (column for column in EXPERT.columns if column.name == "Revision")
    assert column.path == ".status.serving.target"
    assert served.condition("code", "Serving")[2] == "code-1 answers on 1 server"
    assert served.status("code").current_revision == "code-2"
    assert served.condition("code", "Promoted")[1] == "Pinned"
    served.change("code", revision=None)
    served.settle()
    assert served.status("code").serving.revision == "code-2"


def test_a_pin_on_a_revision_that_was_never_promoted_stalls_and_names_those_that_were(served: World) -> None:
    served.change("code", revision="code-9")
    served.settle()
    assert served.condition("code", "Stalled")[:2] == ("True", "UnknownRevision")
    assert "code-1" in served.condition("code", "Stalled")[2]
    assert served.status("code").serving.revision == "code-1"


def test_paused_experts_start_nothing_and_serve_on(served: World) -> None:
    served.change("code", paused=True, seed=3)
    served.settle()
    assert served.revisions("code") == ["code-1"]
    assert served.status("code").phase == "Paused"
    assert served.condition("code", "Ready")[0] == "True"
    assert served.condition("code", "Reconciling")[:2] == ("False", "Paused")
    served.change("code", paused=False)
    served.settle()
    assert served.status("code").serving.revision == "code-2"


def test_a_paused_pool_starts_no_job() -> None:
    world = World()
    world.pool(paused=True)
    world.expert("general")
    world.settle()
    assert world.created == []
    assert world.status("general").phase == "Paused"
    assert world.condition("general", "Reconciling") == (
        "False",
        "Paused",
        "nothing is under way; spec.paused of pool first-pool is true",
    )
    world.pool(paused=False)
    world.settle()
    assert world.status("general").phase == "Serving"
    assert world.condition("general", "Reconciling")[1] == "Settled"


def test_what_runs_while_an_expert_is_paused_is_still_under_way() -> None:
    world = World()
    world.pool()
    world.expert("general")
    world.kubelet.durations["train"] = timedelta(hours=1)
    world.run(until=world.now + timedelta(minutes=2))
    world.change("general", paused=True)
    world.run(until=world.now + timedelta(minutes=1))
    assert world.condition("general", "Reconciling")[0] == "True"
    assert world.condition("general", "Paused")[0] == "True"


def test_a_small_holdout_waits_for_data_before_anything_is_trained() -> None:
    world = World()
    world.trainer.clusters = 12
    world.pool()
    world.expert("general")
    world.settle()
    status = world.status("general")
    assert (status.phase, status.reason) == ("Stalled", "HoldoutTooSmall")
    assert not any("-a1" in name for name in world.created)
    verdict = world.revision("general-1").status.verdict
    assert verdict is not None
    assert (verdict.outcome, verdict.final) == ("Waiting", False)


def test_a_window_is_good_for_five_decisions(served: World) -> None:
    for seed in range(1, 7):
        served.change("code", seed=seed)
        served.settle()
    verdict = served.revision("code-6").status.verdict
    assert verdict is not None
    assert (verdict.outcome, verdict.reason) == ("Waiting", "WindowUsedUp")
    assert served.status("code").serving.revision == "code-5"
    evidence = served.revision("code-5").status.evidence
    assert evidence is not None
    assert evidence.decisions[0].uses == 5


def test_unmet_targets_keep_a_first_revision_from_serving_where_asked() -> None:
    world = World()
    world.pool()
    world.expert("general")
    world.expert("code", targets={"gain": 0.5}, promotion={"enforcement": "Serve"})
    world.settle()
    verdict = world.revision("code-1").status.verdict
    assert verdict is not None
    assert (verdict.outcome, verdict.clause) == ("Refused", "targets")
    assert world.status("code").serving is None
    world.change("code", targets={"gain": 0.1})
    world.settle()
    assert world.status("code").serving.revision == "code-1"


def test_a_loss_that_is_not_finite_fails_at_once_and_harms_nobody_else() -> None:
    world = World()
    world.pool()
    world.expert("general")
    for name in DOMAINS:
        world.expert(name)
    world.trainer.fate["code-1-a1"] = Failure(reason="LossNotFinite", message="NaN at step 7")
    world.settle()
    assert world.status("code").reason == "LossNotFinite"
    assert "NaN at step 7" in world.condition("code", "Stalled")[2]
    assert "code-1-a2" not in world.created
    assert world.status("mathematics").phase == "Serving"
    world.change("code", seed=9)
    world.settle()
    assert world.status("code").serving.revision == "code-2"


def test_failed_attempts_are_followed_by_others_until_the_limit() -> None:
    world = World()
    world.pool()
    world.expert("general", training={"maxAttempts": 3})
    world.trainer.fate.update({f"general-1-a{attempt}": 1 for attempt in range(1, 4)})
    world.settle()
    assert [name for name in world.created if "-a" in name] == [
        "general-1-a1",
        "general-1-a2",
        "general-1-a3",
    ]
    assert world.status("general").reason == "JobFailed"
    assert "exit code 1" in world.condition("general", "Stalled")[2]
    assert "last words" in world.condition("general", "Stalled")[2]


def test_disruptions_and_a_full_disk_are_no_incidents() -> None:
    world = World()
    world.pool()
    world.expert("general", training={"maxAttempts": 1})
    world.trainer.fate["general-1-a1"] = "disrupted"
    world.trainer.fate["general-1-a2"] = Failure(reason="DiskFull", message="no space", retryable=True)
    world.settle()
    assert world.status("general").phase == "Serving"
    assert world.revision("general-1").status.attempts == 3


def limit_jobs(world: World, **seconds: int) -> None:
    """Start the operator again with other deadlines of Jobs."""
    deadlines = world.config.deadline_seconds.model_copy(update=seconds)
    world.config = world.config.model_copy(update={"deadline_seconds": deadlines})


@pytest.mark.parametrize(
    ("role", "condition"), [("snapshot", "DataReady"), ("train", "Stalled"), ("evaluate", "Stalled")]
)
def test_a_job_that_never_ends_is_stopped_for_good_and_says_what_to_do(role: str, condition: str) -> None:
    world = World()
    limit_jobs(world, **{role: 20})
    world.pool()
    world.expert("general")
    world.kubelet.durations[role] = timedelta(days=365)
    world.settle()
    assert world.status("general").reason == Reason.DEADLINE_EXCEEDED
    message = world.condition("general", condition)[2]
    for part in ("its deadline of 20 s", f"deadlineSeconds.{role}"):
        assert part in message
    jobs = [item for item in world.server.visible("Job") if item["metadata"]["labels"][labels.ROLE] == role]
    assert len(jobs) == 1, "it is not tried again by itself"
    del world.kubelet.durations[role]
    world.change("general", runID="again")
    world.settle()
    assert world.status("general").phase == "Serving"


def test_a_table_that_is_never_done_is_given_up_and_requests_are_routed_without_it(served: World) -> None:
    limit_jobs(served, distill=20)
    served.kubelet.durations["distill"] = timedelta(days=365)
    served.expert("poems")
    served.settle()
    ready = next(item for item in served.pool_status().conditions if item.type == "TableReady")
    assert (ready.status, ready.reason) == ("False", "DeadlineExceeded")
    assert "deadlineSeconds.distill" in ready.message
    assert served.status("poems").phase == "Serving"


def test_a_job_whose_pod_has_no_room_may_wait_longer_than_its_deadline() -> None:
    world = World()
    limit_jobs(world, train=5)
    world.pool()
    world.expert("general")
    world.kubelet.unschedulable.add("general-1-a1")
    for _ in range(60):
        world.reconcile_all()
        world.tick(1)
    assert world.status("general").reason == Reason.WAITING_FOR_CAPACITY
    world.kubelet.unschedulable.clear()
    world.settle()
    assert world.status("general").phase == "Serving"


def test_other_limits_of_pods_restart_no_server_and_make_no_revision(served: World) -> None:
    before = served.get("Deployment", "code-1")["spec"]["template"]
    profiles = {
        name: profile.model_copy(update={"limits": {"memory": "8Gi", "ephemeral-storage": "7Gi"}})
        for name, profile in served.config.profiles.items()
    }
    served.config = served.config.model_copy(update={"profiles": profiles})
    limit_jobs(served, train=60, evaluate=60)
    served.settle()
    assert served.get("Deployment", "code-1")["spec"]["template"] == before
    assert served.revisions("code") == ["code-1"]


def test_a_report_that_cannot_be_read_is_made_again() -> None:
    world = World()
    world.pool()
    world.expert("general")
    world.trainer.fate["general-1-a1"] = "unreadable"
    world.settle()
    assert world.status("general").phase == "Serving"
    assert "general-1-a2" in world.created


def test_missing_data_stalls_with_the_trainers_words_and_blocks_no_base() -> None:
    world = World()
    world.pool()
    world.expert("code")
    world.expert("general")
    name = next(iter(world.plan("Expert", "code").create))["metadata"]["name"]
    missing = Failure(reason="DataMissing", message="no file matches code/*.txt")
    world.trainer.fate.update({name: missing, **{f"{name}-r{attempt}": missing for attempt in range(2, 20)}})
    world.run(until=world.now + timedelta(minutes=10))
    assert world.status("code").reason == "DataMissing"
    assert "no file matches code/*.txt" in world.condition("code", "Stalled")[2]
    assert world.status("general").phase == "Serving"


def test_data_that_come_late_are_read_by_themselves() -> None:
    world = World()
    world.pool()
    world.expert("general")
    first = next(iter(world.plan("Expert", "general").create))["metadata"]["name"]
    missing = Failure(reason="DataMissing", message="no file matches general/*.txt. Put files there.")
    names = [first, *(f"{first}-r{attempt}" for attempt in range(2, 40))]
    world.trainer.fate.update(dict.fromkeys(names, missing))
    world.run(until=world.now + timedelta(hours=2))
    status, reason, message = world.condition("general", "Stalled")
    assert (status, reason) == ("True", "DataMissing")
    assert (
        "no file matches general/*.txt. Put files there. The sources are read again by themselves" in message
    )
    assert len(world.all("Job", role="snapshot")) <= 9, "old attempts do not pile up"
    before = world.writes
    world.run(until=world.now + timedelta(hours=1))
    assert world.writes - before <= 4 * 5, (
        "one attempt in a quarter of an hour, and no status that goes to and fro"
    )
    world.trainer.fate.clear()
    world.run(until=world.now + timedelta(minutes=20))
    world.settle()
    assert world.status("general").phase == "Serving"


def test_a_snapshot_that_cannot_be_scheduled_hands_its_turn_on() -> None:
    world = World()
    world.pool()
    world.expert("aaa")
    world.expert("bbb")
    world.expert("general")
    name = next(iter(world.plan("Expert", "aaa").create))["metadata"]["name"]
    world.kubelet.unschedulable.add(name)
    for _ in range(160):
        world.reconcile_all()
        world.tick(1)
    assert world.status("general").phase == "Serving"
    assert world.status("bbb").phase == "Serving"
    assert world.status("aaa").reason == "WaitingForCapacity"
    assert "0/1 nodes are available" in world.condition("aaa", "DataReady")[2]
    world.kubelet.unschedulable.clear()
    world.settle()
    assert world.status("aaa").phase == "Serving"


def test_a_training_pod_without_room_says_what_the_scheduler_said() -> None:
    world = World()
    world.pool()
    world.expert("general")
    world.kubelet.unschedulable.add("general-1-a1")
    world.settle()
    assert world.condition("general", "Trained")[1] == "WaitingForCapacity"
    assert "0/1 nodes are available" in world.condition("general", "Trained")[2]


@pytest.mark.parametrize("kind", ["Deployment", "Service"])
def test_a_deleted_server_object_is_made_again_and_told(served: World, kind: str) -> None:
    served.delete(kind, "code-1")
    served.settle()
    assert served.has(kind, "code-1")
    assert served.reasons("code").count(Reason.CHILD_RESTORED) == 1
    assert served.status("code").phase == "Serving"


def test_an_edited_server_is_put_back_and_told(served: World) -> None:
    (container,) = served.get("Deployment", "code-1")["spec"]["template"]["spec"]["containers"]
    edited = {"spec": {"template": {"spec": {"containers": [{**container, "image": "elsewhere/other:1"}]}}}}
    served.edit("Deployment", "code-1", edited)
    served.settle()
    container = served.get("Deployment", "code-1")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "moe-operator/trainer:0.1.0"
    assert served.reasons("code").count(Reason.CHILD_EDITED) == 1


SELECTS_NOTHING = {"spec": {"selector": {"added": "by-hand"}}}
NOWHERE = {"spec": {"template": {"spec": {"nodeSelector": {"added": "by-hand"}}}}}


@pytest.mark.parametrize(
    ("kind", "name", "change", "where"),
    [
        ("Service", "code-1", SELECTS_NOTHING, "spec.selector"),
        ("Service", f"{POOL}-gateway", SELECTS_NOTHING, "spec.selector"),
        ("Deployment", "code-1", NOWHERE, "spec.template.spec.nodeSelector"),
        ("Deployment", f"{POOL}-gateway", NOWHERE, "spec.template.spec.nodeSelector"),
        ("ConfigMap", f"{POOL}-routing", {"data": {"added": "by-hand"}}, "data"),
    ],
)
def test_what_somebody_adds_to_a_selector_or_to_data_is_taken_out(
    served: World, kind: str, name: str, change: Manifest, where: str
) -> None:
    def there() -> Any:
        found: Any = served.get(kind, name)
        for part in where.split("."):
            found = found.get(part, {})
        return found

    before = there()
    served.edit(kind, name, change)
    assert there() != before
    served.settle()
    assert there() == before
    version = served.get(kind, name)["metadata"]["resourceVersion"]
    served.settle()
    assert served.get(kind, name)["metadata"]["resourceVersion"] == version


def test_what_somebody_adds_to_labels_or_annotations_stays(served: World) -> None:
    """Others mark objects too: Argo CD, cost reports, `kubectl rollout restart`."""
    marks = {"metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}}}
    served.edit("Deployment", "code-1", {**marks, "spec": {"template": marks}})
    served.settle()
    there = served.get("Deployment", "code-1")
    for metadata in (there["metadata"], there["spec"]["template"]["metadata"]):
        assert metadata["labels"]["team"] == "a" and metadata["annotations"]["note"] == "b"
    assert Reason.CHILD_EDITED not in served.reasons("code")


def test_an_operator_upgrade_restarts_no_server_and_makes_no_revision(served: World) -> None:
    images = served.config.images.model_copy(update={"trainer": "moe-operator/trainer:9.9.9"})
    served.config = served.config.model_copy(update={"images": images})
    served.settle()
    container = served.get("Deployment", "code-1")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "moe-operator/trainer:0.1.0"
    assert served.revisions("code") == ["code-1"]


def test_scaling_an_expert_scales_its_servers(served: World) -> None:
    served.change("code", serving={"replicas": 3})
    served.settle()
    assert served.get("Deployment", "code-1")["spec"]["replicas"] == 3
    assert served.status("code").replicas == 3
    assert Reason.CHILD_EDITED not in served.reasons("code")


def test_a_deleted_training_job_is_followed_by_the_next_attempt() -> None:
    world = World()
    world.pool()
    world.expert("general")
    while not world.has("Job", "general-1-a1"):
        world.reconcile_all()
        world.tick()
    world.reconcile_all()
    world.delete("Job", "general-1-a1")
    world.settle()
    assert "general-1-a2" in world.created
    assert world.status("general").phase == "Serving"


def test_an_expert_made_again_under_its_name_meets_nothing_of_its_past(served: World) -> None:
    old = served.status("code").snapshot.job
    served.delete("Expert", "code")
    served.settle()
    assert "code" not in [entry.name for entry in served.policy().experts]  # type: ignore[union-attr]
    served.expert("code")
    served.settle()
    assert served.status("code").phase == "Serving"
    assert served.status("code").snapshot.job != old


def test_a_verdict_of_a_newer_operator_is_read_by_an_older_one(served: World) -> None:
    served.edit("ExpertRevision", "code-1", {"status": {"verdict": {"reason": "ReasonOfTheFuture"}}})
    served.settle()
    assert served.status("code").phase == "Serving"


def test_twins_work_and_the_second_is_warned_of_once() -> None:
    world = World()
    world.pool()
    world.expert("general")
    world.expert("code")
    world.settle()
    world.expert("coding", domain="code")
    world.settle()
    assert world.status("coding").phase == "Serving"
    assert world.reasons("coding").count(Reason.TWIN_DOMAIN) == 1


def test_a_superseded_revision_gives_its_job_up_and_can_be_taken_up_again(served: World) -> None:
    served.change("code", seed=1)
    while not served.has("Job", "code-2-a1"):
        served.reconcile_all()
    served.change("code", seed=2)
    served.settle()
    assert served.revision("code-2").status.phase == "Superseded"
    assert not served.has("Job", "code-2-a1")
    assert served.status("code").serving.revision == "code-3"
    served.change("code", seed=1)
    served.settle()
    assert served.status("code").serving.revision == "code-2"
    assert served.revisions("code") == ["code-1", "code-2", "code-3"]


def test_a_queue_of_kueue_is_left_to_start_jobs() -> None:
    world = World()
    world.config = world.config.model_copy(update={"queue": "research"})
    world.pool()
    world.expert("general")
    for _ in range(20):
        for key in world.subjects():
            assert world.reconcile(*key).resume == ()
        world.tick()
    (job,) = world.all("Job")
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"


def test_the_pool_starts_no_more_training_than_its_budget_allows() -> None:
    world = World()
    world.pool(budget={"trainingJobs": 1})
    for name in (*DOMAINS, "general"):
        world.expert(name)
    busiest = 0
    for _ in range(60):
        world.reconcile_all()
        world.tick()
        heavy = [*world.all("Job", role="train"), *world.all("Job", role="evaluate")]
        running = [job for job in heavy if not (job["spec"]["suspend"] or is_finished(job))]
        busiest = max(busiest, len(running))
    assert busiest == 1
    world.settle()
    assert world.pool_status().experts == "4/4"


def test_an_expert_without_its_pool_waits_and_says_so() -> None:
    world = World()
    world.expert("general")
    world.settle()
    assert world.condition("general", "DataReady")[1:] == (
        "WaitingForPool",
        f"pool {POOL} does not exist, so no snapshot is taken",
    )
    assert world.condition("general", "Stalled")[:2] == ("True", "WaitingForPool")
    assert POOL in world.condition("general", "Stalled")[2]
    world.pool()
    world.settle()
    assert world.status("general").phase == "Serving"


def test_deleting_the_newest_revision_is_not_told_as_the_creation_of_an_older_one(served: World) -> None:
    served.change("code", seed=1)
    served.settle()
    served.change("code", seed=0)
    served.settle()
    told = served.reasons("code").count(Reason.REVISION_CREATED)
    served.delete("ExpertRevision", "code-2")
    served.settle()
    assert served.reasons("code").count(Reason.REVISION_CREATED) == told
