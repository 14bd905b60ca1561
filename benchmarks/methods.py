"""What a method of training is worth: Full, LoRA and ExpertBank on one base, and one model for all domains.

    python benchmarks/methods.py [--folder DIR] [--only NAME …] [--seeds N] [--steps-scale 0.4]

Trains the three domain Experts of examples/01-first-pool from one `general`, once for every method and
seed, with the example's batches and a fraction of its steps, and measures

    gain, forgetting, specializationScore   as the evaluate command finds them (docs/concepts.md)
    otherDomains                            bits per byte on each other domain over the base's, less 1
    cpuSeconds                              of training; beside it trained parameters and bytes of the artefact
    peakMiB                                 of a train command of a few steps: resident memory at its most
    routed                                  bits per byte of all domains' segments: each sent by the gateway's
                                            Distilled table, and to the Expert that codes it best (oracle)

and beside them, on the same segments,

    composed    the seed's three banks as one checkpoint, whose own gate decides token by token; and a pair of
                them on the domain that has none
    dense       `general` trained on, on the text of all domains, for as many steps as three Experts have

LoRA's learning rate is above Full's, as is usual, and was not searched for. A bank reads replay: for four bytes
of its domain three of the base's other text, so that it learns when not to be of use.

With --folder, runs that were made before are kept. Writes benchmarks/results/methods.json.
"""

import argparse
import contextlib
import hashlib
import importlib
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pool_on_disk import Expert, PoolOnDisk
from recording import machine, write_result
from specialization import BASE, SALT, example_specs, holdout_fraction, scaled, specs_sources

from moe_client.demo.corpora import write_corpora
from moe_formats.format import digest_of
from moe_formats.job_config import ArtefactRef, ExpertRef, HoldoutRule, Source
from moe_formats.job_report import EvaluateHeadline, TrainHeadline
from moe_formats.training_spec import TrainingSpec
from moe_trainer.environment import Environment
from moe_trainer.evaluation.matrix import Cell

SEEDS = 3
#: Bytes of the base's other text for each byte of the domain's: with 0.5 a pair of banks harms the third domain by
#: about 0.9 %, with 1 a bank keeps half of what Full gains.
REPLAY = 0.75
DENSE, COMPOSED = "dense", "composed"
#: Steps of the runs whose memory is measured.
MEMORY_STEPS = 3


@dataclass(frozen=True)
class Method:
    """One way to train an Expert: what its spec has beside the example's."""

    name: str
    training: dict[str, Any]
    replay: bool = False


METHODS = (
    Method("Full", {}),
    Method("LoRA", {"method": "LoRA", "learningRate": 0.01}),
    Method("ExpertBank", {"method": "ExpertBank", "bank": {"experts": 8}}, replay=True),
)


