"""How specialised Experts become, and what routing among them costs, beside controls that must fail.

    python benchmarks/specialization.py [--folder DIR] [--steps-scale 1.0]

Trains, by the trainer's own commands and with the specs of examples/01-first-pool:

1. `general` and three domain Experts: gain, specialization score, forgetting, routed bits per byte;
2. a twin of the first domain Expert from another seed: how far apart the gate sees two runs of one spec;
3. the control: the same documents dealt at random to three Experts. Their specialization scores must lie
   around 0.5, and routing among them must be worth next to nothing.

Writes benchmarks/results/specialization.json, and the losses of every segment under every model for
gate_simulation.py: benchmarks/results/segment_losses.json.
"""

import argparse
import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pool_on_disk import PoolOnDisk
from recording import machine, write_result

from moe_client.demo.corpora import write_corpora
from moe_formats.format import digest_of
from moe_formats.job_config import HoldoutRule, Source
from moe_formats.resources.training import Training
from moe_formats.training_spec import TrainingSpec
from moe_trainer.evaluation.matrix import Cell

EXAMPLE = Path(__file__).parent.parent / "examples" / "01-first-pool"
BASE = "general"
SALT = "moe"  # the API's default
SPLITS = ("split-a", "split-b", "split-c")


def main() -> None:
    """Run both experiments and write their results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="keep everything here instead of in a temporary folder")
    parser.add_argument(
        "--steps-scale", type=float, default=1.0, help="fraction of the example's steps, to try it"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        specs = example_specs()
        domains = [name for name in specs if name != BASE]
        training = {name: scaled(spec, arguments.steps_scale) for name, spec in specs.items()}
        write_corpora(folder / "domains" / "sources" / "corpora", domains)
        deal_out(folder / "domains" / "sources", folder / "splits" / "sources", domains)
        pool, found = experiment(folder / "domains", specs_sources(specs), training, domains)
        dealt = {BASE: training[BASE]} | dict.fromkeys(SPLITS, training[domains[0]])
        result = {
            "machine": machine(),
            "stepsScale": arguments.steps_scale,
            "domains": found,
            "twin": twin(pool, domains[0], training[domains[0]]),
            "randomSplits": experiment(folder / "splits", split_sources(), dealt, SPLITS)[1],
        }
        if arguments.steps_scale == 1:
            write_result("specialization", result)
            write_result("segment_losses", segment_losses(pool))
        else:
            print(json.dumps(result, indent=1))


def experiment(
    folder: Path,
    sources: dict[str, tuple[Source, ...]],
    training: dict[str, TrainingSpec],
    domains: Sequence[str],
) -> tuple[PoolOnDisk, dict[str, Any]]:
    """Snapshot, train, evaluate and distil one pool; return it with what was measured."""
    pool = PoolOnDisk(folder, HoldoutRule(fraction=holdout_fraction(), salt=SALT))
    clusters = {name: pool.snapshot(name, name, sources[name]).anchor.clusters for name in domains}
    clusters[BASE] = pool.snapshot(BASE, None, sources[BASE]).anchor.clusters
    pool.train(BASE, training[BASE], base=None)
    for name in domains:
        pool.train(name, training[name], base=BASE)
    headlines = {BASE: pool.evaluate(BASE, base=None)}
    headlines |= {name: pool.evaluate(name, base=BASE) for name in domains}
    distilled = pool.distill()
    routes = json.loads((pool.store / distilled.path).with_name("report.json").read_text())
    gains = [headlines[name].gain for name in domains]
    return pool, {
        "cpuSeconds": {kind: round(seconds, 1) for kind, seconds in pool.cpu_seconds.items()},
        "heldOutClusters": clusters,
        "training": {name: spec.model_dump(mode="json", by_alias=True) for name, spec in training.items()},
        "experts": {
            name: headline.model_dump(mode="json", by_alias=True, exclude_none=True)
            for name, headline in headlines.items()
        },
        "meanGain": sum(gain.value for gain in gains if gain) / len(gains),
        "routes": {name: routes[name] for name in ("oracle", "posterior", "distilled", "random")},
        "promptBytes": routes["promptBytes"],
        "routedSegments": routes["segments"],
    }


def twin(pool: PoolOnDisk, name: str, training: TrainingSpec) -> dict[str, Any]:
    """Train an Expert again from another seed, and let the gate compare the two."""
    first = pool.experts[name].revision
    pool.train(name, training, base=BASE, seed=2)
    headline = pool.evaluate(name, base=BASE, current=first)
    return {"expert": name, "decision": headline.decisions[0].model_dump(mode="json", by_alias=True)}


def segment_losses(pool: PoolOnDisk) -> dict[str, Any]:
    """Return the nats of every scored segment of every anchor under every model, by its artefact."""
    names = {}
    for manifest in pool.store.glob("pools/*/experts/*/revisions/*/a1/manifest.json"):
        job = json.loads(manifest.with_name("report.json").read_text())["job"]
        names[digest_of(manifest.read_bytes())] = job["revision"]
    losses: dict[str, Any] = {}
    for path in sorted(pool.store.glob("pools/*/cells/*.json")):
        cell = Cell.model_validate_json(path.read_text().partition("\n")[2])
        anchor = next((h.expert for h in pool.suite() if h.digest == cell.key.holdout), None)
        if anchor:
            ids = {cluster: number for number, cluster in enumerate(sorted(set(cell.clusters)))}
            column = losses.setdefault(anchor, {"clusters": [ids[c] for c in cell.clusters], "nats": {}})
            column["nats"][names[cell.key.artefact]] = [round(nats, 3) for nats in cell.nats]
    return losses


def example_specs() -> dict[str, dict[str, Any]]:
    """Return the spec of each Expert of the example, by name; the domains before their base."""
    documents = [
        document
        for path in sorted(EXAMPLE.glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
    ]
    specs = {d["metadata"]["name"]: d["spec"] for d in documents if d["kind"] == "Expert"}
    return dict(sorted(specs.items(), key=lambda item: item[0] == BASE))


def holdout_fraction() -> float:
    """Return the share of clusters that the example's pool holds out."""
    for path in sorted(EXAMPLE.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if document["kind"] == "ExpertPool":
                return float(document["spec"]["evaluation"]["holdout"])
    raise SystemExit(f"{EXAMPLE} has no ExpertPool")


def training_of(spec: dict[str, Any]) -> TrainingSpec:
    """Return what an Expert's training spec asks for, at the intervals that all recorded results were made with."""
    intervals = {"validationEvery": 200, "checkpointEvery": 100}
    return Training.model_validate(intervals | spec["training"]).spec()


def scaled(spec: dict[str, Any], scale: float) -> TrainingSpec:
    """Return an Expert's training spec with its steps scaled."""
    training = training_of(spec)
    assert training.max_steps
    return training.model_copy(update={"max_steps": max(1, round(training.max_steps * scale))})


def specs_sources(specs: dict[str, dict[str, Any]]) -> dict[str, tuple[Source, ...]]:
    """Return each Expert's sources as Jobs name them."""
    return {
        name: tuple(
            Source(root=source["store"], path=source["path"], format=source.get("format", "text"))
            for source in spec["data"]["sources"]
        )
        for name, spec in specs.items()
    }


def deal_out(sources: Path, splits: Path, domains: list[str]) -> None:
    """Write every document of every domain into one of the splits, by a hash of its text."""
    texts = []
    for domain in domains:
        folder = sources / "corpora" / domain
        texts += [path.read_text() for path in sorted(folder.glob("*.txt"))]
        for path in sorted(folder.glob("*.jsonl")):
            texts += [json.loads(line)["text"] for line in path.read_text().splitlines()]
    for name in SPLITS:
        (splits / "corpora" / name).mkdir(parents=True, exist_ok=True)
    for text in texts:
        number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
        name = SPLITS[number % len(SPLITS)]
        (splits / "corpora" / name / f"{number:020}.txt").write_text(text)


def split_sources() -> dict[str, tuple[Source, ...]]:
    """Return the sources of the control's Experts, and of their base, which reads all."""
    each = {name: (Source(root="corpora", path=f"{name}/*.txt", format="text"),) for name in SPLITS}
    return each | {BASE: tuple(source for sources in each.values() for source in sources)}


if __name__ == "__main__":
    main()
