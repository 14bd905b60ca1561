"""The processes of a run, started by test_spread.py: they train a small model and leave losses and weights.

python -m tests.trainer.parallel.worker <folder> <processes> <cases as JSON>
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from tests.trainer.parallel.forked import fork
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedConfig, Qwen3MoeConfig

from moe_formats.training_spec import BankSpec, LoRASpec, TrainingSpec
from moe_trainer.hugging_face.decoder import Decoder
from moe_trainer.methods.expert_bank import ExpertBank
from moe_trainer.methods.lora import LoRA
from moe_trainer.models.causal_model import CausalModel
from moe_trainer.models.preset_config import ModelConfig
from moe_trainer.models.preset_model import Model, initialise
from moe_trainer.moe.layer import MoELayer
from moe_trainer.parallel.filling import rows_of_all
from moe_trainer.parallel.layout import Layout
from moe_trainer.parallel.processes import Processes, joined
from moe_trainer.parallel.spread import clip_gradients, local, placed, spread, sum_gradients
from moe_trainer.parallel.tensor_files import read_tensors, write_tensors
from moe_trainer.training.optimization import trained_parameters
from moe_trainer.weights.writing import save_tensors

SMALL = ModelConfig(
    vocab_size=64,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=8,
    num_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=8,
    max_position_embeddings=32,
)
ROWS, STEPS = 7, 4
#: Seconds after which a process ends that waits for the others, and says where: before the test's own time is up.
PATIENCE = 240
#: What else the cases import.
LATER = (
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.qwen3_moe.modeling_qwen3_moe",
)


def model_of(kind: str) -> CausalModel:
    """Return a model with random weights in double precision, the same in every process."""
    model = decoder(kind) if "transformers" in kind else preset(kind)
    if "lora" in kind:
        LoRA().attach(model, TrainingSpec(method="LoRA", lora=LoRASpec(rank=2)), seed=1)
    if "bank" in kind:  # of a number that no processes can share
        bank = ExpertBank()
        bank.attach(model, TrainingSpec(method="ExpertBank", bank=BankSpec(experts=3)), seed=1)
        ids_BT = torch.randint(0, 64, (4, 16), generator=torch.Generator().manual_seed(4))
        bank.begin(model, [ids_BT], rows_of_all(model))
    return model


def decoder(kind: str) -> Decoder:
    torch.manual_seed(1)
    config: PreTrainedConfig = Qwen3MoeConfig(**SMALL.model_dump(), intermediate_size=8)
    if "gpt2" in kind:  # its layers hold (inputs, outputs)
        none = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
        config = GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2, n_positions=32, **none)
    return Decoder(AutoModelForCausalLM.from_config(config).double(), {}, {})


def preset(kind: str) -> Model:
    model = Model(SMALL).double()
    initialise(model, seed=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("down_EDF", "o_proj.weight")):
                parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(2))
        if kind == "crowd":  # every token chooses the same two in-layer experts: other processes get nothing
            for module in model.modules():
                if isinstance(module, MoELayer):
                    module.gate.weight.zero_()
    return model


def train(processes: Processes, shard: bool | None, kind: str = "preset") -> dict[str, Any]:
    """Take some steps of plain gradient descent, and return all that can be seen."""
    model = model_of(kind)
    spread(model, processes, shard)
    ids_BT = torch.randint(0, 64, (ROWS, 17), generator=torch.Generator().manual_seed(3))
    mine_BT = ids_BT[list(processes.layout.rows(processes.rank, ROWS))]
    losses, norms = [], []
    for _ in range(STEPS):
        logits, _ = model.with_routing(mine_BT[:, :-1])
        nats = F.cross_entropy(logits.flatten(0, 1), mine_BT[:, 1:].flatten(), reduction="sum")
        (nats / (ROWS * 16)).backward()
        sum_gradients(model, processes)
        norms.append(clip_gradients(model, 0.5, processes))
        losses.append(float(processes.sum(nats.detach().clone())) / (ROWS * 16))
        with torch.no_grad():
            for parameter in trained_parameters(model).values():
                local(parameter).sub_(local(parameter.grad), alpha=0.5)
                parameter.grad = None
    held = sum(local(parameter).numel() for parameter in model.parameters())
    return {"losses": losses, "norms": norms, "held": held, "weights": wholes(model, processes)}


def wholes(model: CausalModel, processes: Processes) -> dict[str, Tensor]:
    """Return all weights whole, each in memory of its own, so that they fit a file."""
    places = placed(dict(model.named_parameters()), model, processes)
    return {
        name: (place.full_tensor() if hasattr(place, "full_tensor") else place).clone()
        for name, place in places.items()
    }


def parts(model: Model, processes: Processes) -> dict[str, Tensor]:
    """Return this process's part of every parameter."""
    return placed(dict(model.named_parameters()), model, processes)


def initialised(seed: int, processes: Processes, shard: bool | None = None) -> Model:
    """Return a model whose weights a seed decides, spread over the processes."""
    model = Model(SMALL).double()
    initialise(model, seed=seed)
    spread(model, processes, shard)
    return model


def exchange_files(folder: Path, number: int, processes: Processes, shard: bool | None) -> None:
    """Write this layout's weights, after reading what the layout before it wrote."""
    if number:
        model = initialised(number, processes, shard)
        read_tensors(folder / f"files-{number - 1}", parts(model, processes), processes.everyone)
        expected = dict(initialised(number - 1, Processes()).named_parameters())
        assert all(torch.equal(found, expected[name]) for name, found in wholes(model, processes).items())
    (folder / f"files-{number}").mkdir(exist_ok=True)
    model = initialised(number, processes, shard)
    write_tensors(folder / f"files-{number}", parts(model, processes), processes.everyone)


def main(folder: Path, world: int, cases: list[dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    for number, case in enumerate(cases):
        os.environ["MASTER_PORT"] = str(case["port"])
        with joined(Layout(world, case["expert"])) as processes:
            result = train(processes, case.get("shard"), case.get("kind", "preset"))
            if processes.first:
                save_tensors(folder / f"{number}.safetensors", result.pop("weights"))
                (folder / f"{number}.json").write_text(json.dumps(result))
            exchange_files(folder, number, processes, case.get("shard"))
            if processes.any(processes.rank == world - 1) is not True or processes.any(False):
                raise AssertionError("the processes do not agree")
            assert processes.from_first(f"from {processes.rank}") == "from 0"


if __name__ == "__main__":
    WORLD = int(sys.argv[2])
    fork(WORLD, patience=PATIENCE, later=LATER)
    main(Path(sys.argv[1]), WORLD, json.loads(sys.argv[3]))
