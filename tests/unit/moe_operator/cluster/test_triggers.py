import copy

import pytest

from moe_operator.cluster.triggers import concerned
from moe_operator.state import Key

POOL, A, B = Key("ExpertPool", "ns", "p"), Key("Expert", "ns", "a"), Key("Expert", "ns", "b")


@pytest.fixture
def full(cache, expert, pool):
    """A pool with the Experts a and b."""
    for item in (pool("p"), expert("a"), expert("b"), pool("q"), expert("z", pool="q")):
        cache.put(item)
    return cache


def changed(manifest, **parts):
    new = copy.deepcopy(manifest)
    new.update(parts)
    return new


def test_progress_of_an_expert_wakes_only_itself_and_its_pool(full, expert):
    old = expert("a", status={"training": {"step": 1}})
    assert concerned(old, changed(old, status={"training": {"step": 2}}), full) == {A, POOL}


@pytest.mark.parametrize(
    "status",
    [
        {"snapshot": {"digest": "x"}},
        {"currentRevision": "a-1"},
        {"conditions": [{"type": "Stalled", "status": "True"}]},
    ],
)
def test_what_peers_rest_on_wakes_the_whole_pool(full, expert, status):
    old = expert("a")
    assert concerned(old, changed(old, status=status), full) == {A, B, POOL}


def test_a_new_expert_and_a_deleted_one_wake_the_whole_pool(full, expert):
    assert concerned(None, expert("a"), full) == {A, B, POOL}
    assert concerned(expert("a"), None, full) == {A, B, POOL}


def test_a_pool_wakes_its_experts(full, pool):
    assert concerned(None, pool("p"), full) == {A, B, POOL}


def test_a_finished_job_frees_its_place_for_others(full, make):
    running = make("Job", "a-1-a1", pool="p", expert="a", spec={"suspend": False})
    assert concerned(running, changed(running, status={"active": 1}), full) == {A, POOL}
    done = changed(running, status={"conditions": [{"type": "Complete", "status": "True"}]})
    assert concerned(running, done, full) == {A, B, POOL}
    assert concerned(running, None, full) == {A, B, POOL}


@pytest.mark.parametrize("kind", ["Pod", "Deployment", "Service", "ConfigMap"])
def test_a_child_wakes_its_expert_and_pool(full, make, kind):
    assert concerned(None, make(kind, "x", pool="p", expert="a", spec={}), full) == {A, POOL}
    assert concerned(make(kind, "x", pool="p", spec={}), None, full) == {POOL}


def test_a_revision_wakes_its_expert_and_pool(full, make):
    assert concerned(None, make("ExpertRevision", "a-1", spec={"expert": "a", "pool": "p"}), full) == {
        A,
        POOL,
    }


def test_a_claim_wakes_the_pools_that_use_it(full, make, pool):
    assert concerned(None, make("PersistentVolumeClaim", "somebodys"), full) == set()
    assert concerned(None, make("PersistentVolumeClaim", "p-store", pool="p"), full) == {A, B, POOL}
    full.put(pool("p", spec={"storage": {"claim": "shared"}}, version=2))
    assert concerned(None, make("PersistentVolumeClaim", "shared"), full) == {A, B, POOL}


def test_an_object_without_labels_wakes_nobody(full, make):
    assert concerned(None, make("ConfigMap", "x"), full) == set()
