"""What balancing does to the load of a router and to the model: every method beside none, on real text.

    python benchmarks/balance.py [--folder DIR] [--only NAME …] [--seeds N] [--steps-scale 1.0]

Trains `general` of examples/01-first-pool (the preset, a mixture of three domains) once for every method
and seed, and measures, for each layer and for the worst of them:

    batchMaxVio    MaxVio within a step's batch, mean over the second half of the steps
    maxVio         MaxVio of all slots of the second half of the steps together
    heldOutMaxVio  MaxVio on held-out documents, with the trained weights
    bitsPerByte    on the same held-out documents

MaxVio is how far the busiest in-layer expert is above its fair share. A batch of the example is five
sequences of three domains, uneven even where a router's load on the text is not. Bits per byte are
compared with no balancing, seed by seed. The bias with softmax scores is measured although no
architecture of Hugging Face has it: it runs here, and an Expert cannot ask for it.

With --folder, runs that were made before are kept. Writes benchmarks/results/balance.json.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pool_on_disk import PoolOnDisk
from recording import machine, write_result
from specialization import BASE, SALT, example_specs, holdout_fraction, scaled, specs_sources
from torch import Tensor

from moe_client.demo.corpora import write_corpora
from moe_formats.format import digest_of
from moe_formats.job_config import ExpertRef, HoldoutRule, SnapshotRef, TrainJob
from moe_formats.resources.training import Training
from moe_formats.training_spec import TrainingSpec
from moe_trainer.models.preset_config import preset
from moe_trainer.models.preset_model import Model
from moe_trainer.moe.balance import LayerLoad
from moe_trainer.moe.layer import MoELayer
from moe_trainer.snapshots.layout import read_documents
from moe_trainer.text.tokenizer import ByteTokenizer
from moe_trainer.training.balancing import Balancer
from moe_trainer.training.run import Run, prepare
from moe_trainer.training.step import take_step
from moe_trainer.training.validation import validate

#: Blocks of the model's context that are scored, spread evenly over the held-out text.
HELD_OUT_BLOCKS = 240
SEEDS = 3

DEFAULT_WEIGHT = Training().load_balancing_loss_weight


@dataclass(frozen=True)
class Method:
    """One way to balance, and what it is compared with."""

    name: str
    training: dict[str, Any]
    preset: str = "tiny"

    @property
    def baseline(self) -> str:
        """The method without balancing on the same preset."""
        return "none, softmax" if self.preset == "tiny" else "none, sigmoid"


def _loss(scope: str, weight: float = DEFAULT_WEIGHT, **training: Any) -> dict[str, Any]:
    return {"loadBalancingLossWeight": weight, "balancing": {"scope": scope}, **training}


def _bias(rule: str, rate: float) -> dict[str, Any]:
    return {"loadBalancingLossWeight": 0, "balancing": {"bias": rule, "biasRate": rate}}


METHODS = (
    Method("none, softmax", {"loadBalancingLossWeight": 0}),
    Method("default", {}),
    Method("loss 0.01", _loss("GlobalBatch", 0.01)),
    Method("loss, sequence", _loss("Sequence")),
    Method("loss, micro-batches of 2 sequences", _loss("MicroBatch", microBatchTokens=768)),
    Method("loss, global batch of such micro-batches", _loss("GlobalBatch", microBatchTokens=768)),
    Method("bias sign, softmax", _bias("Sign", 0.01)),
    Method("bias proportional, softmax", _bias("Proportional", 0.01)),
    Method("none, sigmoid", {"loadBalancingLossWeight": 0}, "tiny-sigmoid"),
    Method("default, sigmoid", {}, "tiny-sigmoid"),
    Method("bias sign, sigmoid", _bias("Sign", 0.01), "tiny-sigmoid"),
    Method("bias proportional, sigmoid", _bias("Proportional", 0.01), "tiny-sigmoid"),
)


def main() -> None:
    """Train with every method and seed, and write what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="keep text and finished runs here")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="methods, by name; nothing is written")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--steps-scale", type=float, default=1.0, help="fraction of the steps, to try it")
    arguments = parser.parse_args()
    methods = [m for m in METHODS if arguments.only is None or m.name in arguments.only]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        trial = Trial.set_up(arguments.folder or Path(temporary), arguments.steps_scale)
        runs = {
            method.name: [trial.measured(method, seed) for seed in range(1, arguments.seeds + 1)]
            for method in methods
        }
    result = {
        "machine": machine(),
        "torch": torch.__version__,
        "training": trial.spec({}).model_dump(mode="json", by_alias=True),
        "heldOutBlocks": len(trial.held_out),
        "methods": {method.name: summary(method, runs) for method in methods},
    }
    if arguments.only is None and arguments.steps_scale == 1:
        write_result("balance", result)
    else:
        print(json.dumps(result["methods"], indent=1))


