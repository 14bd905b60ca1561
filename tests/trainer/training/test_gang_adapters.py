"""Adapters in several processes, over which the in-layer experts of their base are cut: the run of one process."""

from typing import Any

import pytest
import torch
from tests.trainer.hugging_face.conftest import write_checkpoint

from moe_formats.job_config import ArtefactRef, TrainJob
from moe_formats.job_report import TrainHeadline
from moe_formats.training_spec import BankSpec, LoRASpec
from moe_trainer.storage.committing import new_folder
from moe_trainer.storage.manifest import read_manifest
from moe_trainer.weights.reading import load_tensors

from .conftest import Pool
from .test_gang import _DIE, _SHARDED, made, run_gang

FILES = {"LoRA": "adapter_model.safetensors", "ExpertBank": "bank.safetensors"}
LORA: dict[str, Any] = {"method": "LoRA", "lora": LoRASpec(rank=2)}
#: Of a number that two processes cannot share.
BANK: dict[str, Any] = {"method": "ExpertBank", "bank": BankSpec(experts=3)}


def use_decoder(pool: Pool, name: str) -> None:
    """Let a checkpoint from outside be the parent."""
    with new_folder(pool.store, name, "artefact") as folder:
        write_checkpoint(folder, name, dtype=torch.bfloat16)
    pool.parent = ArtefactRef(revision=name, path=name, digest=read_manifest(pool.store, name)[1])


def cut(job: TrainJob) -> TrainJob:
    return job.model_copy(update={"expert_parallelism": 2})


def assert_alike(pool: Pool, method: str, one: TrainHeadline, other: TrainHeadline) -> None:
    """What two runs made is the same but for the order in which numbers were added up."""
    losses = [pool.report(headline)["losses"] for headline in (one, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert one.parameters == other.parameters
    first, second = (load_tensors(pool.store / headline.path / FILES[method]) for headline in (one, other))
    assert first.keys() == second.keys()
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=1e-2, atol=3e-3)


@pytest.mark.parametrize(
    ("base", "training", "code"),
    [
        (None, BANK, ""),
        ("qwen3-moe", BANK, _SHARDED),
        ("qwen3-moe", LORA, ""),
        ("mixtral", LORA, _SHARDED),
    ],
)
def test_a_base_cut_over_processes_trains_an_adapter_as_one_process(
    base: str | None, training: dict[str, Any], code: str, pool: Pool
) -> None:
    if base is not None:
        use_decoder(pool, base)
    alone = pool.train(pool.job(run="alone", **training))
    assert run_gang(pool, cut(pool.job(**training)), code) == [0, 0]
    assert_alike(pool, str(training["method"]), alone, made(pool))


def test_a_bank_cut_over_processes_resumes_and_goes_on_from_a_bank(pool: Pool) -> None:
    use_decoder(pool, "mixtral")
    first = pool.train(pool.job(run="first", **BANK))
    pool.parent = ArtefactRef(revision="prose-1", path=first.path, digest=first.digest)
    alone = pool.train(pool.job(run="alone", **BANK))
    dies = _DIE.format(module="train", name="take_step", call=8, rank=0)
    assert run_gang(pool, cut(pool.job(**BANK)), dies)[0] == 137
    assert run_gang(pool, cut(pool.job(attempt=2, **BANK))) == [0, 0]
    assert made(pool).resumed_from == 6
    assert_alike(pool, "ExpertBank", alone, made(pool))
    assert pool.report(alone)["losses"][0] < pool.report(first)["losses"][0]
