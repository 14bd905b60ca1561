import aiohttp
import pytest

from moe_formats.resources import labels
from moe_formats.resources.reasons import Reason
from moe_operator.cluster.api_client import ApiError
from moe_operator.cluster.apply import Applier, Outdated
from moe_operator.cluster.ownership import NameTaken
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


async def test_what_somebody_added_to_a_map_that_is_ours_alone_is_taken_out(applier, api, cache, about, make):
    await applier.carry_out(Plan(apply=(config_map(make),)), about)
    live = api.objects["ConfigMap", "ns", "policy"]
    cache.put(api.add({**live, "data": {"a": "1", "b": "2"}, "binaryData": {"c": "eA=="}}))
    await applier.carry_out(Plan(apply=(config_map(make),)), about)
    there = api.objects["ConfigMap", "ns", "policy"]
    assert (there["data"], there["binaryData"]) == ({"a": "1"}, {})
    api.writes.clear()
    await applier.carry_out(Plan(apply=(config_map(make),)), about)
    assert api.writes == []


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
    cache.put(api.add(config_map(make, "0")))
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


# -- objects of others


def foreign(kind, name, **metadata):
    """Return an object of somebody else with the name of one of ours; without our label, the cache does not know it."""
    api_version = {"Job": "batch/v1", "Deployment": "apps/v1"}.get(kind, "v1")
    spec = {"spec": {"suspend": True}} if kind in ("Job", "Deployment") else {"data": {"theirs": "1"}}
    metadata = {"name": name, "namespace": "ns", **metadata}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **spec}


def desired(make, kind):
    """Return an object of ours, as a builder makes it."""
    manifest = make(kind, "mine", owner="E", pool="p", expert="e", spec={"a": 1})
    for field in ("uid", "resourceVersion", "creationTimestamp", "generation"):
        del manifest["metadata"][field]
    return manifest


OURS = {labels.MANAGED_BY: labels.FIELD_MANAGER, labels.POOL: "p", labels.EXPERT: "e"}
OWNER = {"apiVersion": labels.API_VERSION, "kind": "Expert", "name": "x", "uid": "E"}


@pytest.mark.parametrize("act", ["create", "apply"])
@pytest.mark.parametrize("kind", ["ExpertRevision", "Job", "Deployment", "Service", "ConfigMap"])
@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"labels": OURS},
        {"labels": OURS, "ownerReferences": [{**OWNER, "uid": "F", "controller": True}]},
        {"labels": OURS, "ownerReferences": [OWNER]},
        {
            "labels": OURS,
            "ownerReferences": [OWNER, {**OWNER, "kind": "Job", "uid": "J", "controller": True}],
        },
    ],
    ids=["bare", "labelled", "of a namesake", "owned but not controlled", "owned, controlled by another"],
)
@pytest.mark.parametrize("known", [False, True], ids=["unknown", "in the cache"])
async def test_an_object_of_somebody_else_is_left_exactly_as_it_is(
    applier, api, cache, about, make, act, kind, metadata, known
):
    before = api.add(foreign(kind, "mine", **metadata))
    if known:
        cache.put(before)
    with pytest.raises(NameTaken, match=rf"{kind} mine already exists.* needs the name.*Delete that object"):
        await applier.carry_out(Plan(**{act: (desired(make, kind),)}), about)
    assert api.objects[kind, "ns", "mine"] == before
    assert known or cache.get(kind, "ns", "mine") is None, "no decision rests on it"


@pytest.mark.parametrize(
    ("metadata", "whose"),
    [
        ({"labels": {labels.MANAGED_BY: "Helm"}}, "managed by Helm"),
        ({}, "has no controlling owner, as every object would"),
        (
            {"ownerReferences": [{"kind": "StatefulSet", "name": "db", "uid": "D", "controller": True}]},
            "controlled by StatefulSet db with uid D",
        ),
    ],
)
async def test_the_owner_of_a_foreign_object_is_named(applier, api, about, make, metadata, whose):
    api.add(foreign("Service", "mine", **metadata))
    with pytest.raises(NameTaken, match=whose):
        await applier.carry_out(Plan(apply=(desired(make, "Service"),)), about)


