"""Which artefact goes on from which, and what an adapter's base must be."""

import json
import shutil

import pytest
import torch
from tests.trainer.training.conftest import Pool

from moe_formats.failure import JobError
from moe_formats.job_config import ArtefactRef, TrainJob
from moe_formats.job_report import TrainHeadline
from moe_formats.serve_config import ServeConfig, ServedArtefact
from moe_formats.training_spec import LoRASpec
from moe_trainer import serve
from moe_trainer.methods import artefacts
from moe_trainer.models.causal_model import CausalModel

LORA = {"method": "LoRA", "lora": LoRASpec(rank=3, alpha=6)}
IDS_BT = torch.randint(0, 256, (2, 40), generator=torch.Generator().manual_seed(1))


def ref(made: TrainHeadline) -> ArtefactRef:
    return ArtefactRef(revision="prose-1", path=made.path, digest=made.digest)


def load(pool: Pool, made: TrainHeadline | ArtefactRef) -> CausalModel:
    return artefacts.load(pool.store, made.path, made.digest)[0]


def next_job(pool: Pool, made: TrainHeadline, run: str, **training: object) -> TrainJob:
    return pool.job(run=run, **training).model_copy(update={"parent": ref(made)})


def test_an_adapter_holds_updates_only_and_names_its_base(pool: Pool) -> None:
    made = pool.train(pool.job(**LORA))
    folder = pool.store / made.path
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter.json",
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
        "report.json",
    ]
    base = json.loads((folder / "adapter.json").read_text())["base"]
    assert (base["path"], base["digest"]) == (pool.parent.path, pool.parent.digest)
    assert made.parameters < sum(p.numel() for p in load(pool, pool.parent).parameters()) / 2
    assert not torch.equal(load(pool, made)(IDS_BT), load(pool, pool.parent)(IDS_BT))


def test_a_server_loads_an_adapter_with_its_base_or_not_at_all(pool: Pool) -> None:
    made = pool.train(pool.job(**LORA))
    served = ServedArtefact(path=made.path, digest=made.digest)
    config = ServeConfig(expert="prose", revision="prose-1", artefact=served)
    serve.load(config, pool.store)
    shutil.rmtree(pool.store / pool.parent.path)
    with pytest.raises(JobError, match="an adapter for general-1"):
        serve.load(config, pool.store)


def test_an_adapter_that_is_trained_again_goes_on_from_where_it_was_on_the_same_base(pool: Pool) -> None:
    first = pool.train(pool.job(max_steps=40, **LORA))
    second = pool.train(next_job(pool, first, "again", max_steps=8, **LORA))
    losses = [pool.report(made)["losses"] for made in (first, second)]
    assert losses[1][0] < losses[0][0] - 0.5
    assert (pool.store / second.path / "adapter.json").read_text() == (
        pool.store / first.path / "adapter.json"
    ).read_text()
    assert not torch.equal(load(pool, second)(IDS_BT), load(pool, first)(IDS_BT))


def test_full_training_goes_on_from_the_merged_adapter(pool: Pool) -> None:
    first = pool.train(pool.job(max_steps=40, **LORA))
    second = pool.train(next_job(pool, first, "full", max_steps=1, learning_rate=1e-30))
    assert not (pool.store / second.path / "adapter.json").exists()
    torch.testing.assert_close(load(pool, second)(IDS_BT), load(pool, first)(IDS_BT))


def test_an_adapter_goes_on_in_its_own_shape_alone(pool: Pool) -> None:
    first = pool.train(pool.job(**LORA))
    wider = LORA | {"lora": LoRASpec(rank=4, alpha=6)}
    with pytest.raises(JobError, match=r"adapter of rank 3, alpha 6 .* asks for rank 4"):
        pool.train(next_job(pool, first, "wider", **wider))


def test_an_adapter_of_nothing_is_refused(pool: Pool) -> None:
    job = pool.job(**LORA).model_copy(update={"parent": None, "preset": "tiny"})
    with pytest.raises(JobError, match="take a trained Expert as base, or use method Full"):
        pool.train(job)


def test_an_adapter_is_refused_on_another_base(pool: Pool) -> None:
    made = pool.train(pool.job(**LORA))
    other = pool.train(pool.job(run="other", max_steps=1))
    base = pool.store / pool.parent.path
    shutil.rmtree(base)
    with pytest.raises(
        JobError, match=r"adapter for general-1 .* but that base cannot be used: .* never committed"
    ):
        load(pool, made)
    shutil.copytree(pool.store / other.path, base)
    with pytest.raises(JobError, match=r"adapter for general-1 .* its manifest is .*, not .* as expected"):
        load(pool, made)


def test_a_damaged_adapter_is_refused(pool: Pool) -> None:
    made = pool.train(pool.job(**LORA))
    path = pool.store / made.path / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(JobError, match=r"adapter_model.safetensors is not what its manifest says"):
        load(pool, made)


def test_a_checkpoint_of_an_adapter_holds_what_is_trained_alone_and_resumes_exactly(pool: Pool) -> None:
    whole = pool.train(pool.job(run="whole", **LORA))
    job = pool.job(run="killed", **LORA)
    process = pool.fork(job, code=_DIE_AT_STEP_7)
    process.communicate(timeout=60)
    assert process.returncode == -9
    (newest,) = sorted(pool.checkpoints(job).glob("step-*"))[-1:]
    assert newest.name == "step-00000006"
    resumed = pool.train(job.model_copy(update={"attempt": 2}))
    assert resumed.resumed_from == 6
    assert pool.report(resumed)["losses"] == pool.report(whole)["losses"]
    assert weights(pool, resumed) == weights(pool, whole)


def weights(pool: Pool, made: TrainHeadline) -> bytes:
    return (pool.store / made.path / "adapter_model.safetensors").read_bytes()


_DIE_AT_STEP_7 = """
import os, signal
from moe_trainer import train
taken = train.take_step
def take_step(run):
    if run.step == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return taken(run)
train.take_step = take_step
"""
