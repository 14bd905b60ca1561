from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from moe_local.agent.api_client import APIClient, ConflictError, NotFoundError
from moe_local.agent.provisioner import VOLUMES, Provisioner
from moe_local.agent.volumes import PROVISIONED_BY, PROVISIONER


class Server:
    """The requests that the provisioner makes, answered from memory."""

    def __init__(self) -> None:
        self.volumes: dict[str, dict[str, Any]] = {}
        self.classes = {
            "local": {"provisioner": PROVISIONER, "reclaimPolicy": "Delete"},
            "other": {"provisioner": "x"},
        }

    async def get(self, path: str) -> dict[str, Any]:
        name = path.rpartition("/")[2]
        if name not in self.classes:
            raise NotFoundError(404, name)
        return cast(dict[str, Any], self.classes[name])

    async def create(self, path: str, body: Mapping[str, Any]) -> None:
        assert path == VOLUMES
        if body["metadata"]["name"] in self.volumes:
            raise ConflictError(409, "exists")
        self.volumes[body["metadata"]["name"]] = dict(body)

    async def delete(self, path: str, *, uid: str, grace: int | None = None) -> None:
        assert uid
        del self.volumes[path.rpartition("/")[2]]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def provisioner(server: Server, tmp_path: Path) -> Provisioner:
    return Provisioner(cast(APIClient, server), tmp_path, "local")


def claim(storage_class: str | None = "local", **spec: Any) -> dict[str, Any]:
    resources = {"requests": {"storage": "1Gi"}}
    named = {"storageClassName": storage_class} if storage_class else {}
    return {
        "metadata": {"name": "store", "namespace": "team", "uid": "u-1"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": resources, **named, **spec},
    }


async def test_a_claim_of_our_class_gets_a_folder_and_a_volume_once(
    server: Server, provisioner: Provisioner, tmp_path: Path
) -> None:
    await provisioner.serve(claim())
    await provisioner.serve(claim())
    assert list(server.volumes) == ["pvc-u-1"]
    spec = server.volumes["pvc-u-1"]["spec"]
    assert spec["claimRef"]["uid"] == "u-1"
    assert Path(spec["local"]["path"]) == tmp_path / "pvc-u-1"
    assert (tmp_path / "pvc-u-1").is_dir()


@pytest.mark.parametrize("other", [claim("other"), claim("unknown"), claim(None), claim(volumeName="bound")])
async def test_other_claims_are_left_alone(
    server: Server, provisioner: Provisioner, tmp_path: Path, other: dict[str, Any]
) -> None:
    await provisioner.serve(other)
    assert not server.volumes
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("phase", "policy", "by", "removed"),
    [
        ("Released", "Delete", PROVISIONER, True),
        ("Released", "Retain", PROVISIONER, False),
        ("Bound", "Delete", PROVISIONER, False),
        ("Released", "Delete", "someone-else", False),
    ],
)
async def test_only_released_volumes_of_ours_are_reclaimed(
    server: Server,
    provisioner: Provisioner,
    tmp_path: Path,
    phase: str,
    policy: str,
    by: str,
    *,
    removed: bool,
) -> None:
    (tmp_path / "pvc-u-1").mkdir()
    volume = {
        "metadata": {"name": "pvc-u-1", "uid": "v-1", "annotations": {PROVISIONED_BY: by}},
        "spec": {"persistentVolumeReclaimPolicy": policy},
        "status": {"phase": phase},
    }
    server.volumes["pvc-u-1"] = volume
    await provisioner.reclaim(volume)
    assert ("pvc-u-1" not in server.volumes) == removed
    assert (tmp_path / "pvc-u-1").exists() != removed
