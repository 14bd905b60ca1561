import aiohttp
import pytest

from moe_formats.resources import labels
from moe_formats.resources.reasons import Reason
from moe_operator.cluster.api_client import ApiError
from moe_operator.cluster.apply import Applier, NameTaken, Outdated
from moe_operator.cluster.resources import ref_of
from moe_operator.state import Event, Plan, StatusWrite


@pytest.fixture
def applier(api, cache):
    return Applier(api, cache)


@pytest.fixture
def about(api, cache, expert):
    """The Expert that plans are about."""
    stored = api.add(expert("e", uid="E"))
    cache.put(stored)
    return stored


def job(make, name="e-1-a1", *, owner="E", digest="sha256:1", **parts):
    spec = {"suspend": True}
    annotations = {labels.CONFIG_DIGEST: digest}
    manifest = make(
        "Job", name, owner=owner, annotations=annotations, pool="p", expert="e", spec=spec, **parts
    )
    for field in ("uid", "resourceVersion", "creationTimestamp", "generation"):
        del manifest["metadata"][field]
    return manifest


def config_map(make, text="1", owner="E"):
    manifest = make("ConfigMap", "policy", owner=owner, pool="p", data={"a": text})
    for field in ("uid", "resourceVersion", "creationTimestamp", "generation"):
        del manifest["metadata"][field]
    return manifest


async def test_what_is_made_enters_the_cache_at_once(applier, api, cache, about, make):
    await applier.carry_out(Plan(create=(job(make),)), about)
    assert cache.get("Job", "ns", "e-1-a1")["metadata"]["uid"]
    await applier.carry_out(Plan(create=(job(make),)), about)
    assert api.writes == [("create", "Job", "e-1-a1")]


async def test_a_job_made_before_a_kill_is_recognised(applier, api, cache, about, make):
    api.add(job(make))  # Made, and the operator was killed before it heard the answer.
    await applier.carry_out(Plan(create=(job(make),)), about)
    assert cache.get("Job", "ns", "e-1-a1") is not None


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"owner": "F"}, "another owner"),
        ({"digest": "sha256:2"}, "other inputs"),
        ({"deleted": "t"}, "being deleted"),
    ],
)
async def test_a_taken_name_is_no_success(applier, api, about, make, other, why):
    api.add(job(make, **other))
    with pytest.raises(NameTaken, match=why):
        await applier.carry_out(Plan(create=(job(make),)), about)


async def test_a_label_that_was_taken_away_is_put_back(applier, api, cache, about, make):
    edited = job(make)
    edited["metadata"]["labels"] = {}
    api.add(edited)
    await applier.carry_out(Plan(create=(job(make),)), about)
    assert cache.get("Job", "ns", "e-1-a1")["metadata"]["labels"][labels.POOL] == "p"


async def test_what_is_as_desired_costs_no_request(applier, api, about, make):
    plan = Plan(create=(job(make),), apply=(config_map(make),))
    await applier.carry_out(plan, about)
    api.writes.clear()
    await applier.carry_out(plan, about)
    assert api.writes == []


async def test_an_edited_object_is_put_back(applier, api, cache, about, make):
    await applier.carry_out(Plan(apply=(config_map(make),)), about)
    live = api.objects["ConfigMap", "ns", "policy"]
    cache.put(api.add({**live, "data": {"a": "edited"}}))
    await applier.carry_out(Plan(apply=(config_map(make),)), about)
    assert api.objects["ConfigMap", "ns", "policy"]["data"] == {"a": "1"}


async def test_what_somebody_added_to_a_list_is_taken_out(applier, api, cache, about, make):
    """Server-side apply leaves list items of other field managers; the API in memory merges like it."""

    def deployment(env):
        spec = {"template": {"spec": {"containers": [{"name": "server", "env": env}]}}}
        manifest = make("Deployment", "e-1", owner="E", spec=spec)
        for field in ("uid", "resourceVersion", "creationTimestamp", "generation"):
            del manifest["metadata"][field]
        return manifest

    class LikeServerSide(type(api)):
        async def apply(self, resource, manifest):
            self.writes.append(("apply", "Deployment", "e-1"))
            return self.add(self.objects["Deployment", "ns", "e-1"])

    api.__class__ = LikeServerSide
    cache.put(api.add(deployment([{"name": "A", "value": "1"}, {"name": "ADDED", "value": "2"}])))
    await applier.carry_out(Plan(apply=(deployment([{"name": "A", "value": "1"}]),)), about)
    live = api.objects["Deployment", "ns", "e-1"]["spec"]["template"]["spec"]["containers"][0]["env"]
    assert live == [{"name": "A", "value": "1"}]


async def test_an_object_of_another_owner_is_not_taken_over(applier, api, cache, about, make):
    cache.put(api.add(config_map(make, owner="F")))
    with pytest.raises(NameTaken, match="another owner"):
        await applier.carry_out(Plan(apply=(config_map(make, "2"),)), about)
    assert api.objects["ConfigMap", "ns", "policy"]["data"] == {"a": "1"}


