"""A store with a snapshot and a parent model that trains in milliseconds a step."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from moe_formats import store
from moe_formats.format import digest_of
from moe_formats.job_config import (
    ArtefactRef,
    ExpertRef,
    HoldoutRule,
    SnapshotJob,
    SnapshotRef,
    Source,
    TrainJob,
)
from moe_formats.job_report import SnapshotHeadline, TrainHeadline
from moe_formats.training_spec import TrainingSpec
from moe_trainer import snapshot, train
from moe_trainer.environment import Environment
from moe_trainer.methods import checkpoint_format
from moe_trainer.models.preset_config import ModelConfig
from moe_trainer.models.preset_model import Model
from moe_trainer.text.tokenizer import ByteTokenizer

from .forked import Forked

SMALL = ModelConfig(
    vocab_size=ByteTokenizer.vocab_size,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    num_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=32,
    max_position_embeddings=64,
    initializer_range=0.08,
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def small_model() -> Model:
    return everywhere_random(Model(SMALL)).eval()


def everywhere_random(model: Model) -> Model:
    """Return the model with no weight at zero or one, so that every part of it shows in the logits."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.weights().values():
            weight.normal_(1.0 if weight.dim() == 1 else 0.0, 0.2, generator=generator)
    return model


@dataclass
class Pool:
    """A pool's store, with jobs on it, run here or in a process that may be killed."""

    root: Path
    data: SnapshotHeadline
    parent: ArtefactRef
    forks: int = 0  #: Processes so far.

    @property
    def store(self) -> Path:
        return self.root / "store"

    def job(self, attempt: int = 1, run: str = "run", **training: Any) -> TrainJob:
        spec = {
            "learning_rate": 0.01,
            "max_steps": 12,
            "batch_tokens": 256,
            "validation_every": 4,
            "checkpoint_every": 3,
            "load_balancing_loss_weight": 0.2,
        }
        return TrainJob(
            pool_uid="pool-uid",
            expert=ExpertRef(name="prose", uid="prose-uid"),
            revision="prose-1",
            attempt=attempt,
            inputs_digest=digest_of(run),
            parent=self.parent,
            data=SnapshotRef(path=self.data.path, digest=self.data.digest),
            training=TrainingSpec(**(spec | training)),
            seed=7,
        )

    def train(self, job: TrainJob) -> TrainHeadline:
        return train.run(job, Environment(store=self.store))

    def fork(self, job: TrainJob, code: str = "", **environment: str) -> Forked:
        """Start ``moe-trainer train`` in a process of its own, after running some code in it."""
        self.forks += 1
        return Forked(code, self.variables(job) | environment, self.root / f"said-{self.forks}")

    def start(self, job: TrainJob, code: str = "", **environment: str) -> subprocess.Popen[str]:
        """Do the same with an environment that counts from the start of the process, such as where a driver is."""
        main = "import sys; from moe_trainer.main import main; sys.exit(main(['train']))"
        return subprocess.Popen(
            [sys.executable, "-c", f"{code}\n{main}"],
            env=self.variables(job) | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def variables(self, job: TrainJob) -> dict[str, str]:
        """Return the environment of a Job's container."""
        return {
            "PATH": os.environ["PATH"],
            "OMP_NUM_THREADS": "1",
            "MOE_JOB_CONFIG": job.to_json(),
            "MOE_STORE": str(self.store),
            "MOE_TERMINATION_LOG": str(self.root / "termination"),
        }

    def headline(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / "termination").read_text())
        return found

    def report(self, made: TrainHeadline) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.store / made.path / "report.json").read_text())
        return found

    def weights(self, made: TrainHeadline) -> bytes:
        return (self.store / made.path / "model.safetensors").read_bytes()

    def checkpoints(self, job: TrainJob) -> Path:
        return self.store / store.revision(job.pool_uid, job.expert.uid, job.inputs_digest) / "checkpoints"


@pytest.fixture
def pool(tmp_path: Path, small_model: Model, text: Callable[[int], str]) -> Pool:
    folder = tmp_path / "sources" / "corpora"
    folder.mkdir(parents=True)
    for number in range(60):
        (folder / f"{number}.txt").write_text(text(number))
    job = SnapshotJob(
        pool_uid="pool-uid",
        expert=ExpertRef(name="prose", uid="prose-uid"),
        sources=(Source(root="corpora", path="*.txt", format="text"),),
        holdout=HoldoutRule(fraction=0.1, salt="salt"),
    )
    root = tmp_path / "store"
    root.mkdir()
    data = snapshot.run(job, Environment(store=root, sources=tmp_path / "sources"))
    digest = checkpoint_format.write(root, "parent", small_model, ByteTokenizer(), "{}")
    return Pool(tmp_path, data, ArtefactRef(revision="general-1", path="parent", digest=digest))


@pytest.fixture
def text() -> Callable[[int], str]:
    """Numbered sentences of one pattern: easy to learn, and no two documents alike."""

    def write(number: int) -> str:
        words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
        picks = [
            words[(number * 31 + place * place * 7 + place) % len(words)] + str(number) for place in range(60)
        ]
        return "The order is " + ", then ".join(picks) + ".\n"

    return write
