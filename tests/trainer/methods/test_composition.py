"""Banks of several Experts on one base: one checkpoint, and one batch in which each sequence has its own bank."""

from pathlib import Path

import pytest
import torch
from tests.trainer.methods.test_expert_bank import IDS_BT, banked, spec
from tests.trainer.training.conftest import SMALL, Pool, everywhere_random

from moe_formats.failure import JobError
from moe_formats.job_config import ArtefactRef, ComposeJob
from moe_formats.training_spec import BankSpec
from moe_trainer import compose
from moe_trainer.environment import Environment
from moe_trainer.methods import artefacts, checkpoint_format, composition
from moe_trainer.methods.adapter import ADAPTER, AdapterRecord
from moe_trainer.methods.expert_bank import ExpertBank
from moe_trainer.models.preset_model import Model
from moe_trainer.moe.layer import MoELayer
from moe_trainer.storage import manifest
from moe_trainer.storage.committing import new_folder
from moe_trainer.text.tokenizer import ByteTokenizer

CLOSE = {"atol": 1e-5, "rtol": 1e-4}


@pytest.fixture
def base(tmp_path: Path) -> ArtefactRef:
    digest = checkpoint_format.write(tmp_path, "base", everywhere_random(Model(SMALL)), ByteTokenizer(), "{}")
    return ArtefactRef(revision="general-1", path="base", digest=digest)


def write_bank(store: Path, name: str, base: ArtefactRef, experts: int) -> ArtefactRef:
    """Commit a bank beside a base that answers differently from it and from banks of other sizes."""
    model, tokenizer = checkpoint_format.load(store / base.path, base.digest)
    with new_folder(store, name, "artefact") as folder:
        ExpertBank().write(folder, banked(model, experts), tokenizer, spec(experts))
        (folder / ADAPTER).write_text(AdapterRecord(method="ExpertBank", base=base).to_json())
    return ArtefactRef(revision=f"{name}-1", path=name, digest=manifest.read_manifest(store, name)[1])


@pytest.fixture
def banks(tmp_path: Path, base: ArtefactRef) -> list[ArtefactRef]:
    return [write_bank(tmp_path, name, base, experts) for name, experts in (("code", 3), ("prose", 1))]


def composed(store: Path, banks: list[ArtefactRef]) -> composition.Composition:
    return composition.compose(store, [(bank.path, bank.digest) for bank in banks])


@torch.inference_mode()
def test_each_sequence_of_a_batch_is_answered_as_by_its_own_expert(
    tmp_path: Path, base: ArtefactRef, banks: list[ArtefactRef]
) -> None:
    ids_BT = torch.randint(0, 256, (3, 20), generator=torch.Generator().manual_seed(4))
    alone = [artefacts.load(tmp_path, ref.path, ref.digest)[0](ids_BT) for ref in (*banks, base)]
    together = composed(tmp_path, banks)
    together.choose([1, None, 0])
    found = together.model(ids_BT)
    torch.testing.assert_close(found[0], alone[1][0], **CLOSE)
    torch.testing.assert_close(found[1], alone[2][1], **CLOSE)
    torch.testing.assert_close(found[2], alone[0][2], **CLOSE)
    assert not torch.allclose(alone[0], alone[1], atol=0.05)


@torch.inference_mode()
def test_a_bias_of_the_choice_opens_no_row_that_a_sequence_does_not_see(tmp_path: Path) -> None:
    model = everywhere_random(Model(SMALL.model_copy(update={"model_type": "glm4_moe"}))).eval()
    for mixture in model.mixtures:
        assert mixture.bias_E is not None
        mixture.bias_E -= 3.0  # a score of 0 with no bias is above all that are biased
    digest = checkpoint_format.write(tmp_path, "sigmoid", model, ByteTokenizer(), "{}")
    base = ArtefactRef(revision="general-1", path="sigmoid", digest=digest)
    together = composed(tmp_path, [write_bank(tmp_path, "code", base, 2)])
    together.choose([None, None])
    torch.testing.assert_close(together.model(IDS_BT), model(IDS_BT), **CLOSE)


@torch.inference_mode()
def test_a_mixed_batch_is_one_product_a_layer(tmp_path: Path, banks: list[ArtefactRef]) -> None:
    together = composed(tmp_path, banks)
    together.choose([0, 1])
    calls = []
    for layer in together.model.modules():
        if isinstance(layer, MoELayer):
            layer.experts.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    together.model(IDS_BT)
    assert calls == [IDS_BT.numel()] * SMALL.num_hidden_layers


@torch.inference_mode()
def test_sequences_are_decoded_each_with_its_own_bank(tmp_path: Path, banks: list[ArtefactRef]) -> None:
    together = composed(tmp_path, banks)
    together.choose([0, 1])
    whole = together.model(IDS_BT)
    cache = together.model.new_cache(4, 40)
    rows_B = torch.tensor([3, 1])
    for number, row in enumerate(rows_B):
        together.choose([number])
        together.model(IDS_BT[number : number + 1, :30], cache, row[None])
    together.choose([0, 1])
    for at in range(30, 33):
        step = together.model(IDS_BT[:, at : at + 1], cache, rows_B)
        torch.testing.assert_close(step[:, 0], whole[:, at], **CLOSE)


def test_transformers_loads_what_several_banks_make(tmp_path: Path, banks: list[ArtefactRef]) -> None:
    transformers = pytest.importorskip("transformers")
    job = ComposeJob(pool_uid="pool", banks=tuple(banks))
    made = compose.run(job, Environment(store=tmp_path))
    assert made.in_layer_experts == 4 + 3 + 1
    ours, _ = checkpoint_format.load(tmp_path / made.path, made.digest)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / made.path)
    together = composed(tmp_path, banks)
    with torch.inference_mode():
        torch.testing.assert_close(theirs(IDS_BT).logits, ours(IDS_BT), atol=1e-4, rtol=1e-4)
        assert torch.equal(together.model(IDS_BT), ours(IDS_BT))
    assert compose.run(job, Environment(store=tmp_path)) == made


def test_what_does_not_compose_is_refused(
    tmp_path: Path, base: ArtefactRef, banks: list[ArtefactRef]
) -> None:
    with pytest.raises(JobError, match="base is a checkpoint, but only banks can be composed"):
        composed(tmp_path, [*banks, base])
    model = everywhere_random(Model(SMALL.model_copy(update={"rope_theta": 50.0})))
    digest = checkpoint_format.write(tmp_path, "other", model, ByteTokenizer(), "{}")
    other = ArtefactRef(revision="other-1", path="other", digest=digest)
    with pytest.raises(JobError, match=r"these have 2: general-1 .*, other-1"):
        composed(tmp_path, [*banks, write_bank(tmp_path, "foreign", other, 2)])


def test_trained_banks_compose(pool: Pool) -> None:
    made = [
        pool.train(pool.job(run=run, max_steps=4, method="ExpertBank", bank=BankSpec(experts=2)))
        for run in ("one", "two")
    ]
    banks = tuple(
        ArtefactRef(revision=headline.path, path=headline.path, digest=headline.digest) for headline in made
    )
    found = compose.run(ComposeJob(pool_uid="pool-uid", banks=banks), Environment(store=pool.store))
    assert found.in_layer_experts == 4 + 2 + 2
