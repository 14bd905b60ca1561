import pytest

from moe_operator.cluster.kinship import (
    experts_of,
    gateway_of,
    orphans_of,
    owners_of,
    pods_of_deployment,
    remember_former_jobs,
)


def names(items):
    return [item["metadata"]["name"] for item in items]


def test_the_chain_of_owners_leads_from_a_pod_to_its_expert(cache, make, deploy, expert):
    owner = expert("e", uid="E")
    cache.put(owner)
    (pod,) = deploy(make("Deployment", "e-1", owner=owner, role="server"), "e-1-x")
    assert names(owners_of(cache, pod)) == ["e-1-7d9f", "e-1", "e"]


def test_a_chain_ends_where_a_uid_does_not_agree(cache, make, expert):
    cache.put(expert("e", uid="E"))
    forged = make("Job", "j", owner={"kind": "Expert", "metadata": {"name": "e", "uid": "made-up"}})
    assert names(owners_of(cache, forged)) == []


def test_a_circle_of_owners_ends(cache, make):
    cache.put(make("Job", "a", uid="A", owner={"kind": "Job", "metadata": {"name": "a", "uid": "A"}}))
    assert len(list(owners_of(cache, cache.get("Job", "ns", "a")))) == 4


def test_labels_make_no_pod_of_a_deployment(cache, make, deploy, expert):
    deployment = make("Deployment", "e-1", owner="E", pool="p", expert="e", role="server", revision="e-1")
    marks = {"pool": "p", "expert": "e", "role": "server", "revision": "e-1"}
    deploy(deployment, "e-1-real", **marks)
    cache.put(make("Pod", "e-1-7d9f-forged", **marks))
    cache.put(make("Pod", "e-1-7d9f-owned", owner=deployment, **marks))
    assert names(pods_of_deployment(cache, deployment)) == ["e-1-real"]


def test_a_gateway_belongs_to_its_pool_by_uid(cache, make, pool):
    cache.put(pool("p", uid="P"))
    cache.put(make("Deployment", "forged", pool="p", role="gateway"))
    assert gateway_of(cache, "ns", "P") is None
    cache.put(make("Deployment", "p-gateway", owner="P", pool="p", role="gateway"))
    assert names([gateway_of(cache, "ns", "P")]) == ["p-gateway"]


def test_a_deleted_expert_is_remembered_until_it_is_there_again(cache, expert):
    cache.put(expert("e", uid="old"))
    cache.remove("Expert", "ns", "e", "old", 5)
    cache.put(expert("e", uid="new"))
    assert experts_of(cache, "ns", "p") == {"old": "e", "new": "e"}
    assert experts_of(cache, "elsewhere", "p") == {}


def test_pods_that_outlive_a_job_of_ours_are_known_by_its_uid(cache, make, job_pod):
    job = make("Job", "e-1-a1", uid="J", owner="E", pool="p", expert="e")
    cache.put(job)
    cache.put(job_pod(job, pool="p", expert="e"))
    assert orphans_of(cache, "ns", "E") == [], "its Job is there"
    cache.remove("Job", "ns", "e-1-a1", "J", 7)
    cache.put(make("Pod", "e-1-a1-forged", owner="never", pool="p", expert="e", role="train"))
    assert names(orphans_of(cache, "ns", "E")) == ["e-1-a1-x7k2p"]
    cache.put({**job, "metadata": {**job["metadata"], "resourceVersion": "9"}})
    assert orphans_of(cache, "ns", "E") == [], "its Job is there again"


ENDING = "2026-01-01T00:00:30Z"


@pytest.mark.parametrize(
    ("deleted", "grace", "letters", "known"),
    [
        (ENDING, 30, "x7k2p", True),
        (None, None, "x7k2p", False),
        (ENDING, 1_000_000_000, "x7k2p", False),
    ],
)
def test_after_a_restart_only_a_pod_that_soon_ends_is_taken_for_an_orphan(
    cache, make, expert, job_pod, deleted, grace, letters, known
):
    cache.put(expert("e", uid="E"))
    pod = job_pod(make("Job", "e-1-a1", uid="J"), letters, expert="e", pool="p", deleted=deleted)
    if grace is not None:
        pod["metadata"]["deletionGracePeriodSeconds"] = grace
    cache.put(pod)
    remember_former_jobs(cache)
    assert bool(orphans_of(cache, "ns", "E")) is known