async def test_a_job_is_resumed_once(applier, api, cache, about, make):
    await applier.carry_out(Plan(create=(job(make),)), about)
    ref = ref_of(cache.get("Job", "ns", "e-1-a1"))
    for _ in range(2):
        await applier.carry_out(Plan(resume=(ref,)), about)
    assert [verb for verb, *_ in api.writes] == ["create", "merge"]
    assert cache.get("Job", "ns", "e-1-a1")["spec"]["suspend"] is False


async def test_replicas_go_through_scale(applier, api, cache, about, make):
    cache.put(api.add(make("Deployment", "e-1", owner="E", spec={"replicas": 1})))
    await applier.carry_out(Plan(scale=((ref_of(cache.get("Deployment", "ns", "e-1")), 3),)), about)
    assert api.writes == [("merge/scale", "Deployment", "e-1")]
    assert cache.get("Deployment", "ns", "e-1")["spec"]["replicas"] == 3


async def test_a_status_that_was_decided_on_an_old_view_is_not_written(applier, api, cache, about, expert):
    newer = api.add({**about, "spec": {**about["spec"], "seed": 7}})  # Edited; the watch has not told yet.
    write = StatusWrite(ref_of(about), {"phase": "Old"}, about["metadata"]["resourceVersion"])
    with pytest.raises(Outdated):
        await applier.carry_out(Plan(statuses=(write,)), about)
    assert cache.get("Expert", "ns", "e")["spec"]["seed"] == 7, "the new view is in the cache"
    assert "status" not in api.objects["Expert", "ns", "e"]
    again = StatusWrite(ref_of(about), {"phase": "New"}, newer["metadata"]["resourceVersion"])
    await applier.carry_out(Plan(statuses=(again,)), about)
    assert cache.get("Expert", "ns", "e")["status"] == {"phase": "New"}


async def test_an_object_that_is_gone_leaves_the_cache(applier, api, cache, about):
    api.objects.clear()
    write = StatusWrite(ref_of(about), {}, about["metadata"]["resourceVersion"])
    with pytest.raises(Outdated):
        await applier.carry_out(Plan(statuses=(write,)), about)
    assert cache.get("Expert", "ns", "e") is None


async def test_only_the_object_with_that_uid_is_deleted(applier, api, cache, about, make):
    cache.put(api.add(make("Job", "old", uid="1")))
    ref = ref_of(cache.get("Job", "ns", "old"))
    api.server.delete(("Job", "ns", "old"))
    api.add(make("Job", "old", uid="2"))  # Deleted and made again by somebody else.
    await applier.carry_out(Plan(delete=(ref,)), about)
    assert api.objects["Job", "ns", "old"]["metadata"]["uid"] == "2"
    assert cache.get("Job", "ns", "old") is None


async def test_deleting_what_is_gone_is_success(applier, api, cache, about, make):
    cache.put(make("Job", "old", uid="1"))
    await applier.carry_out(Plan(delete=(ref_of(make("Job", "old", uid="1")),)), about)
    assert cache.get("Job", "ns", "old") is None


async def test_the_order_loses_nothing_in_a_kill(applier, api, cache, about, make):
    cache.put(api.add(make("Deployment", "old", uid="1", owner="E")))
    write = StatusWrite(ref_of(about), {"phase": "X"}, about["metadata"]["resourceVersion"])
    plan = Plan(
        create=(job(make),),
        apply=(config_map(make),),
        statuses=(write,),
        delete=(ref_of(cache.get("Deployment", "ns", "old")),),
        events=(Event(Reason.PENDING, "hello"),),
    )
    await applier.carry_out(plan, about)
    assert [verb for verb, *_ in api.writes] == ["create", "apply", "status", "delete", "create"]
    assert api.writes[-1][1] == "Event"


async def test_a_plan_is_carried_out_again_from_the_start_after_a_failure(applier, api, about, make):
    plan = Plan(create=(job(make), job(make, "e-1-a2")))
    api.fail_next = aiohttp.ClientConnectionError("reset")
    with pytest.raises(aiohttp.ClientConnectionError):
        await applier.carry_out(plan, about)
    await applier.carry_out(plan, about)
    assert {name for kind, _, name in api.objects if kind == "Job"} == {"e-1-a1", "e-1-a2"}


async def test_an_event_that_cannot_be_written_harms_nobody(applier, api, about):
    api.fail_next = ApiError(403, "Forbidden", "no")
    await applier.carry_out(Plan(events=(Event(Reason.PENDING, "hello"),)), about)
    assert api.fail_next is None, "the API server was asked"
    assert not [key for key in api.objects if key[0] == "Event"]


async def test_equal_events_are_counted_in_one_object(applier, api, about):
    for _ in range(3):
        await applier.carry_out(Plan(events=(Event(Reason.PENDING, "hello"),)), about)
    events = [item for (kind, *_), item in api.objects.items() if kind == "Event"]
    assert [item["count"] for item in events] == [3]
    assert events[0]["involvedObject"]["uid"] == "E"
