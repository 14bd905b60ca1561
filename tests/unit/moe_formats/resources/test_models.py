"""How objects are read and written: what the API server gives, and what goes back."""

from typing import Any

import pytest
from pydantic import ValidationError

from moe_formats.resources.data import DataSource
from moe_formats.resources.expert import Expert, ExpertSpec
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_status import ExpertStatus

EXPERT: dict[str, Any] = {
    "apiVersion": "moe-operator.dev/v1alpha1",
    "kind": "Expert",
    "metadata": {"name": "law", "namespace": "team", "uid": "u", "resourceVersion": "7", "managedFields": []},
    "spec": {
        "pool": "pool",
        "domain": "law",
        "base": {"expert": "general"},
        "data": {"sources": [{"store": "corpora", "path": "law/*.txt"}]},
        "runID": "second",
    },
}


def test_an_expert_is_read_from_what_the_api_server_gives() -> None:
    expert = Expert.model_validate(EXPERT)
    assert (expert.metadata.resource_version, expert.spec.run_id) == ("7", "second")
    assert expert.spec.training.resources.profile == "cpu"
    assert expert.status == ExpertStatus()


def test_a_field_of_a_newer_version_is_ignored_on_read() -> None:
    newer = EXPERT | {"spec": EXPERT["spec"] | {"transfers": [{"from": "physics"}]}}
    assert Expert.model_validate(newer) == Expert.model_validate(EXPERT)


def test_a_status_goes_back_in_camel_case_without_nulls() -> None:
    status = ExpertStatus(observed_generation=3, current_revision="law-2")
    written = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert written["observedGeneration"] == 3 and written["currentRevision"] == "law-2"
    assert None not in written.values()
    assert ExpertStatus.model_validate(written) == status


def test_the_abbreviation_in_run_id_is_written_as_kubernetes_does() -> None:
    spec = Expert.model_validate(EXPERT).spec
    assert "runID" in spec.model_dump(by_alias=True)
    assert ExpertSpec.model_validate(spec.model_dump(by_alias=True)) == spec


@pytest.mark.parametrize("path", ["/etc/passwd", "..", "a/../b", "../a", "a/.."])
def test_a_path_that_leaves_its_store_is_refused_whoever_wrote_it(path: str) -> None:
    with pytest.raises(ValidationError, match=r"must be relative and must not contain '\.\.'"):
        DataSource.model_validate({"store": "corpora", "path": path})


@pytest.mark.parametrize("path", ["a.txt", "law/*.txt", "**/*.jsonl", "a..b/c", "with space/[ab]?.txt"])
def test_a_path_beneath_its_store_is_taken(path: str) -> None:
    assert DataSource.model_validate({"store": "corpora", "path": path}).path == path


def test_models_are_frozen() -> None:
    pool = ExpertPool.model_validate({"metadata": {"name": "p"}, "spec": {"storage": {"size": "1Gi"}}})
    with pytest.raises(ValidationError):
        pool.spec.paused = True  # type: ignore[misc]
