"""Several processes load and write their parts of a model: the same bits as one process, in a part of its memory."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.trainer.hugging_face import tokenizers_made_here
from tests.trainer.hugging_face.architectures_made_here import tiny
from tests.trainer.hugging_face.conftest import CONFIGS, network
from tests.trainer.training.conftest import SMALL, everywhere_random
from transformers import AutoModelForCausalLM

from moe_formats.job_config import ArtefactRef
from moe_formats.training_spec import TrainingSpec
from moe_trainer.methods import artefacts, checkpoint_format
from moe_trainer.models.preset_config import ModelConfig
from moe_trainer.models.preset_model import Model
from moe_trainer.storage.committing import new_folder
from moe_trainer.storage.manifest import read_manifest
from moe_trainer.text.tokenizer import ByteTokenizer

WORKER = "tests.trainer.parallel.filling_worker"
ROOT = Path(__file__).parents[3]
WORLD = 4
LORA: dict[str, Any] = {"method": "LoRA", "lora": {"rank": 3}}
BANK: dict[str, Any] = {"method": "ExpertBank", "bank": {"experts": 3}}
#: Of about 100 MB, no tensor of more than 4.
LARGE = {"hidden_size": 128, "num_hidden_layers": 16, "num_experts": 16, "moe_intermediate_size": 256}

CASES: list[dict[str, Any]] = [
    # First, so that what is measured next has nothing left to import.
    {"do": "check", "parent": "qwen3-moe", "expert": 2, "shard": True},
    {"do": "measure", "parent": "large", "expert": 2, "shard": True},
    {"do": "measure", "parent": "large", "expert": 2, "shard": True, "training": BANK},
    {"do": "refuse", "parent": "altered", "file": "model-00002-of-"},
    {"do": "check", "parent": "preset", "expert": 2, "shard": True},
    {"do": "check", "parent": "preset", "expert": 4, "shard": False},
    {"do": "check", "parent": "sigmoid", "expert": 1, "shard": True},
    {"do": "check", "parent": "llama", "shard": True},
    {"do": "check", "parent": "qwen3", "shard": True},
    {"do": "check", "parent": "qwen3", "shard": False},
    {"do": "check", "parent": "untied", "shard": True},
    {"do": "check", "parent": "qwen3-moe", "expert": 1, "shard": True},
    {"do": "check", "parent": "mixtral", "expert": 2, "shard": False},
    {"do": "check", "parent": "glm4-moe", "expert": 2, "shard": True},
    {"do": "check", "parent": "preset", "expert": 2, "shard": True, "training": LORA},
    {"do": "check", "parent": "qwen3-moe", "expert": 2, "shard": True, "training": LORA},
    {"do": "check", "parent": "gpt2", "shard": False, "training": LORA},
    {"do": "check", "parent": "gpt2", "shard": True, "training": LORA},
    {"do": "check", "parent": "gpt2-adapter", "shard": True, "training": LORA},
    {"do": "check", "parent": "adapter", "expert": 2, "shard": True, "training": LORA},
    {"do": "check", "parent": "bank", "expert": 2, "shard": True, "training": BANK},
    {"do": "check", "parent": "bank", "expert": 4, "shard": False, "training": BANK},
]


def ref(store: Path, name: str) -> ArtefactRef:
    return ArtefactRef(revision=name, path=name, digest=read_manifest(store, name)[1])


def commit_preset(store: Path, name: str, **changes: Any) -> None:
    model = everywhere_random(Model(ModelConfig(**(SMALL.model_dump() | changes))))
    checkpoint_format.write(store, name, model, ByteTokenizer(), "{}")


def commit_decoder(store: Path, name: str, config: Any) -> None:
    """Commit what a hub has of a model, in 16 bits and in shards."""
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    with new_folder(store, name, "artefact") as working:
        made.save_pretrained(working, max_shard_size="10MB" if name == "large" else "40KB")
        tokenizers_made_here.write(working, tokenizers_made_here.byte_level())


def commit_untied(store: Path, name: str) -> None:
    """Commit a checkpoint whose config says that its output layer is its embedding, while it holds another one."""
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(CONFIGS["qwen3"]())
    tensors = made.state_dict() | {"lm_head.weight": torch.randn_like(made.lm_head.weight)}
    with new_folder(store, name, "artefact") as working:
        made.config.save_pretrained(working)
        save_file(tensors, working / "model.safetensors", metadata={"format": "pt"})
        tokenizers_made_here.write(working, tokenizers_made_here.byte_level())


def commit_adapter(store: Path, name: str, base: str, spec: dict[str, Any]) -> None:
    """Commit an adapter that has been trained, of a base."""
    training = TrainingSpec.model_validate(spec)
    start = artefacts.start(store, ref(store, base), training, seed=11)
    for parameter in start.model.parameters():
        if parameter.requires_grad:
            parameter.detach().normal_(generator=torch.Generator().manual_seed(12))
    artefacts.write(store, name, training, start.model, start.tokenizer, base=start.base, report="{}")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store, after some processes have gone through all cases."""
    folder = tmp_path_factory.mktemp("filling")
    store = folder / "store"
    commit_preset(store, "preset")
    commit_preset(store, "sigmoid", model_type="glm4_moe", n_shared_experts=1)
    for name in ("llama", "qwen3", "qwen3-moe", "mixtral", "glm4-moe"):
        commit_decoder(store, name, network(name).config)
    commit_decoder(store, "gpt2", tiny("gpt2"))
    commit_untied(store, "untied")
    large = CONFIGS["qwen3-moe"]()
    large.update(LARGE)
    commit_decoder(store, "large", large)
    commit_adapter(store, "adapter", "qwen3-moe", LORA)
    commit_adapter(store, "bank", "mixtral", BANK)
    commit_adapter(store, "gpt2-adapter", "gpt2", LORA)
    commit_decoder(store, "altered", CONFIGS["llama"]())
    alter(next((store / "altered").glob("model-00002-of-*")))
    cases = [case | {"parent": ref(store, case["parent"]).model_dump(mode="json")} for case in CASES]
    subprocess.run(  # what went wrong in them is in the test's output; each test looks for what they left
        [sys.executable, "-m", WORKER, folder, str(WORLD), json.dumps(cases)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return folder


def alter(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_parts_are_those_of_the_whole_and_an_altered_shard_is_refused_by_all(
    outcome: Path, number: int
) -> None:
    passed = {rank for rank in range(WORLD) if (outcome / f"passed-{number}-{rank}").exists()}
    assert passed == set(range(WORLD)), CASES[number]


@pytest.mark.parametrize("method", ["Full", "ExpertBank"])
def test_no_process_has_much_more_than_its_part_in_memory(outcome: Path, method: str) -> None:
    for rank in range(WORLD):
        found = json.loads((outcome / f"memory-{method}-{rank}.json").read_text())
        assert found["whole"] > 100e6
        assert found["loading"] < 0.4 * found["whole"]  # its part is a quarter
        assert found["writing"] < 0.2 * found["whole"]
