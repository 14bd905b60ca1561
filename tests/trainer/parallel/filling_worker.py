"""The processes of a run, started by test_filling.py: they load and write parts of models and compare with wholes.

python -m tests.trainer.parallel.filling_worker <folder with a store> <processes> <cases as JSON>
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tests.trainer.parallel.forked import fork
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from moe_formats.failure import JobError
from moe_formats.format import Digest
from moe_formats.job_config import ArtefactRef
from moe_formats.training_spec import TrainingSpec
from moe_trainer.hugging_face import trial
from moe_trainer.hugging_face.decoder import Decoder
from moe_trainer.methods import artefacts
from moe_trainer.models.causal_model import CausalModel
from moe_trainer.parallel.filling import is_outline
from moe_trainer.parallel.gathering import gathered
from moe_trainer.parallel.layout import Layout
from moe_trainer.parallel.processes import ALONE, Processes, joined
from moe_trainer.parallel.spread import held_rows, local, placed

SEED = 5
#: Seconds after which a process ends that waits for the others.
PATIENCE = 60
#: What else the cases import.
LATER = (
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "transformers.models.qwen3_moe.modeling_qwen3_moe",
)


def loaded(folder: Path, case: dict[str, Any], processes: Processes) -> artefacts.Start:
    """Return what a case trains, filled where it is spread."""
    parent = ArtefactRef.model_validate(case["parent"])
    training = TrainingSpec.model_validate(case.get("training", {}))
    start = artefacts.start(folder / "store", parent, training, SEED, processes)
    assert is_outline(start.model) != processes.alone
    start.take_part(processes, case.get("shard"))
    return start


def compare(model: CausalModel, whole: CausalModel, processes: Processes) -> None:
    """Hold every tensor of a spread model against the rows of the whole that it should be, bit for bit."""
    expected = whole.weights()
    places = placed(model.weights(), model, processes)
    assert list(places) == list(expected)
    for name, place in places.items():
        assert place.shape == expected[name].shape, name
        torch.testing.assert_close(local(place), expected[name].detach()[held_rows(place)], rtol=0, atol=0)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, parameter in whole.named_parameters() if parameter.requires_grad}
    tables = dict(whole.named_buffers())
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, tables[name]), name


def answers(model: CausalModel) -> Tensor:
    ids_BT = torch.randint(200, (2, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model.eval().with_routing(ids_BT)[0]


def written(
    folder: Path, case: dict[str, Any], start: artefacts.Start, processes: Processes
) -> Digest | None:
    """Write what would be the artefact of a run, and return its digest in the process that has written it."""
    training = TrainingSpec.model_validate(case.get("training", {}))
    method = artefacts.METHODS[training.method]
    tensors = gathered(method.stream(start.model), start.model, processes)
    if not processes.first:
        tensors.take_part()
        return None
    base, model, tokenizer = start.base, start.model, start.tokenizer
    return artefacts.write(
        folder.parent, folder.name, training, model, tokenizer, base=base, report="{}", tensors=tensors
    )


def check(folder: Path, case: dict[str, Any], processes: Processes) -> None:
    """Load a model in parts and whole: they are the same, answer alike, and are written alike."""
    parts = loaded(folder, case, processes)
    whole = loaded(folder, case, ALONE)
    compare(parts.model, whole.model, processes)
    torch.testing.assert_close(answers(parts.model), answers(whole.model), rtol=1e-5, atol=1e-5)
    if isinstance(parts.model, Decoder):
        trial.try_out(parts.model, apart=True, processes=processes)
    assert parts.base == whole.base and parts.model.end_ids == whole.model.end_ids
    with TemporaryDirectory(dir=folder) as new:
        made = written(Path(new) / "parts", case, parts, processes)
        if processes.first:
            assert made == written(Path(new) / "whole", case, whole, ALONE)


def measure(folder: Path, case: dict[str, Any], processes: Processes) -> None:
    """Leave by how many bytes this process has grown at most while its part was loaded, and while all was written."""
    before = start_measuring()
    parts = loaded(folder, case, processes)
    found = {"loading": peak() - before}
    before = start_measuring()
    method = TrainingSpec.model_validate(case.get("training", {})).method
    written(folder / f"written-{method}", case, parts, processes)
    found |= {"writing": peak() - before, "whole": whole_bytes(parts.model, processes)}
    (folder / f"memory-{method}-{processes.rank}.json").write_text(json.dumps(found))


def whole_bytes(model: CausalModel, processes: Processes) -> int:
    return sum(
        place.numel() * place.element_size() for place in placed(model.weights(), model, processes).values()
    )


def refuse(folder: Path, case: dict[str, Any], processes: Processes) -> None:
    """Meet an altered file: whoever has read it, all processes know its name."""
    try:
        loaded(folder, case, processes)
    except JobError as error:
        assert error.reason == "ArtefactCorrupt" and case["file"] in error.message, error.message
    else:
        raise AssertionError("it was loaded")


def start_measuring() -> int:
    """Forget the peak so far, and return the bytes that are resident now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """Return the most bytes that have been resident (VmHWM of proc(5))."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def main(folder: Path, world: int, cases: list[dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    with joined(Layout(world)) as everyone:
        for number, case in enumerate(cases):
            processes = laid_out(everyone, Layout(world, case.get("expert", 1)))
            {"check": check, "measure": measure, "refuse": refuse}[case["do"]](folder, case, processes)
            (folder / f"passed-{number}-{everyone.rank}").touch()


def laid_out(processes: Processes, layout: Layout) -> Processes:
    """Return processes that have met already in another layout."""
    ranks = torch.arange(layout.processes).view(layout.data, layout.expert)
    return replace(
        processes, layout=layout, grid=DeviceMesh("cpu", ranks.T, mesh_dim_names=("expert", "data"))
    )


if __name__ == "__main__":
    WORLD = int(sys.argv[2])
    fork(WORLD, patience=PATIENCE, later=LATER)
    main(Path(sys.argv[1]), WORLD, json.loads(sys.argv[3]))
