"""The operator may do what it does, and nothing else: its requests in a whole life, against the table of permissions.

The simulated API server refuses what the table does not grant, so every other test with a World shows that it grants
enough. A request that no test makes any more shows up here as a permission too many.
"""

from datetime import UTC, datetime

from world import World
from world.api_server import ApiServer
from world.client import Client, finish

from moe_operator.cluster.lease import LEASE_NAME, Lease
from moe_operator.cluster.overlap import Overlap
from moe_operator.cluster.permissions import PERMISSIONS, READ, lease_permissions
from moe_operator.cluster.resources import WATCHED
from moe_operator.planner.proposals import KEPT

GRANTS = [grant for permission in PERMISSIONS for grant in permission.grants()]


def lives(world: World) -> None:
    """Have the operator do everything that it ever does."""
    world.pool()
    for name in ("code", "general"):
        world.expert(name)
    world.settle()
    world.change("code", serving={"replicas": 2})
    world.settle()
    # Another revision takes over: servers, Services and Jobs of the old one go.
    world.change("code", serving={"replicas": 2}, runID="again")
    world.settle()
    # A newer base is proposed, and an old proposal goes.
    world.change("code", base={"expert": "general", "follow": "Propose"})
    world.change("general", seed=2)
    world.settle()
    (name,) = world.proposals()
    for number in range(KEPT + 1):
        live = world.get("ExpertProposal", name)
        metadata = {**live["metadata"], "name": f"old-{number}"}
        world.server.add({**live, "metadata": metadata, "status": {**live["status"], "phase": "Expired"}})
    world.settle()
    for _ in range(2):  # Edits are put back, and the second event like the first is counted.
        world.edit("Deployment", "code-2", {"spec": {"template": {"spec": {"restartPolicy": "Never"}}}})
        world.edit("Service", "code-2", {"spec": {"selector": {"moe-operator.dev/role": "another"}}})
        world.settle()


def test_every_write_is_granted_and_every_grant_is_used() -> None:
    world = World()
    lives(world)
    asked = world.operator.client.asked
    writes = {(plural, verb) for plural, verb in GRANTS if verb not in READ}
    reads = {(plural, verb) for plural, verb in asked if verb in READ}
    assert {item for item in asked if item[1] not in READ} == writes
    assert reads <= set(GRANTS)


def test_exactly_what_is_watched_may_be_read() -> None:
    """Lists, watches and sweeps read every kind that is cached; of Events, one is read when it is counted."""
    granted = {grant for grant in GRANTS if grant[1] in READ}
    assert granted == {(item.plural, verb) for item in WATCHED for verb in READ} | {("events", "get")}


def test_no_permission_is_granted_twice_or_to_everything() -> None:
    assert len(GRANTS) == len(set(GRANTS))
    assert all("*" not in grant for grant in GRANTS)
    assert all(permission.why.endswith(".") for permission in PERMISSIONS)


def test_what_holds_weights_or_belongs_to_people_is_never_deleted() -> None:
    deleted = {plural for plural, verb in GRANTS if verb in ("delete", "deletecollection")}
    # Of proposals, the operator deletes only its own, and the chart's admission policy holds it to that.
    assert deleted == {"jobs", "deployments", "services", "expertproposals"}


def test_the_lease_is_taken_and_kept_with_the_permissions_for_that_one() -> None:
    client = Client(ApiServer(lambda: datetime.now(UTC)))
    lease = Lease(namespace="moe-system", name=LEASE_NAME, holder="a", seconds=15)
    for _ in range(2):
        assert finish(lease.try_once(client))  # type: ignore[arg-type]
    overlap = Overlap(namespace="moe-system", lease=LEASE_NAME, scope=())
    assert not finish(overlap.look(client))  # type: ignore[arg-type]
    finish(lease.release(client))  # type: ignore[arg-type]
    permissions = lease_permissions(LEASE_NAME)
    assert client.asked == {grant for permission in permissions for grant in permission.grants()}
    assert all(item.names == (LEASE_NAME,) or item.verbs in (("create",), ("list",)) for item in permissions)
