"""Checkpoints are known by what decides a run's bits; one that an earlier version wrote is taken up by this one."""

import json
from pathlib import Path
from typing import Any

import pytest

from moe_formats.job_config import TrainJob
from moe_trainer.training.run import training_inputs

RECORDED = Path(__file__).parents[2] / "unit/moe_operator/planner/recorded_identities.json"
EXPERTS: dict[str, dict[str, Any]] = json.loads(RECORDED.read_text())["experts"]


@pytest.mark.parametrize("name", EXPERTS)
def test_a_run_is_known_by_the_digest_that_its_checkpoints_were_written_with(name: str) -> None:
    job = TrainJob.model_validate_json(EXPERTS[name]["trainJob"])
    assert training_inputs(job) == EXPERTS[name]["checkpointInputs"]
