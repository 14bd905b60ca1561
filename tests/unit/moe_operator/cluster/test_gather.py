import pytest
from pydantic import ValidationError

from moe_formats.job_report import Failure
from moe_formats.resources import labels
from moe_operator.cluster.gather import Answers, gather_expert, gather_pool
from moe_operator.state import Key, ObservedClaim

DIGEST = "sha256:" + "0" * 64
E, P = Key("Expert", "ns", "e"), Key("ExpertPool", "ns", "p")


def a_revision(make, name, number, *, owner, expert="e"):
    window = {"path": "w", "digest": DIGEST, "clusters": 20, "segments": 9}
    training = {
        "learningRate": 0.1,
        "maxEpochs": 1,
        "batchTokens": 64,
        "weightDecay": 0,
        "loadBalancingLossWeight": 0,
    }
    training |= {"auxiliaryLossWeight": 0, "validationEvery": 1, "checkpointEvery": 1}
    spec = {
        "expert": expert,
        "expertUID": owner,
        "pool": "p",
        "number": number,
        "cause": "SpecChanged",
        "inputs": {
            "preset": "tiny",
            "data": {"path": "s", "digest": DIGEST},
            "training": training,
            "seed": 0,
        },
        "inputsDigest": DIGEST,
        "anchor": window,
        "suiteDigest": DIGEST,
    }
    return make("ExpertRevision", name, spec=spec, owner=owner)


def a_job(make, name, *, owner, expert="e", role="train", finished=False):
    status = {"conditions": [{"type": "Complete", "status": "True"}]} if finished else {}
    return make(
        "Job", name, pool="p", expert=expert, role=role, owner=owner, spec={"suspend": False}, status=status
    )


def test_an_expert_that_is_gone_has_no_state(cache):
    assert gather_expert(E, cache, Answers()) is None
    assert gather_pool(P, cache, Answers()) is None


def test_children_of_a_namesake_are_not_its_own(cache, make, expert):
    cache.put(expert("e", uid="new"))
    cache.put(a_revision(make, "e-1", 1, owner="old"))
    cache.put(a_job(make, "e-1-a1", owner="old"))
    cache.put(a_revision(make, "e-2", 1, owner="new"))
    cache.put(a_job(make, "e-2-a1", owner="new"))
    state = gather_expert(E, cache, Answers())
    assert [revision.metadata.name for revision in state.revisions] == ["e-2"]
    assert [job.name for job in state.jobs] == ["e-2-a1"]
    assert set(state.live) == {("ExpertRevision", "e-2"), ("Job", "e-2-a1")}


def test_revisions_come_in_order_of_their_numbers(cache, make, expert):
    cache.put(expert("e", uid="E"))
    for number in (10, 9, 2):
        cache.put(a_revision(make, f"e-{number}", number, owner="E"))
    state = gather_expert(E, cache, Answers())
    assert [revision.spec.number for revision in state.revisions] == [2, 9, 10]


def test_a_pool_sees_the_jobs_of_all_its_experts_and_of_their_namesakes(cache, make, expert, pool):
    cache.put(pool("p"))
    cache.put(expert("e", uid="old"))
    cache.remove("Expert", "ns", "e", "old")
    cache.put(expert("e", uid="new"))
    cache.put(expert("z", uid="x"))
    cache.put(a_job(make, "e-1-a1", owner="old"))
    cache.put(a_job(make, "z-1-a1", owner="x", expert="z", finished=True))
    jobs = {job.name: (job.expert, job.state) for job in gather_pool(P, cache, Answers()).jobs}
    assert jobs == {"e-1-a1": ("e", "Running"), "z-1-a1": ("z", "Succeeded")}, (
        "what runs takes its place, whoever's"
    )


def test_the_base_revision_is_the_bases_current_one(cache, make, expert):
    cache.put(expert("e", spec={"base": {"expert": "general"}}))
    cache.put(expert("general", uid="G"))
    cache.put(a_revision(make, "general-1", 1, owner="G", expert="general"))
    assert gather_expert(E, cache, Answers()).base_revision is None
    cache.put(expert("general", uid="G", version=2, status={"currentRevision": "general-1"}))
    assert gather_expert(E, cache, Answers()).base_revision.metadata.name == "general-1"


def test_an_invalid_object_is_an_error_for_its_own_key_only(cache, expert, pool):
    cache.put(pool("p"))
    cache.put(expert("e"))
    cache.put(expert("broken", spec={"seed": -1}))
    assert set(gather_expert(E, cache, Answers()).peers) == {"e"}
    assert set(gather_pool(P, cache, Answers()).experts) == {"e"}
    with pytest.raises(ValidationError, match="seed"):
        gather_expert(Key("Expert", "ns", "broken"), cache, Answers())


def test_the_claim_is_the_pools_own_or_the_one_it_names(cache, make, expert, pool):
    cache.put(expert("e"))
    cache.put(pool("p"))
    cache.put(make("PersistentVolumeClaim", "p-store", status={"phase": "Bound"}))
    state = gather_pool(P, cache, Answers())
    assert (state.pool.claim, state.claim_phase) == ("p-store", "Bound")
    cache.put(pool("p", spec={"storage": {"claim": "shared"}}, version=2))
    state = gather_pool(P, cache, Answers())
    assert (state.pool.claim, state.claim_phase) == ("shared", None)


