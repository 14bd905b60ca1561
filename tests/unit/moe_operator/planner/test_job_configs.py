"""An Expert that reads a bucket: its snapshot Job is told where, and only that Job sees the keys."""

import json
from typing import Any

from world import World

from moe_operator.config import Store

LAKE = Store.model_validate(
    {"s3": {"endpoint": "https://objects.example.org", "bucket": "text", "secret": "keys"}}
)
PUBLIC = Store.model_validate({"s3": {"bucket": "open-text"}})


def snapshot_pod(sources: list[dict[str, str]]) -> dict[str, Any]:
    world = World()
    world.pool()
    stores = {**world.config.stores, "lake": LAKE, "public": PUBLIC}
    world.config = world.config.model_copy(update={"stores": stores})
    world.expert("code", base={"preset": "tiny"}, data={"sources": sources})
    (job,) = world.plan("Expert", "code").create
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


def environment(pod: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item.get("value", "") for item in pod["containers"][0]["env"]}


def secrets(pod: dict[str, Any]) -> list[str]:
    return [volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume]


def test_a_bucket_is_told_by_the_environment_and_its_keys_are_mounted() -> None:
    pod = snapshot_pod([{"store": "lake", "path": "a/*"}, {"store": "lake", "path": "b/*"}])
    values = environment(pod)
    location = {"bucket": "text", "endpoint": "https://objects.example.org", "secret": "keys"}
    assert json.loads(values["MOE_OBJECT_STORES"]) == {"lake": location}
    assert "MOE_SOURCES" not in values
    assert secrets(pod) == ["keys"]
    mounts = {mount["mountPath"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts[f"{values['MOE_CREDENTIALS']}/lake"]["readOnly"] is True


def test_a_public_bucket_needs_no_secret() -> None:
    pod = snapshot_pod([{"store": "public", "path": "*"}])
    assert json.loads(environment(pod)["MOE_OBJECT_STORES"]) == {"public": {"bucket": "open-text"}}
    assert secrets(pod) == []


def test_stores_that_are_not_read_are_not_told() -> None:
    pod = snapshot_pod([{"store": "corpora", "path": "*"}])
    assert "MOE_OBJECT_STORES" not in environment(pod)
    assert "MOE_CREDENTIALS" not in environment(pod)
    assert secrets(pod) == []


def test_a_snapshot_job_says_which_scheme_a_new_pool_begins_with() -> None:
    job = json.loads(environment(snapshot_pod([{"store": "lake", "path": "a/*"}]))["MOE_JOB_CONFIG"])
    assert job["newPoolScheme"] == 3