def claim(**metadata):
    metadata = {"name": "p-store", "namespace": "ns", "labels": {**OURS, labels.ROLE: "store"}, **metadata}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": {"size": 1}}


@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": {}},
        {"labels": {**OURS, labels.ROLE: "store", labels.POOL: "q"}},
        {"ownerReferences": [{"kind": "StatefulSet", "name": "db", "uid": "D", "controller": True}]},
    ],
    ids=["bare", "of another pool", "of another owner"],
)
async def test_a_claim_of_somebody_else_is_no_store(applier, api, about, metadata):
    before = api.add(claim(**metadata))
    with pytest.raises(
        NameTaken, match=r"p-store already exists.*(labels of the store|db).*ExpertPool p needs"
    ):
        await applier.carry_out(Plan(create=(claim(),)), about)
    assert api.objects["PersistentVolumeClaim", "ns", "p-store"] == before


async def test_the_claim_of_an_earlier_pool_of_that_name_is_its_store(applier, api, cache, about):
    before = api.add(claim())
    await applier.carry_out(Plan(create=(claim(),)), about)
    assert api.objects["PersistentVolumeClaim", "ns", "p-store"] == before
    assert cache.get("PersistentVolumeClaim", "ns", "p-store") == before


class Swap:
    """Has another object take the name of one just before the operator's next request of some verb."""

    def __init__(self, api, verb, other):
        self.api, self.verb, self.other, self.before = api, verb, other, api.before_write
        api.before_write = self.before_write

    def before_write(self, verb, key):
        self.before(verb, key)
        if verb == self.verb:
            self.api.before_write = self.before
            self.api.server.delete(key)
            self.there = self.api.add(self.other)


@pytest.mark.parametrize("verb", ["fields", "apply"])
async def test_an_object_that_is_swapped_before_it_is_applied_is_not_met(
    applier, api, cache, about, make, verb
):
    await applier.carry_out(Plan(apply=(config_map(make, "0"),)), about)
    swap = Swap(api, verb, foreign("ConfigMap", "policy"))
    with pytest.raises(Outdated):
        await applier.carry_out(Plan(apply=(config_map(make, "1"),)), about)
    assert api.objects["ConfigMap", "ns", "policy"] == swap.there
    assert cache.get("ConfigMap", "ns", "policy") is None
    with pytest.raises(NameTaken):
        await applier.carry_out(Plan(apply=(config_map(make, "1"),)), about)
    api.server.delete(("ConfigMap", "ns", "policy"))
    await applier.carry_out(Plan(apply=(config_map(make, "1"),)), about)
    assert cache.get("ConfigMap", "ns", "policy")["data"] == {"a": "1"}


async def test_an_object_that_is_swapped_before_it_is_labelled_is_not_met(applier, api, cache, about, make):
    edited = job(make)
    edited["metadata"]["labels"] = {}
    api.add(edited)
    swap = Swap(api, "merge", foreign("Job", "e-1-a1"))
    with pytest.raises(Outdated):
        await applier.carry_out(Plan(create=(job(make),)), about)
    assert api.objects["Job", "ns", "e-1-a1"] == swap.there
    assert cache.get("Job", "ns", "e-1-a1") is None


