"""What a user gave to `moectl local up` holds for later starts that leave it out."""

from pathlib import Path

import pytest

from moe_local.folder import ClusterFolder
from moe_local.given import Given, keep_given


def test_nothing_was_given_to_a_new_cluster(folder: ClusterFolder) -> None:
    assert keep_given(folder, None, None) == Given()


def test_a_repair_starts_with_what_was_given_at_first(folder: ClusterFolder, tmp_path: Path) -> None:
    first = Given(values=(tmp_path / "values.yaml",), images={"example.org/grader": tmp_path})
    assert keep_given(folder, first.values, first.images) == first
    assert keep_given(folder, None, None) == first


def test_what_is_given_anew_replaces_only_its_own_kind(folder: ClusterFolder, tmp_path: Path) -> None:
    keep_given(folder, [tmp_path / "a.yaml"], {"one": tmp_path})
    assert keep_given(folder, [tmp_path / "b.yaml"], None) == Given(
        values=(tmp_path / "b.yaml",), images={"one": tmp_path}
    )
    assert keep_given(folder, [], {}) == Given()


def test_paths_hold_for_a_start_from_another_folder(
    folder: ClusterFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    keep_given(folder, [Path("values.yaml")], {"one": Path("folder")})
    monkeypatch.chdir("/")
    assert keep_given(folder, None, None) == Given(
        values=(tmp_path / "values.yaml",), images={"one": tmp_path / "folder"}
    )
