"""ExpertBank on mixtures of transformers: attached, trained, composed and served as on the presets."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.trainer.hugging_face.conftest import CONFIGS, ids, network, write_checkpoint
from tests.trainer.hugging_face.test_training import base, broken_and_resumed, data, job, report, text
from tests.trainer.methods.test_composition import write_bank
from tests.trainer.methods.test_expert_bank import banked, spec
from tests.trainer.methods.test_lora_decoder import evaluated
from transformers import AutoModelForCausalLM, AutoTokenizer, GptOssConfig

from moe_formats.failure import JobError
from moe_formats.job_config import ArtefactRef, ComposeJob
from moe_formats.job_report import SnapshotHeadline
from moe_formats.training_spec import BankSpec
from moe_trainer import compose, train
from moe_trainer.environment import Environment
from moe_trainer.hugging_face.decoder import Decoder
from moe_trainer.methods import artefacts, checkpoint_format, composition
from moe_trainer.methods.expert_bank import ExpertBank
from moe_trainer.models.causal_model import CausalModel
from moe_trainer.models.in_layer import holds_in_layer_experts
from moe_trainer.models.preset_config import IN_LAYER_EXPERTS
from moe_trainer.storage import manifest
from moe_trainer.storage.committing import new_folder
from moe_trainer.training.optimization import trained_parameters
from moe_trainer.weights.reading import read_header

__all__ = ["data"]

MIXTURES = ("qwen3-moe", "mixtral", "olmoe", "qwen2-moe", "granite-moe", "flex-olmo")
IDS_BT = ids(rows=3)
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def decoder(name: str, **changes: Any) -> Decoder:
    config = CONFIGS[name]()
    config.update(changes)
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(config)
    return Decoder(made.eval(), {}, {})


def committed(store: Path, name: str, dtype: torch.dtype = torch.float32) -> ArtefactRef:
    """Commit what a hub has of a model."""
    with new_folder(store, name, "artefact") as folder:
        write_checkpoint(folder, name, dtype=dtype)
    return ArtefactRef(revision=f"{name}-1", path=name, digest=manifest.read_manifest(store, name)[1])


@torch.no_grad()
def answer(model: CausalModel) -> torch.Tensor:
    return model.eval()(IDS_BT)


@pytest.mark.parametrize("name", MIXTURES)
def test_a_bank_is_trained_beside_a_mixture_and_leaves_it_as_it_was(name: str) -> None:
    model = decoder(name)
    before = answer(model)
    weights = {weight: tensor.clone() for weight, tensor in model.weights().items()}
    ExpertBank().attach(model, spec(), seed=1)
    assert torch.equal(answer(model), before)  # it has not begun
    model = banked(decoder(name))
    model(IDS_BT).logsumexp(-1).sum().backward()
    trained = trained_parameters(model)
    assert {parameter for parameter in trained if ".bank." in parameter or ".beside." in parameter} == set(
        trained
    )
    assert all(parameter.grad is not None for parameter in trained.values())
    assert sum(parameter.numel() for parameter in trained.values()) == 3 * 2 * (32 + 3 * 32 * inner(name))
    kept = {
        weight.replace(".experts.base.", ".experts."): tensor for weight, tensor in model.weights().items()
    }
    assert all(torch.equal(kept[weight], tensor) for weight, tensor in weights.items())


def inner(name: str) -> int:
    config: Any = CONFIGS[name]()
    return int(getattr(config, "moe_intermediate_size", config.intermediate_size))


@pytest.mark.parametrize("name", MIXTURES)
def test_stacked_and_composed_a_bank_answers_as_it_was_trained(name: str, tmp_path: Path) -> None:
    parent = committed(tmp_path, name)
    model, tokenizer = checkpoint_format.load(tmp_path / name, parent.digest)
    plain = answer(model)
    expected = answer(banked(model))
    assert not torch.allclose(plain, expected, atol=0.05)
    bank = write_bank(tmp_path, "code", parent, 3)
    stacked, _ = artefacts.load(tmp_path, bank.path, bank.digest)
    assert stacked.in_layer_experts == 7
    torch.testing.assert_close(answer(stacked), expected, **CLOSE)

    digest = checkpoint_format.write(tmp_path, "composed", stacked, tokenizer, "{}")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "composed")
    assert {getattr(theirs.config, number, 7) for number in IN_LAYER_EXPERTS} == {7}
    with torch.no_grad():
        torch.testing.assert_close(theirs(IDS_BT).logits, expected, **CLOSE)
    again, _ = checkpoint_format.load(tmp_path / "composed", digest)
    torch.testing.assert_close(answer(again), answer(stacked), rtol=0, atol=0)
    assert torch.equal(answer(checkpoint_format.load(tmp_path / name, parent.digest)[0]), plain)


@pytest.mark.parametrize("name", MIXTURES)
def test_a_banks_tensors_have_the_names_that_transformers_gives_the_bases(name: str, tmp_path: Path) -> None:
    parent = committed(tmp_path, name)
    bank = write_bank(tmp_path, "code", parent, 2)
    found = {
        key: stored.shape for key, stored in read_header(tmp_path / bank.path, "bank.safetensors").items()
    }
    theirs = {key: tuple(tensor.shape) for key, tensor in network(name).named_parameters()}
    assert len(found) == 2 * 3
    for key, shape in found.items():
        assert shape == (2, *theirs[key][1:]), key


@pytest.mark.parametrize(("name", "dtype"), [("qwen3-moe", torch.bfloat16), ("mixtral", torch.float32)])
@torch.no_grad()
def test_banks_of_a_mixture_answer_in_one_batch_and_compose(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    parent = committed(tmp_path, name, dtype)
    banks = [write_bank(tmp_path, name, parent, experts) for name, experts in (("code", 3), ("prose", 1))]
    alone = [answer(artefacts.load(tmp_path, ref.path, ref.digest)[0]) for ref in (*banks, parent)]
    together = composition.compose(tmp_path, [(bank.path, bank.digest) for bank in banks])
    together.choose([1, None, 0])
    calls: list[int] = []
    for module in together.model.modules():
        if holds_in_layer_experts(module):
            module.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    found = answer(together.model)
    assert calls == [IDS_BT.numel()] * 2
    for row, bank in ((0, 1), (1, 2), (2, 0)):
        torch.testing.assert_close(found[row], alone[bank][row], **CLOSE)
    assert not torch.allclose(alone[0], alone[1], atol=0.05)

    cache = together.model.new_cache(4, 40)
    rows_B = torch.tensor([3, 1, 0])
    together.model(IDS_BT[:, :15], cache, rows_B)
    for at in range(15, 18):
        step = together.model(IDS_BT[:, at : at + 1], cache, rows_B)
        torch.testing.assert_close(step[:, 0], found[:, at], **CLOSE)

    made = compose.run(ComposeJob(pool_uid="pool", banks=tuple(banks)), Environment(store=tmp_path))
    assert made.in_layer_experts == 4 + 3 + 1
    types = {stored.dtype for stored in read_header(tmp_path / made.path, "model.safetensors").values()}
    assert types == {dtype}  # as the base is stored
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / made.path, dtype=torch.float32)
    ours, _ = checkpoint_format.load(tmp_path / made.path, made.digest)
    torch.testing.assert_close(theirs(IDS_BT).logits, answer(ours), **CLOSE)
    if dtype == torch.float32:
        for mixture in together.model.mixtures:
            mixture.beside = None  # all rows are seen
        torch.testing.assert_close(answer(together.model), answer(ours), rtol=0, atol=0)
    assert AutoTokenizer.from_pretrained(tmp_path / made.path).encode("a") == (
        AutoTokenizer.from_pretrained(tmp_path / parent.path).encode("a")
    )
    before, after = (
        json.loads((tmp_path / path / "config.json").read_text()) for path in (parent.path, made.path)
    )
    assert {key for key in before | after if before.get(key) != after.get(key)} <= {
        "num_experts",
        "num_local_experts",
    }


BANK: dict[str, Any] = {"method": "ExpertBank", "bank": BankSpec(experts=2)}


def test_layers_without_in_layer_experts_have_no_bank(tmp_path: Path) -> None:
    model = decoder("qwen3-moe", mlp_only_layers=[0])
    expected = answer(banked(model, 1))
    ExpertBank().write(tmp_path, model, None, spec(1))
    names = read_header(tmp_path, "bank.safetensors").keys()
    assert {name.split(".mlp.")[0] for name in names} == {"model.layers.1"}
    stacked = decoder("qwen3-moe", mlp_only_layers=[0])
    ExpertBank().load(tmp_path, stacked)
    torch.testing.assert_close(answer(stacked), expected, **CLOSE)


def test_a_bank_goes_through_the_trainer(data: SnapshotHeadline, tmp_path: Path) -> None:
    store = tmp_path / "store"
    parent = base(store, "mixtral")
    made = train.run(job(data, parent, **BANK), Environment(store=store))
    losses = report(store, made)["losses"]
    assert sum(losses[-4:]) / 4 < 0.95 * losses[0]
    names = {path.name for path in (store / made.path).iterdir()}
    assert names == {"adapter.json", "bank_config.json", "bank.safetensors", "manifest.json", "report.json"}
    gain = evaluated(store, data, parent, made).gain
    assert gain is not None and gain.lower > 0.02

    again = broken_and_resumed(job(data, parent, **BANK), store)
    assert again.resumed_from == 5
    weights = "bank.safetensors"
    assert (store / again.path / weights).read_bytes() == (store / made.path / weights).read_bytes()

    first = ArtefactRef(revision="prose-1", path=made.path, digest=made.digest)
    second = train.run(job(data, first, **BANK), Environment(store=store))
    assert report(store, second)["losses"][0] < losses[0]
    still = job(data, first, learning_rate=1e-30, max_steps=1)
    merged = train.run(still, Environment(store=store))
    assert merged.validation_bits_per_byte == pytest.approx(made.validation_bits_per_byte, abs=0.02)
    theirs = AutoModelForCausalLM.from_pretrained(store / merged.path, dtype=torch.float32)
    ours, tokenizer = checkpoint_format.load(store / merged.path, merged.digest)
    tokens = torch.tensor([tokenizer.encode(text(1000))[:512]])
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, ours(tokens), **CLOSE)
    assert theirs.config.num_local_experts == 6


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llama", {}, r"the base is dense.*take method LoRA or Full"),
        ("glm4-moe", {}, r"2 groups of in-layer experts"),
        ("glm4-moe", {"n_group": 1}, r"score by sigmoid"),
        ("mixtral", {"hidden_act": "gelu"}, r"our layer does not compute"),
    ],
)
def test_what_a_bank_cannot_stand_beside_is_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(JobError, match=f"InvalidConfig.*ExpertBank.*{message}"):
        ExpertBank().attach(decoder(name, **changes), spec(), seed=1)


def test_routers_that_are_not_known_and_layers_of_other_sizes_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        monkeypatch.context() as patch,
        pytest.raises(JobError, match="routers of 2 of the base's 2 mixture layers"),
    ):
        patch.setattr("moe_trainer.hugging_face.routers._SOFTMAX", set())
        ExpertBank().attach(decoder("olmoe"), spec(), seed=1)
    sizes = {"num_hidden_layers": 1, "num_local_experts": 4, "head_dim": 8}
    network = AutoModelForCausalLM.from_config(GptOssConfig(**CONFIGS["olmoe"]().to_dict() | sizes))
    with pytest.raises(JobError, match="routers of 1 of the base's 1 mixture layers"):
        ExpertBank().attach(Decoder(network, {}, {}), spec(), seed=1)
    model = decoder("olmoe")
    model.network.config.num_experts = 5
    with pytest.raises(JobError, match=r"4 in-layer experts while its config\.json says 5"):
        ExpertBank().attach(model, spec(), seed=1)
    with pytest.raises(JobError, match=r"training\.bank\.experts is 5.*set it to 1 to 4"):
        ExpertBank().attach(decoder("olmoe"), spec(5), seed=1)