@pytest.mark.parametrize("verb", ["merge", "merge/scale", "delete"])
async def test_an_object_that_is_swapped_before_it_is_scaled_resumed_or_deleted_is_not_met(
    applier, api, cache, about, make, verb
):
    kind = "Job" if verb == "merge" else "Deployment"
    cache.put(api.add(make(kind, "mine", owner="E", spec={"replicas": 1, "suspend": True})))
    ref = ref_of(cache.get(kind, "ns", "mine"))
    swap = Swap(api, verb, foreign(kind, "mine"))
    plans = {
        "merge": Plan(resume=(ref,)),
        "merge/scale": Plan(scale=((ref, 3),)),
        "delete": Plan(delete=(ref,)),
    }
    if verb == "delete":
        await applier.carry_out(plans[verb], about)
    else:
        with pytest.raises(Outdated):
            await applier.carry_out(plans[verb], about)
    assert api.objects[kind, "ns", "mine"] == swap.there
    assert cache.get(kind, "ns", "mine") is None


async def test_what_has_changed_since_it_was_decided_about_is_not_deleted(applier, api, cache, about, make):
    """For example because somebody has taken the owner away, to keep the object."""
    cache.put(api.add(make("Job", "old", uid="1", owner="E")))
    kept = api.add(make("Job", "old", uid="1"))
    await applier.carry_out(Plan(delete=(ref_of(make("Job", "old", uid="1")),)), about)
    assert api.objects["Job", "ns", "old"] == kept
    assert cache.get("Job", "ns", "old") == kept, "so that it is decided about anew"
    await applier.carry_out(Plan(delete=(ref_of(make("Job", "old", uid="1")),)), about)
    assert ("Job", "ns", "old") not in api.objects


async def test_a_field_that_is_left_out_goes_although_it_was_set_by_a_create(
    applier, api, cache, about, make
):
    more = config_map(make)
    more["data"] = {"a": "1", "b": "2"}
    await applier.carry_out(Plan(apply=(more,)), about)
    live = api.objects["ConfigMap", "ns", "policy"]
    theirs = {**live["metadata"], "annotations": {"c": "x"}}
    cache.put(api.add({**live, "metadata": theirs, "data": {"a": "0", "b": "2"}}))
    await applier.carry_out(Plan(apply=(config_map(make),)), about)
    assert api.objects["ConfigMap", "ns", "policy"]["data"] == {"a": "1"}
    assert api.objects["ConfigMap", "ns", "policy"]["metadata"]["annotations"] == {"c": "x"}
    assert [verb for verb, *_ in api.writes] == ["create", "fields", "apply"]
    cache.put(api.add({**api.objects["ConfigMap", "ns", "policy"], "data": {"a": "0"}}))
    await applier.carry_out(Plan(apply=(config_map(make),)), about)
    assert [verb for verb, *_ in api.writes][3:] == ["apply"], "the fields are handed over once"


async def test_a_name_that_is_taken_stops_what_rests_on_it_and_nothing_else(applier, api, cache, about, make):
    for kind in ("Job", "Deployment"):
        cache.put(api.add(make(kind, kind.lower(), owner="E", spec={"replicas": 1, "suspend": True})))
    deployment, waiting = (ref_of(cache.get(kind, "ns", kind.lower())) for kind in ("Deployment", "Job"))
    api.add(foreign("ConfigMap", "policy"))
    plan = Plan(
        apply=(config_map(make), desired(make, "Service")),
        scale=((deployment, 2),),
        resume=(waiting,),
        statuses=(StatusWrite(ref_of(about), {"phase": "X"}, about["metadata"]["resourceVersion"]),),
        delete=(deployment,),
        events=(Event(Reason.PENDING, "hello"),),
    )
    with pytest.raises(NameTaken):
        await applier.carry_out(plan, about)
    assert [write[:2] for write in api.writes] == [
        ("create", "ConfigMap"),
        ("merge/scale", "Deployment"),
        ("merge", "Job"),
    ]


async def test_an_event_of_somebody_else_is_not_counted(applier, api, about):
    plan = Plan(events=(Event(Reason.PENDING, "hello"),))
    await applier.carry_out(plan, about)
    ((key, ours),) = [(key, item) for key, item in api.objects.items() if key[0] == "Event"]
    theirs = api.add({**ours, "source": {"component": "theirs"}})
    await applier.carry_out(plan, about)
    assert api.objects[key] == theirs
