from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from moe_local.agent.environment import ConfigurationError, Facts, Sources
from moe_local.agent.volumes import File, beneath, decode, payload, references, write

SOURCES: Sources = {
    ("configmaps", "settings"): {"a": b"1", "b": b"2"},
    ("secrets", "keys"): {"token": b"s"},
    ("configmaps", "gone"): None,
}


def files(make_pod: Any, facts: Facts, volume: dict[str, Any]) -> dict[str, File]:
    pod = make_pod(metadata={"labels": {"app": "x"}}, volumes=[{"name": "v", **volume}])
    return payload(pod, pod.spec.volumes[0], facts, SOURCES, {})


def test_items_choose_keys_and_modes(make_pod: Any, facts: Facts) -> None:
    items = [{"key": "b", "path": "deep/b.txt", "mode": 0o600}]
    found = files(make_pod, facts, {"configMap": {"name": "settings", "items": items}})
    assert found == {"deep/b.txt": File(b"2", 0o600)}


def test_a_projected_volume_joins_its_sources(make_pod: Any, facts: Facts) -> None:
    sources = [
        {"configMap": {"name": "settings"}},
        {"secret": {"name": "keys"}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"configMap": {"name": "gone", "optional": True}},
    ]
    found = files(make_pod, facts, {"projected": {"sources": sources, "defaultMode": 0o640}})
    assert {path: file.content for path, file in found.items()} == {
        "a": b"1",
        "b": b"2",
        "token": b"s",
        "labels": b'app="x"',
    }
    assert found["a"].mode == 0o640


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"configMap": {"name": "gone"}}, 'configmap "gone" not found'),
        (
            {"secret": {"secretName": "keys", "items": [{"key": "x", "path": "x"}]}},
            'secret "keys" has no key x',
        ),
        (
            {"configMap": {"name": "settings", "items": [{"key": "a", "path": "../a"}]}},
            "cannot have a file at",
        ),
        ({"configMap": {"name": "settings", "items": [{"key": "a", "path": "/a"}]}}, "cannot have a file at"),
    ],
)
def test_what_cannot_be_mounted_is_named(
    make_pod: Any, facts: Facts, volume: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        files(make_pod, facts, volume)


def test_a_pod_knows_which_objects_its_volumes_need(make_pod: Any) -> None:
    volumes = [
        {"name": "a", "configMap": {"name": "settings"}},
        {"name": "b", "secret": {"secretName": "keys"}},
        {"name": "c", "projected": {"sources": [{"configMap": {"name": "more"}}]}},
        {"name": "d", "emptyDir": {}},
    ]
    pod = make_pod(volumes=volumes)
    assert references(pod) == {("configmaps", "settings"), ("secrets", "keys"), ("configmaps", "more")}


def test_secrets_and_binary_data_are_decoded() -> None:
    assert decode({"kind": "Secret", "data": {"k": "aGk="}}) == {"k": b"hi"}
    assert decode({"kind": "ConfigMap", "data": {"k": "hi"}, "binaryData": {"b": "AAE="}}) == {
        "k": b"hi",
        "b": b"\0\1",
    }


def test_files_are_swapped_as_a_whole(tmp_path: Path) -> None:
    assert write(tmp_path, {"a": File(b"1", 0o644), "deep/b": File(b"2", 0o600)})
    before = os.readlink(tmp_path / "..data")
    assert not write(tmp_path, {"a": File(b"1", 0o644), "deep/b": File(b"2", 0o600)})
    assert os.readlink(tmp_path / "..data") == before
    assert write(tmp_path, {"a": File(b"3", 0o644)})
    assert (tmp_path / "a").read_bytes() == b"3"
    assert not (tmp_path / "deep").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["..data", os.readlink(tmp_path / "..data"), "a"]
    )


def test_a_swap_that_was_cut_off_is_made_good_by_the_next(tmp_path: Path) -> None:
    write(tmp_path, {"a": File(b"1", 0o644)})
    (tmp_path / "..data_tmp").symlink_to("nowhere")
    (tmp_path / "..half").mkdir()
    assert write(tmp_path, {"a": File(b"2", 0o644)})
    assert (tmp_path / "a").read_bytes() == b"2"
    assert not (tmp_path / "..half").exists()


def test_a_sub_path_is_made_inside_its_volume_and_never_outside(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    assert beneath(volume, "a/b") == volume / "a/b"
    assert (volume / "a/b").is_dir()
    (volume / "out").symlink_to(tmp_path)
    (volume / "dangling").symlink_to(tmp_path / "new")
    for bad in ("../x", "/etc", "out/x", "dangling"):
        with pytest.raises(ConfigurationError, match="subPath"):
            beneath(volume, bad)


def test_a_path_in_a_volume_through_links_that_lead_to_each_other_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(ConfigurationError, match="subPath 'a/inner' cannot be resolved"):
        beneath(tmp_path, "a/inner")
    assert not (tmp_path / "x").exists()
