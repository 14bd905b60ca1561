"""Builders make what the golden files say; golden/README.md tells how to write them anew."""

import pytest
import yaml
from golden_manifests import FOLDER, golden_texts


@pytest.mark.parametrize("name", ["cpu.yaml", "nvidia.yaml", "gke-tpu.yaml", "measuring.yaml"])
def test_manifests_are_those_that_were_reviewed(name: str) -> None:
    made = list(yaml.safe_load_all(golden_texts()[name]))
    assert made == list(yaml.safe_load_all((FOLDER / name).read_text()))


def test_there_is_no_golden_file_that_nothing_makes() -> None:
    assert {path.name for path in FOLDER.glob("*.yaml")} == set(golden_texts())