def main() -> None:
    """Train with every method and seed, and write what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="keep text, artefacts and finished runs here")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="methods, by name; nothing is written")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--steps-scale", type=float, default=0.4, help="fraction of the example's steps")
    arguments = parser.parse_args()
    names = arguments.only or [*(method.name for method in METHODS), DENSE]
    with tempfile.TemporaryDirectory() as temporary:
        trial = Trial.set_up(arguments.folder or Path(temporary), arguments.steps_scale)
        runs = {
            name: [trial.measured(name, seed) for seed in range(1, arguments.seeds + 1)] for name in names
        }
        base = trial.total(trial.base())
    result = {
        "machine": machine(),
        "stepsScale": arguments.steps_scale,
        "training": trial.spec.model_dump(mode="json", by_alias=True),
        "replayBytesPerByte": REPLAY,
        "baseBitsPerByte": base,
        "methods": {name: summary(name, own, runs) for name, own in runs.items()},
        "runs": runs,
    }
    if arguments.only is None:
        write_result("methods", result)
    else:
        print(json.dumps(result["methods"], indent=1))


class PoolHere(PoolOnDisk):
    """A pool whose Jobs run in this process, but for the snapshots: nothing is imported again for each."""

    def _run(self, job: Any) -> Any:
        if job.kind == "snapshot":
            return super()._run(job)
        started = time.process_time()
        with contextlib.redirect_stdout(sys.stderr):
            found = importlib.import_module(f"moe_trainer.{job.kind}").run(job, Environment(store=self.store))
        self.cpu_seconds[job.kind] += time.process_time() - started
        return found


@dataclass(frozen=True)
class Trial:
    """What all runs share: snapshots, the base, and a folder that remembers what was measured."""

    folder: Path
    pool: PoolOnDisk
    domains: tuple[str, ...]
    with_replay: dict[str, Expert]
    spec: TrainingSpec

    @classmethod
    def set_up(cls, folder: Path, steps_scale: float) -> "Trial":
        """Write the example's text, take its snapshots, and train and evaluate the base."""
        specs = example_specs()
        domains = tuple(name for name in specs if name != BASE)
        sources = folder / "sources" / "corpora"
        write_corpora(sources, list(domains))
        pool = PoolHere(folder, HoldoutRule(fraction=holdout_fraction(), salt=SALT))
        own = specs_sources(specs)
        for name in specs:
            pool.snapshot(name, None if name == BASE else name, own[name])
        with_replay = {}
        for name in domains:
            write_replay(sources, name, domains)
            mixed = (*own[name], Source(root="corpora", path=f"replay-{name}/*.txt", format="text"))
            pool.snapshot(f"{name}-with-replay", None, mixed)
            with_replay[name] = pool.experts.pop(f"{name}-with-replay")
        pool.train(BASE, scaled(specs[BASE], 1), base=None)
        pool.evaluate(BASE, base=None)
        return cls(folder, pool, domains, with_replay, scaled(specs[domains[0]], steps_scale))

    def base(self) -> ArtefactRef:
        """Return the base's revision."""
        revision = self.pool.experts[BASE].revision
        assert revision
        return revision

    def measured(self, name: str, seed: int) -> dict[str, Any]:
        """Return the figures of a method's run, made now or before."""
        methods = {method.name: method for method in METHODS}
        asked = methods.get(name, DENSE)
        replay = REPLAY if asked != DENSE and asked.replay else 0
        key = digest_of(f"{asked} {self.spec.to_json()} {seed} {self.base().digest} {replay}")
        path = self.folder / f"run-{key.removeprefix('sha256:')[:16]}.json"
        if not path.exists():
            figures = self._dense(seed) if asked == DENSE else self._experts(methods[name], seed)
            print(f"{name}, seed {seed}: {json.dumps(figures)}", flush=True)
            path.write_text(json.dumps(figures))
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def _experts(self, method: Method, seed: int) -> dict[str, Any]:
        """Train and evaluate the three Experts by a method, and route among them."""
        spec = TrainingSpec.model_validate(self.spec.model_dump(by_alias=True) | method.training)
        experts = {}
        for name in self.domains:
            own = self.pool.experts[name]
            data = self.with_replay[name].data if method.replay else own.data
            self.pool.experts[name] = replace(own, data=data)
            figures = self._train(name, spec, seed)
            self.pool.experts[name] = replace(self.pool.experts[name], data=own.data)
            headline = self.pool.evaluate(name, base=BASE)
            experts[name] = figures | scores(headline, name)
        found: dict[str, Any] = {"experts": experts, "routed": self._routed()}
        if spec.method == "ExpertBank":
            found[COMPOSED] = self._composed(self.domains)
            found["pair"] = self._composed(self.domains[:2])
        return found | {"peakMiB": self._memory(self.domains[0], spec, seed)}

    def _memory(self, name: str, spec: TrainingSpec, seed: int) -> int:
        """Return the resident memory, in MiB, of a train command of a few steps at its most."""
        own = self.pool.experts[name]
        apart = PoolOnDisk(self.folder, self.pool.holdout, {name: own, BASE: self.pool.experts[BASE]})
        apart.train(name, spec.model_copy(update={"max_steps": MEMORY_STEPS}), base=BASE, seed=seed)
        self.pool.experts[name] = own
        return round(apart.peak_bytes / 2**20)

    def _train(self, name: str, spec: TrainingSpec, seed: int) -> dict[str, Any]:
        before = self.pool.cpu_seconds["train"]
        made: TrainHeadline = self.pool.train(name, spec, base=BASE, seed=seed)
        files = (self.pool.store / made.path).iterdir()
        return {
            "cpuSeconds": round(self.pool.cpu_seconds["train"] - before, 1),
            "parameters": made.parameters,
            "artefactBytes": sum(file.stat().st_size for file in files if file.suffix == ".safetensors"),
        }

    def _routed(self) -> dict[str, float]:
        """Return bits per byte of all domains' segments, by the gateway's table and by the best Expert of each."""
        made = self.pool.distill()
        return {
            "distilled": made.routed_bits_per_byte,
            "oracle": made.oracle_bits_per_byte,
            "random": made.random_bits_per_byte,
            "accuracy": made.accuracy,
        }

    def _composed(self, names: Sequence[str]) -> dict[str, Any]:
        """Compose the banks of some Experts and measure the checkpoint, whose own gate decides, on all domains."""
        made = self.pool.compose(names)
        ancestry = self.base().ancestry + tuple(self.with_replay[name].data for name in names)
        revision = ArtefactRef(
            revision="-".join(names), path=made.path, digest=made.digest, ancestry=ancestry
        )
        return {"banks": list(names)} | self._mixture(revision)

    def _dense(self, seed: int) -> dict[str, Any]:
        """Train the base on, on all domains' text, for the steps of all Experts together."""
        assert self.spec.max_steps
        steps = self.spec.max_steps * len(self.domains)
        base = self.base()
        figures = self._train(BASE, self.spec.model_copy(update={"max_steps": steps}), seed)
        revision = self.base()
        self.pool.experts[BASE] = replace(self.pool.experts[BASE], revision=base)
        return figures | self._mixture(revision)

    def _mixture(self, revision: ArtefactRef) -> dict[str, Any]:
        """Evaluate one model for all domains."""
        general = self.pool.experts[BASE]
        ref = ExpertRef(name="mixture", uid="uid-mixture")
        self.pool.experts["mixture"] = replace(general, ref=ref, revision=revision)
        headline = self.pool.evaluate("mixture", base=BASE)
        del self.pool.experts["mixture"]
        return {
            "bitsPerByte": self.total(revision),
            "gainByDomain": {
                domain: round(math.log(headline.base_row[domain] / headline.row[domain]), 4)
                for domain in self.domains
            },
        }

    def total(self, revision: ArtefactRef) -> float:
        """Return a model's bits per byte over the segments of all domains' anchors."""
        anchors = {holdout.digest for holdout in self.pool.suite()}
        cells = [
            cell
            for cell in read_cells(self.pool.store)
            if cell.key.artefact == revision.digest and cell.key.holdout in anchors
        ]
        assert len(cells) == len(anchors)
        nats, size = sum(sum(cell.nats) for cell in cells), sum(sum(cell.sizes) for cell in cells)
        return round(nats / size / math.log(2), 4)


