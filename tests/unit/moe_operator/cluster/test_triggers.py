import copy

import pytest

from moe_operator.cluster import triggers
from moe_operator.state import Key
from moe_operator.subjects import SUBJECTS

POOL, A, B = Key("ExpertPool", "ns", "p"), Key("Expert", "ns", "a"), Key("Expert", "ns", "b")


@pytest.fixture
def full(cache, expert, pool):
    """A pool with the Experts a and b."""
    for item in (pool("p"), expert("a"), expert("b"), pool("q"), expert("z", pool="q")):
        cache.put(item)
    return cache


def concerned(old, new, lookup):
    return triggers.concerned(old, new, lookup, {subject.kind: subject.pool for subject in SUBJECTS})


def changed(manifest, **parts):
    new = copy.deepcopy(manifest)
    new.update(parts)
    return new


def test_progress_of_an_expert_concerns_only_itself_and_its_pool(full, expert):
    old = expert("a", status={"training": {"step": 1}})
    assert concerned(old, changed(old, status={"training": {"step": 2}}), full) == ({A, POOL}, set())


@pytest.mark.parametrize(
    "status",
    [
        {"snapshot": {"digest": "x"}},
        {"currentRevision": "a-1"},
        {"conditions": [{"type": "Stalled", "status": "True"}]},
    ],
)
def test_what_peers_rest_on_concerns_them_afterwards(full, expert, status):
    old = expert("a")
    assert concerned(old, changed(old, status=status), full) == ({A, POOL}, {B})


def test_an_edited_spec_concerns_peers(full, expert):
    new = changed(expert("a"))
    new["metadata"]["generation"] = 2
    assert concerned(expert("a"), new, full) == ({A, POOL}, {B})


def test_a_new_expert_and_a_deleted_one_concern_their_peers(full, expert):
    assert concerned(None, expert("a"), full) == ({A, POOL}, {B})
    assert concerned(expert("a"), None, full) == ({A, POOL}, {B})


def test_a_pool_concerns_its_experts(full, pool):
    assert concerned(None, pool("p"), full) == ({POOL}, {A, B})


@pytest.mark.parametrize("kind", ["Job", "Pod", "Deployment", "Service", "ConfigMap"])
def test_a_child_concerns_its_expert_and_pool(full, make, kind):
    assert concerned(None, make(kind, "x", pool="p", expert="a", spec={}), full) == ({A, POOL}, set())
    assert concerned(make(kind, "x", pool="p", spec={}), None, full) == ({POOL}, set())


def test_a_revision_concerns_its_expert_and_pool(full, make):
    revision = make("ExpertRevision", "a-1", spec={"expert": "a", "pool": "p"})
    assert concerned(None, revision, full) == ({A, POOL}, set())


def test_a_claim_concerns_the_pools_that_use_it(full, make, pool):
    assert concerned(None, make("PersistentVolumeClaim", "somebodys"), full) == (set(), set())
    assert concerned(None, make("PersistentVolumeClaim", "p-store", pool="p"), full) == ({POOL}, {A, B})
    full.put(pool("p", spec={"storage": {"claim": "shared"}}, version=2))
    assert concerned(None, make("PersistentVolumeClaim", "shared"), full) == ({POOL}, {A, B})


def test_a_claim_concerns_the_pools_whose_store_it_may_be_without_any_label(full, make):
    claim = make("PersistentVolumeClaim", "p-store")
    claim["metadata"]["labels"] = {}
    assert concerned(None, claim, full) == ({POOL}, {A, B})
    elsewhere = copy.deepcopy(claim)
    elsewhere["metadata"]["namespace"] = "other"
    assert concerned(None, elsewhere, full) == (set(), set())


def test_a_claim_concerns_the_experts_that_read_it_and_the_pools_whose_evaluators_do(
    full, make, expert, pool
):
    claim = make("PersistentVolumeClaim", "text")
    full.put(expert("a", spec={"data": {"sources": [{"claim": "text", "path": "*"}]}}, version=2))
    assert concerned(claim, None, full) == ({A, POOL}, set())
    items = {"name": "sums", "measure": "exactMatch", "claim": "text", "path": "*"}
    full.put(pool("p", spec={"evaluation": {"evaluators": [items]}}, version=2))
    assert concerned(claim, claim, full) == ({A, POOL}, {B})


def test_an_object_without_labels_concerns_nobody(full, make):
    assert concerned(None, make("ConfigMap", "x"), full) == (set(), set())


def test_an_object_whose_labels_were_taken_away_concerns_its_owners_all_the_same(
    full, make, deploy, job_pod, cache
):
    job = make("Job", "a-1-a1", owner=full.get("Expert", "ns", "a"))
    full.put(job)
    assert concerned(None, job, full) == ({A, POOL}, set())
    assert concerned(None, job_pod(job), full) == ({A, POOL}, set())
    (server,) = deploy(make("Deployment", "a-1", owner=full.get("Expert", "ns", "a")), "a-1-x")
    assert concerned(None, server, full) == ({A, POOL}, set())
    (gateway,) = deploy(
        make("Deployment", "p-gateway", owner=full.get("ExpertPool", "ns", "p")), "p-gateway-x"
    )
    assert concerned(None, gateway, full) == ({POOL}, set())


def test_a_changed_label_concerns_whom_it_named_before(full, make):
    old, new = make("Job", "x", pool="p", expert="a", spec={}), make("Job", "x", pool="q", spec={})
    assert concerned(old, new, full) == ({A, POOL, Key("ExpertPool", "ns", "q")}, set())