@dataclass(frozen=True)
class Trial:
    """What all runs share: a snapshot, held-out text, and a folder that remembers what was measured."""

    folder: Path
    store: Path
    data: SnapshotRef
    held_out: Tensor
    base_spec: TrainingSpec

    @classmethod
    def set_up(cls, folder: Path, steps_scale: float) -> "Trial":
        """Write the example's text and take its snapshots: the domains' before the mixture's."""
        specs = example_specs()
        write_corpora(folder / "sources" / "corpora", [name for name in specs if name != BASE])
        pool = PoolOnDisk(folder, HoldoutRule(fraction=holdout_fraction(), salt=SALT))
        for name, sources in specs_sources(specs).items():
            pool.snapshot(name, None if name == BASE else name, sources)
        expert = pool.experts[BASE]
        held_out = held_out_blocks(pool.store / expert.anchor.path)
        return cls(folder, pool.store, expert.data, held_out, scaled(specs[BASE], steps_scale))

    def spec(self, changes: dict[str, Any]) -> TrainingSpec:
        """Return the example's training spec with a method's changes."""
        return TrainingSpec.model_validate(self.base_spec.model_dump(by_alias=True) | changes)

    def measured(self, method: Method, seed: int) -> dict[str, Any]:
        """Return the figures of a run, made now or before."""
        spec = self.spec(method.training)
        key = digest_of(f"{method.preset} {spec.to_json()} {seed} {len(self.held_out)}")
        path = self.folder / f"run-{key.removeprefix('sha256:')[:16]}.json"
        if not path.exists():
            figures = self._train(method, spec, seed)
            print(f"{method.name}, seed {seed}: {json.dumps(figures)}", flush=True)
            path.write_text(json.dumps(figures))
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def _train(self, method: Method, spec: TrainingSpec, seed: int) -> dict[str, Any]:
        run = self._prepare(method, spec, seed)
        started, steps = time.process_time(), []
        while run.step < run.steps:
            run.curve.losses.append(take_step(run))
            steps.append(run.loads)
        seconds = time.process_time() - started
        bits, held_out = validate(run.model, self.held_out, run.sizes_V, run.batches.rows)
        late = steps[len(steps) // 2 :]
        layers = [list(loads) for loads in zip(*late, strict=True)]
        return {
            "bitsPerByte": round(bits, 4),
            "batchMaxVio": [
                round(statistics.mean(load.max_violation for load in loads), 4) for loads in layers
            ],
            "maxVio": [round(together(loads).max_violation, 4) for loads in layers],
            "heldOutMaxVio": [round(load.max_violation, 4) for load in held_out],
            "heldOutEntropy": [round(load.entropy, 4) for load in held_out],
            "deadExperts": [together(loads).dead for loads in layers],
            "cpuSeconds": round(seconds, 1),
        }

    def _prepare(self, method: Method, spec: TrainingSpec, seed: int) -> Run:
        job = TrainJob(
            pool_uid="pool",
            expert=ExpertRef(name=BASE, uid=f"uid-{BASE}"),
            revision=f"{BASE}-{seed}",
            attempt=1,
            inputs_digest=digest_of(method.name),
            preset=method.preset,
            data=self.data,
            training=spec.model_copy(update={"balancing": TrainingSpec().balancing}),
            seed=seed,
        )
        run = prepare(job, self.store)
        give_biases(run.model)
        run.job = job.model_copy(update={"training": spec})
        run.balancer = Balancer(run.model, spec)
        return run


def held_out_blocks(window: Path) -> Tensor:
    """Return blocks of the preset's context, spread evenly over a window of held-out documents."""
    tokenizer, context = ByteTokenizer(), preset("tiny").max_position_embeddings
    tokens: list[int] = []
    for document in read_documents(window):
        tokens += [tokenizer.bos_id, *tokenizer.encode(document.text), tokenizer.eos_id]
    blocks = (len(tokens) - 1) // context
    chosen = min(blocks, HELD_OUT_BLOCKS)
    starts = [place * blocks // chosen * context for place in range(chosen)]
    return torch.tensor([tokens[start : start + context + 1] for start in starts])


def give_biases(model: Model) -> None:
    """Give every router a bias, also where the architecture has none on disk."""
    for module in model.modules():
        if isinstance(module, MoELayer) and module.bias_E is None:
            module.bias_E = torch.zeros(module.router.experts)


def together(loads: Sequence[LayerLoad]) -> LayerLoad:
    """Return the load of a layer over several steps."""
    counts = tuple(sum(of_one) for of_one in zip(*(load.counts for load in loads), strict=True))
    return LayerLoad(counts, sum(load.dropped for load in loads))


def summary(method: Method, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return a method's figures: means over seeds of the worst layer, and bits per byte beside no balancing."""
    own = runs[method.name]
    found: dict[str, Any] = {
        name: round(statistics.mean(max(run[name]) for run in own), 3)
        for name in ("batchMaxVio", "maxVio", "heldOutMaxVio")
    }
    found["bitsPerByte"] = round(statistics.mean(run["bitsPerByte"] for run in own), 4)
    if method.baseline in runs and method.name != method.baseline:
        pairs = zip(own, runs[method.baseline], strict=True)
        changes = [math.log(run["bitsPerByte"] / none["bitsPerByte"]) for run, none in pairs]
        found["bitsPerByteChange"] = {
            "mean": round(math.expm1(statistics.mean(changes)), 4),
            "bySeed": [round(math.expm1(change), 4) for change in changes],
        }
    changed = {"preset": method.preset, **method.training}
    return found | {"changed": changed, "runs": own}


if __name__ == "__main__":
    main()
