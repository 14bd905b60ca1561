"""The same run on an accelerator and on the CPU: the losses and scores agree as far as rounding lets them.

The device is chosen once a process, so each side is a process of its own; hiding the accelerator makes the
other one.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.trainer.training.conftest import Pool

from moe_formats.job_report import TrainHeadline

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no accelerator here"),
]

#: Losses of 12 steps from the same weights on the same batches, in fp32, nats per token.
LOSS_TOLERANCE = 2e-3

SCORE = """
import json, sys
from pathlib import Path
from moe_trainer.methods import checkpoint_format
from moe_trainer.evaluation import scorer
from moe_trainer.evaluation.matrix import CellKey
from moe_trainer.evaluation.segments import Segment
device = scorer.use_device(1)
model, tokenizer = checkpoint_format.load(Path(sys.argv[1]), None)
digest = "sha256:" + "0" * 64
segments = [Segment("c", b"The order", b" is alpha1, then beta1") for _ in range(3)]
cell = scorer.score(model, tokenizer, segments, CellKey(artefact=digest, holdout=digest, scorer="any", device=device))
print(json.dumps([device, cell.nats]))
"""


def train_on(pool: Pool, run: str, **environment: str) -> tuple[TrainHeadline, list[float]]:
    driver = {name: value for name, value in os.environ.items() if name.startswith(("LD_", "CUDA", "PYTHON"))}
    process = pool.start(pool.job(run=run), **(driver | environment))
    output, _ = process.communicate()
    assert process.returncode == 0, output
    made = TrainHeadline.model_validate(pool.headline())
    return made, pool.report(made)["losses"]


def score_on(folder: Path, **environment: str) -> tuple[str, list[float]]:
    run = subprocess.run(
        [sys.executable, "-c", SCORE, str(folder)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    device, nats = json.loads(run.stdout)
    return device, nats


def test_training_follows_the_curve_of_the_cpu(pool: Pool) -> None:
    _, on_cpu = train_on(pool, "cpu", CUDA_VISIBLE_DEVICES="")
    _, on_accelerator = train_on(pool, "accelerator")
    assert on_accelerator != on_cpu, "the accelerator was not used"
    assert on_accelerator == pytest.approx(on_cpu, abs=LOSS_TOLERANCE)


def test_scores_agree_with_those_of_the_cpu(pool: Pool) -> None:
    folder = pool.store / "parent"
    device, on_accelerator = score_on(folder)
    other, on_cpu = score_on(folder, CUDA_VISIBLE_DEVICES="")
    assert (device, other) == ("cuda", "cpu")
    assert on_accelerator == pytest.approx(on_cpu, rel=1e-4)


def test_a_run_that_was_stopped_goes_on_from_its_checkpoint(pool: Pool) -> None:
    whole, unbroken = train_on(pool, "unbroken")
    stop = "import os, signal; from moe_trainer import train; take = train.take_step\n"
    stop += (
        "def last(run):\n    if run.step == 7: os.kill(os.getpid(), signal.SIGKILL)\n    return take(run)\n"
    )
    stop += "train.take_step = last\n"
    driver = {name: value for name, value in os.environ.items() if name.startswith(("LD_", "CUDA", "PYTHON"))}
    killed = pool.start(pool.job(run="broken"), stop, **driver)
    killed.communicate()
    assert killed.returncode == -9
    made, losses = train_on(pool, "broken")
    assert made.resumed_from == 6 and made.steps == whole.steps
    assert losses == pytest.approx(unbroken, abs=LOSS_TOLERANCE)
