"""The examples, read as the operator reads them: every name in them is one that a fresh installation knows."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_operator.config import OperatorConfig

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if path.is_dir())


def objects(folder: Path) -> list[dict[str, Any]]:
    """Every manifest of an example, in the order in which `kubectl apply -f` takes them."""
    return [
        item
        for file in sorted(folder.glob("*.yaml"))
        for item in yaml.safe_load_all(file.read_text())
        if item
    ]


def experts(folder: Path) -> dict[str, Expert]:
    """The Experts of an example by name."""
    found = (Expert.model_validate(item) for item in objects(folder) if item["kind"] == "Expert")
    return {expert.metadata.name: expert for expert in found}


def values() -> dict[str, Any]:
    """The chart's values."""
    return dict(yaml.safe_load((ROOT / "charts" / "moe-operator" / "values.yaml").read_text()))


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_an_example_is_one_pool_with_experts_of_it(folder: Path) -> None:
    (pool,) = [ExpertPool.model_validate(item) for item in objects(folder) if item["kind"] == "ExpertPool"]
    assert experts(folder) and {expert.spec.pool for expert in experts(folder).values()} == {
        pool.metadata.name
    }
    assert pool.spec.routing.fallback in experts(folder)


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_every_name_in_an_example_is_known(folder: Path) -> None:
    known, bases = values(), experts(folder)
    presets = OperatorConfig.model_fields["presets"].default
    assert tuple(known["presets"]) == presets
    for expert in bases.values():
        spec = expert.spec
        assert {spec.training.resources.profile, spec.serving.profile} <= set(known["profiles"])
        assert spec.base.preset in presets if spec.base.preset else spec.base.expert in bases
        for source in spec.data.sources:
            assert source.claim or source.store in known["stores"]


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_an_example_says_how_to_apply_it(folder: Path) -> None:
    assert f"kubectl apply -f examples/{folder.name}/" in (folder / "README.md").read_text()
    assert f"({folder.name}/)" in (ROOT / "examples" / "README.md").read_text()


def test_the_first_pools_domains_come_before_the_mixture_they_branch_from() -> None:
    names = [item["metadata"]["name"] for item in objects(ROOT / "examples" / "01-first-pool")]
    assert names == ["corpora", "first-pool", "code", "mathematics", "speeches", "general"]


def test_the_gpu_and_tpu_examples_ask_for_their_accelerators() -> None:
    profiles = values()["profiles"]
    for folder, device in (("gpu", "nvidia.com/gpu"), ("tpu", "google.com/tpu")):
        for expert in experts(ROOT / "examples" / folder).values():
            assert profiles[expert.spec.training.resources.profile]["device"] == device
            assert profiles[expert.spec.serving.profile]["device"] == device
