"""What must hold at every write of the operator, whatever happens around it."""

from collections.abc import Collection

from moe_formats.resources import labels
from moe_formats.routing_policy import parse_routing_policy
from moe_operator.cluster.resources import controller_uid
from moe_operator.state import Plan
from moe_operator.subset import is_as_desired
from world.api_server import ApiServer, Key
from world.manifests import is_finished, label, role


class Broken(AssertionError):
    """An invariant does not hold."""


def check_need(plan: Plan, server: ApiServer) -> None:
    """Check that a plan asks for nothing that is so already, and that it says of each object by uid which one it means."""
    for ref in (
        *plan.resume,
        *plan.suspend,
        *plan.delete,
        *(ref for ref, _ in (*plan.scale, *plan.annotate, *plan.enqueue)),
    ):
        if not ref.uid:
            raise Broken(f"{ref.kind} {ref.name} is to be changed or deleted whichever object it is")
    for manifest in (*plan.create, *plan.apply):
        metadata = manifest["metadata"]
        live = server.objects.get((manifest["kind"], metadata["namespace"], metadata["name"]))
        if live is None or controller_uid(live) != controller_uid(manifest):
            continue
        if manifest in plan.create:
            raise Broken(f"{manifest['kind']} {metadata['name']} is created twice")
        if is_as_desired(manifest, live):
            raise Broken(f"{manifest['kind']} {metadata['name']} is applied without need")
    for write in plan.statuses:
        target = write.target
        live = server.get(target.kind, target.namespace, target.name)
        if live["metadata"]["resourceVersion"] != write.resource_version:
            raise Broken(f"{target.name}: status was decided on an older version")
        if live.get("status") == dict(write.status):
            raise Broken(f"{target.name}: status is written without need")


def check_doubles(server: ApiServer) -> None:
    """Check that nothing is under way twice, and no revision was made twice; objects without an owner are not ours."""
    alive: set[tuple[str, str]] = set()
    snapshots = 0
    identities: set[tuple[str, str]] = set()
    for (kind, _, name), manifest in server.objects.items():
        if not controller_uid(manifest):
            continue
        if kind == "Job" and not is_finished(manifest):
            what = role(manifest), label(manifest, labels.EXPERT)
            if what in alive and what[0] != "distill":
                raise Broken(f"two {what[0]} Jobs of {what[1]} are alive, one of them {name}")
            alive.add(what)
            snapshots += what[0] == "snapshot" and not manifest["spec"]["suspend"]
        elif kind == "ExpertRevision":
            identity = manifest["spec"]["expertUID"], manifest["spec"]["inputsDigest"]
            if identity in identities:
                raise Broken(f"two revisions have the inputs of {name}")
            identities.add(identity)
    if snapshots > 1:
        raise Broken("two snapshots of a pool run at once")


def check_deletion(key: Key, server: ApiServer, policies: Collection[str | None]) -> None:
    """Check that a server is deleted only once no gateway sends anything to it; ``policies`` is what they serve by."""
    kind, namespace, name = key
    live = server.objects.get(key)
    if kind != "Deployment" or live is None:
        return
    policy = server.objects.get(("ConfigMap", namespace, f"{label(live, labels.POOL)}-routing"))
    if policy is None:
        return
    newest = parse_routing_policy(policy["data"]["policy.json"])
    if name in [entry.revision for entry in newest.experts]:
        raise Broken(f"{name} is deleted although requests go to it")
    if set(policies) - {newest.digest()}:
        raise Broken(f"{name} is deleted before every gateway has the new policy")
