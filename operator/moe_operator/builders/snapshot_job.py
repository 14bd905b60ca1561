"""The snapshot Job: reads the sources and writes a content-addressed snapshot. It needs no accelerator."""

from collections.abc import Mapping
from typing import Any

from moe_formats.job_config import SnapshotJob
from moe_formats.object_stores import (
    ACCESS_KEY_ID,
    CERTIFICATES,
    SECRET_ACCESS_KEY,
    SESSION_TOKEN,
    ObjectStoreLocation,
    write_object_stores,
)
from moe_formats.resources.expert import Expert
from moe_operator.builders.job import trainer_job
from moe_operator.builders.metadata import child_labels
from moe_operator.builders.pod import SourceMount, Workload, config_text
from moe_operator.config import OperatorConfig, Profile
from moe_operator.state import Role

#: Where the Secrets of data stores are mounted, in one folder per store.
CREDENTIALS_PATH = "/moe/credentials"


def build_snapshot_job(
    *,
    name: str,
    expert: Expert,
    job: SnapshotJob,
    claim: str,
    sources: tuple[SourceMount, ...],
    object_stores: Mapping[str, ObjectStoreLocation],
    profile: Profile,
    config: OperatorConfig,
) -> dict[str, Any]:
    """Return the Job; ``profile`` is one without a device.

    Only this Job reads sources, so only this Job gets the Secrets of the object stores.
    """
    labels = child_labels(pool=expert.spec.pool, role=Role.SNAPSHOT, expert=expert.metadata.name)
    work = Workload(
        name="snapshot",
        image=profile.image or config.images.trainer,
        command=("moe-trainer", "snapshot"),
        env={"MOE_JOB_CONFIG": config_text(job), **_environment(object_stores)},
        profile=profile,
        images=config.images,
        claim=claim,
        sources=sources,
        volumes=_credentials(object_stores),
    )
    return trainer_job(
        name=name,
        owner=expert,
        labels=labels,
        job=job,
        work=work,
        deadline=config.deadline_seconds.snapshot,
        config=config,
    )


def _environment(object_stores: Mapping[str, ObjectStoreLocation]) -> dict[str, str]:
    if not object_stores:
        return {}
    return {
        "MOE_OBJECT_STORES": write_object_stores(dict(object_stores)),
        "MOE_CREDENTIALS": CREDENTIALS_PATH,
    }


def _credentials(
    object_stores: Mapping[str, ObjectStoreLocation],
) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Return the volumes with the stores' Secrets, each with only the keys that are read.

    They are optional: if one is missing, the Job fails with a message that says so, rather than a pod that never starts.
    """
    keys = (ACCESS_KEY_ID, SECRET_ACCESS_KEY, SESSION_TOKEN, CERTIFICATES)
    items = [{"key": key, "path": key} for key in keys]
    return {
        f"credentials-{number}": (
            f"{CREDENTIALS_PATH}/{store}",
            {
                "secret": {
                    "secretName": location.secret,
                    "items": items,
                    "defaultMode": 0o440,
                    "optional": True,
                }
            },
        )
        for number, (store, location) in enumerate(object_stores.items())
        if location.secret
    }