def scores(headline: EvaluateHeadline, name: str) -> dict[str, Any]:
    """Return what the evaluation of an Expert found."""
    intervals = {
        "gain": headline.gain,
        "forgetting": headline.forgetting,
        "specializationScore": headline.specialization_score,
    }
    found: dict[str, Any] = {
        key: interval.model_dump(mode="json", by_alias=True) if interval else None
        for key, interval in intervals.items()
    }
    return found | {
        "otherDomains": {
            domain: round(headline.row[domain] / bits - 1, 4)
            for domain, bits in headline.base_row.items()
            if domain != name
        }
    }


def read_cells(store: Path) -> Iterator[Cell]:
    """Yield every cell of the matrix."""
    for path in sorted(store.glob("pools/*/cells/*.json")):
        yield Cell.model_validate_json(path.read_text().partition("\n")[2])


def write_replay(sources: Path, domain: str, domains: Sequence[str]) -> None:
    """Write documents of the other domains, drawn by a hash, of REPLAY times as many bytes as the domain has."""
    texts = {name: list(read_texts(sources / name)) for name in domains}
    others = [text for name, own in texts.items() if name != domain for text in own]
    room = REPLAY * sum(len(text.encode()) for text in texts[domain])
    folder = sources / f"replay-{domain}"
    folder.mkdir(exist_ok=True)
    for text in sorted(others, key=lambda text: hashlib.sha256(f"{domain} {text}".encode()).digest()):
        size = len(text.encode())
        if size <= room:
            (folder / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.txt").write_text(text)
            room -= size


def read_texts(folder: Path) -> Iterator[str]:
    """Yield the documents of a domain."""
    for path in sorted(folder.glob("*.txt")):
        yield path.read_text()
    for path in sorted(folder.glob("*.jsonl")):
        yield from (json.loads(line)["text"] for line in path.read_text().splitlines())


def summary(
    name: str, own: Sequence[dict[str, Any]], runs: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """Return a method's figures, by seed, and their means."""
    if name == DENSE:
        gains = [statistics.mean(run["gainByDomain"].values()) for run in own]
        return {
            "bitsPerByte": by_seed([run["bitsPerByte"] for run in own]),
            "gain": by_seed(gains),
            "cpuSeconds": by_seed([run["cpuSeconds"] for run in own]),
        }
    found: dict[str, Any] = {
        key: by_seed([statistics.mean(e[key]["value"] for e in run["experts"].values()) for run in own])
        for key in ("gain", "forgetting", "specializationScore")
        if all(e[key] for run in own for e in run["experts"].values())
    }
    experts = [expert for run in own for expert in run["experts"].values()]
    found |= {
        "cpuSecondsPerExpert": by_seed(
            [statistics.mean(e["cpuSeconds"] for e in run["experts"].values()) for run in own]
        ),
        "peakMiB": by_seed([run["peakMiB"] for run in own]),
        "parameters": experts[0]["parameters"],
        "artefactBytes": experts[0]["artefactBytes"],
        "worstOtherDomain": max(max(expert["otherDomains"].values()) for expert in experts),
        "meanOtherDomain": statistics.mean(
            statistics.mean(expert["otherDomains"].values()) for expert in experts
        ),
        "routedByTable": by_seed([run["routed"]["distilled"] for run in own]),
        "routedByOracle": by_seed([run["routed"]["oracle"] for run in own]),
    }
    if name != "Full" and "Full" in runs and len(runs["Full"]) == len(own):
        found["shareOfFullGain"] = {
            domain: round(
                statistics.mean(
                    run["experts"][domain]["gain"]["value"] / full["experts"][domain]["gain"]["value"]
                    for run, full in zip(own, runs["Full"], strict=True)
                ),
                3,
            )
            for domain in own[0]["experts"]
        }
    if all(COMPOSED in run for run in own):
        found["composedByItsOwnGate"] = {
            "bitsPerByte": by_seed([run[COMPOSED]["bitsPerByte"] for run in own]),
            "gain": by_seed([statistics.mean(run[COMPOSED]["gainByDomain"].values()) for run in own]),
            "domainWithoutBank": by_seed([_without_bank(run) for run in own]),
        }
    return found


def _without_bank(run: dict[str, Any]) -> float:
    """Return how much worse than the base, in ln bits per byte, a pair of banks is on the domain that has none."""
    return statistics.mean(
        -gain for domain, gain in run["pair"]["gainByDomain"].items() if domain not in run["pair"]["banks"]
    )


def by_seed(values: Sequence[float]) -> dict[str, Any]:
    """Return the mean of some figures, and each of them."""
    return {
        "mean": round(statistics.mean(values), 4),
        "bySeed": [round(value, 4) for value in values],
    }


if __name__ == "__main__":
    main()