def test_the_claims_that_an_expert_and_its_pool_name_are_gathered_with_what_they_are_for(
    cache, make, expert, pool
):
    items = {"name": "sums", "measure": "exactMatch", "claim": "items", "path": "*"}
    cache.put(pool("p", spec={"evaluation": {"evaluators": [items]}}))
    cache.put(expert("e", spec={"data": {"sources": [{"claim": "text", "path": "*"}]}}))
    cache.put(expert("f", spec={"data": {"sources": [{"claim": "letters", "path": "*"}]}}))
    cache.put(make("PersistentVolumeClaim", "p-store", pool="p", role="store", status={"phase": "Bound"}))
    text = make("PersistentVolumeClaim", "text")
    text["metadata"]["labels"] = {labels.USE: "source"}
    for claim in (text, make("PersistentVolumeClaim", "letters"), make("PersistentVolumeClaim", "payroll")):
        cache.put(claim)
    own = ObservedClaim("p-store", "Bound", made_for="p")
    assert gather_expert(E, cache, Answers()).claims == {
        "p-store": own,
        "text": ObservedClaim("text", "Pending", use="source"),
    }
    assert set(gather_pool(P, cache, Answers()).claims) == {"p-store", "text", "letters"}


def test_a_job_whose_role_was_edited_away_is_left_out(cache, make, expert):
    cache.put(expert("e", uid="E"))
    cache.put(a_job(make, "odd", owner="E", role=None))
    assert gather_expert(E, cache, Answers()).jobs == ()


def test_servers_and_their_pods_belong_to_their_revision(cache, make, deploy, expert, pool):
    cache.put(pool("p"))
    cache.put(expert("e", uid="E"))
    for revision in ("e-1", "e-2"):
        spec = {"replicas": 1, "template": {"spec": {"containers": [{}]}}}
        marks = {"pool": "p", "expert": "e", "role": "server", "revision": revision}
        deploy(
            make("Deployment", revision, owner="E", spec=spec, **marks), f"{revision}-x", status={}, **marks
        )
    state = gather_expert(E, cache, Answers())
    assert {server.name: [pod.name for pod in server.pods] for server in state.servers} == {
        "e-1": ["e-1-x"],
        "e-2": ["e-2-x"],
    }
    assert set(gather_pool(P, cache, Answers()).servers) == {"e-1", "e-2"}


def test_what_only_bears_labels_belongs_to_nobody(cache, make, deploy, expert, pool):
    cache.put(pool("p"))
    cache.put(expert("e", uid="E"))
    marks = {"pool": "p", "expert": "e", "revision": "e-1"}
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    for owner in (None, "made-up"):
        cache.put(a_job(make, f"e-1-a1-{owner}", owner=owner))
        cache.put(make("Deployment", f"server-{owner}", owner=owner, role="server", spec={}, **marks))
        cache.put(make("Deployment", f"gateway-{owner}", owner=owner, role="gateway", spec={}, **marks))
        for role in ("train", "snapshot", "server", "gateway"):
            cache.put(make("Pod", f"{role}-{owner}", owner=owner, role=role, status=ready, **marks))
    state, pool_state = gather_expert(E, cache, Answers()), gather_pool(P, cache, Answers())
    assert (state.jobs, state.servers, state.orphan_pods, state.live) == ((), (), (), {})
    assert (pool_state.jobs, pool_state.servers, pool_state.orphan_snapshots) == ((), {}, ())
    assert (pool_state.gateway.pods, pool_state.gateway.ready_replicas, pool_state.live) == ((), 0, {})


def test_a_revision_of_another_expert_is_no_base_revision(cache, make, expert):
    cache.put(expert("e", spec={"base": {"expert": "general"}}))
    cache.put(expert("general", uid="G", status={"currentRevision": "general-1"}))
    cache.put(a_revision(make, "general-1", 1, owner="somebody", expert="general"))
    assert gather_expert(E, cache, Answers()).base_revision is None


def test_an_object_of_another_namespace_belongs_to_nobody_here_although_it_names_the_uid(
    cache, make, deploy, job_pod, expert, pool
):
    cache.put(pool("p", uid="P"))
    cache.put(expert("e", uid="E"))
    cache.put(a_job(make, "e-1-a1", owner="E"))
    said = Failure(reason="LossNotFinite", message="forged").to_json()
    ended = [{"name": "train", "state": {"terminated": {"exitCode": 1, "message": said}}}]
    elsewhere = [
        a_job(make, "e-1-e1", owner="E"),
        a_revision(make, "e-1", 1, owner="E"),
        make("Deployment", "e-1", owner="E", role="server", spec={}),
        make("Deployment", "p-gateway", owner="P", role="gateway", spec={}),
        make("ConfigMap", "p-routing", owner="P", role="gateway", data={"policy.json": "{}"}),
        job_pod(cache.get("Job", "ns", "e-1-a1"), status={"phase": "Failed", "containerStatuses": ended}),
    ]
    for item in elsewhere:
        item["metadata"]["namespace"] = "of-somebody-else"
        cache.put(item)
    state, pool_state = gather_expert(E, cache, Answers()), gather_pool(P, cache, Answers())
    assert [(job.name, job.pods, job.headline) for job in state.jobs] == [("e-1-a1", (), None)]
    assert (state.revisions, state.servers, set(state.live)) == ((), (), {("Job", "e-1-a1")})
    assert [job.name for job in pool_state.jobs] == ["e-1-a1"]
    assert (pool_state.servers, pool_state.gateway.ready_replicas, pool_state.live) == ({}, 0, {})
