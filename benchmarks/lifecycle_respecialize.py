"""Whether an Expert whose text has drifted is brought back, what that costs of what it knew, and whether junk gets through.

    python benchmarks/lifecycle_respecialize.py [--folder DIR] [--seeds 3] [--junk 20]

The Expert `speeches` is trained on two thirds of the demo's speeches, with the rates of examples/01-first-pool and fewer steps.
Then the others arrive, with a share of their sentences in another style: in capitals, and without articles. The share
is such that D, the gain on the anchor minus that on the new window, is about 10 %. A revision then specialises again as
planner/respecialize.py asks: on the new text, with a quarter of rehearsed text, for a third of the first training's steps.
The control does the same without rehearsed text. Everything is repeated for each seed, from the base on.

Junk: deliveries of words in random order with shuffled letters (client/moe_client/demo/corpora.py), each drawn anew. A
revision specialises again on each, and the gate's own function judges it against the Expert of the first seed.

    regained   improvement on the new window, as a share of D; and how far D fell, as a share of D
    anchor     ln(b after / b before) on the anchor: above 0 it has forgotten

Writes benchmarks/results/lifecycle_respecialize.json.
"""

import argparse
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from pool_on_disk import PoolOnDisk
from recording import machine, write_result
from specialization import BASE, SALT, example_specs, holdout_fraction, training_of

from moe_client.demo.corpora import speeches, write_corpora, write_junk
from moe_formats.job_config import ArtefactRef, HoldoutRef, HoldoutRule, Rehearsal, SnapshotRef, Source
from moe_formats.job_report import Decision, EvaluateHeadline, SnapshotHeadline
from moe_formats.resources.expert import Promotion
from moe_formats.resources.expert_revision import Cause
from moe_operator.planner.evidence import evidence_of
from moe_operator.planner.promotion import Candidate, Ruling, judge, too_small
from moe_operator.planner.respecialize import EPOCHS, RATE_SHARE, SHARE, STEPS_DIVISOR
from moe_trainer import evaluate, snapshot, train
from moe_trainer.environment import Environment

NAME = "speeches"
COMMANDS: dict[str, Callable[[Any, Environment], Any]] = {
    "snapshot": snapshot.run,
    "train": train.run,
    "evaluate": evaluate.run,
}
#: Steps of the first training of each.
STEPS = {BASE: 200, NAME: 300}
#: Share of the speeches that the Expert is first trained on.
BEFORE = 2 / 3
#: Documents of a delivery of junk: a fifth of them is held out.
JUNK_DOCUMENTS = 150
#: Share of the sentences of the new speeches that are in the other style.
RESTYLED = 0.6


def main() -> None:
    """Run everything, write it and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="keep everything here instead of in a temporary folder")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--junk", type=int, default=20, help="number of deliveries of junk")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        experiment = Experiment(arguments.folder or Path(temporary))
        drifted = [experiment.drift(seed) for seed in range(1, arguments.seeds + 1)]
        junk: list[dict[str, Any]] = []
        number = 0
        while len(junk) < arguments.junk:  # a window that is too small waits, and becomes part of the next
            found = experiment.junk(number)
            junk += [found] if found else []
            number += 1
    result = {
        "machine": machine(),
        "rehearsal": {
            "share": SHARE,
            "stepsDivisor": STEPS_DIVISOR,
            "epochs": EPOCHS,
            "rateShare": RATE_SHARE,
        },
        "restyled": RESTYLED,
        "seeds": drifted,
        "junk": junk,
        "junkRefused": sum(found["outcome"] == "Refused" for found in junk),
        "cpuSeconds": {kind: round(seconds, 1) for kind, seconds in experiment.pool.cpu_seconds.items()},
    }
    write_result("lifecycle_respecialize", result)
    print(json.dumps(result, indent=1))


class InOneProcess(PoolOnDisk):
    """The same without a process for each command: most of their time would go into importing torch."""

    def _run(self, job: Any) -> Any:
        self.store.mkdir(parents=True, exist_ok=True)
        began = time.process_time()
        environment = Environment(store=self.store, sources=self.folder / "sources", threads=1)
        with redirect_stdout(sys.stderr):
            found = COMMANDS[job.kind](job, environment)
        self.cpu_seconds[job.kind] += time.process_time() - began
        return found


class Experiment:
    """A pool with the Expert and its base, whose text changes."""

    def __init__(self, folder: Path) -> None:
        """Take the snapshots of the first text, in the order that pools do: domains before their base."""
        self.sources = folder / "sources" / "corpora"
        self.pool = InOneProcess(folder, HoldoutRule(fraction=holdout_fraction(), salt=SALT))
        specs = example_specs()
        self.training = {
            name: training_of(specs[name]).model_copy(update={"max_steps": steps})
            for name, steps in STEPS.items()
        }
        domains = [name for name in specs if name != BASE]
        write_corpora(self.sources, [name for name in domains if name != NAME])
        halves = [half for _, text in speeches() for half in _halves(text)]
        self.before = round(len(halves) * BEFORE)
        self.halves = halves
        self._write(halves[: self.before])
        globs = {
            name: ("*.jsonl", "jsonl") if name == "mathematics" else ("*.txt", "text") for name in domains
        }
        every = {
            name: (Source(root="corpora", path=f"{name}/{glob}", format=form),)
            for name, (glob, form) in globs.items()
        }
        self.own = every[NAME]
        self.pool.snapshot(NAME, NAME, self.own)
        self.pool.snapshot(BASE, None, tuple(source for sources in every.values() for source in sources))
        self.first = self.pool.experts[NAME].data
        self._write(halves[: self.before] + [restyled(half, RESTYLED) for half in halves[self.before :]])
        self.drifted = self.pool.snapshot(NAME, NAME, self.own)
        self.current: ArtefactRef | None = None
        self.experts: list[ArtefactRef | None] = []  #: The Expert of each seed, before it specialises again.

    def drift(self, seed: int) -> dict[str, Any]:
        """Train base and Expert, measure how far the text has drifted, and let it specialise again in both ways."""
        pool, window = self.pool, _newest(self.drifted)
        pool.train(BASE, self.training[BASE], base=None, seed=seed)
        self._own_data(self.first)
        steps = pool.train(NAME, self.training[NAME], base=BASE, seed=seed).steps
        self._own_data(SnapshotRef(path=self.drifted.path, digest=self.drifted.digest))
        self.current = current = pool.experts[NAME].revision
        self.experts.append(current)
        gains = _by_role(pool.evaluate(NAME, base=BASE, window=window))
        drift = gains["window"].interval.value - gains["anchor"].interval.value
        control, _ = self._again(seed, steps, 0.0)
        plain = pool.experts[NAME].revision
        candidate, trained = self._again(seed, steps, SHARE)
        paired = _by_role(pool.evaluate(NAME, base=None, current=plain, window=window))
        self._restore(current)
        return {
            "seed": seed,
            "steps": {"first": steps, "again": trained},
            "drift": round(drift, 4),
            "rehearsed": _outcome(candidate, drift),
            "control": _outcome(control, drift),
            "anchorAgainstControl": _interval(paired["anchor"]),
            "windowAgainstControl": _interval(paired["window"]),
        }

    def junk(self, number: int) -> dict[str, Any] | None:
        """Let the Expert specialise again on a delivery of junk, and judge the revision; None if the gate would wait."""
        folder = self.sources / f"junk-{number}"
        write_junk(folder, JUNK_DOCUMENTS, seed=f"junk {number}")
        sources = (*self.own, Source(root="corpora", path=f"junk-{number}/junk/*.txt", format="text"))
        self._write(self.halves[: self.before])
        made = self.pool.snapshot(NAME, NAME, sources)
        if too_small(made.anchor, made.newest) is not None:
            return None
        self.current = current = self.experts[0]
        assert self.training[NAME].max_steps
        found, _ = self._again(1, self.training[NAME].max_steps, SHARE, made)
        self._restore(current)
        ruling = judged(found)
        decisions = _by_role(found)
        return {
            "outcome": ruling.outcome,
            "clause": ruling.clause,
            "window": _interval(decisions["window"]),
            "anchor": _interval(decisions["anchor"]),
        }

    def _again(
        self, seed: int, first_steps: int, share: float, data: SnapshotHeadline | None = None
    ) -> tuple[EvaluateHeadline, int]:
        """Train a revision further from the current one, and evaluate it against that; the Expert has it afterwards."""
        made = data or self.drifted
        self._restore(self.current)
        rehearsal = Rehearsal(
            share=share,
            rehearsed=self.first,
            known=self.first,
            max_steps=max(1, first_steps // STEPS_DIVISOR),
            max_epochs=EPOCHS,
            rate_share=RATE_SHARE,
        )
        trained = self.pool.train(NAME, self.training[NAME], base=NAME, seed=seed, rehearsal=rehearsal)
        found = self.pool.evaluate(NAME, base=None, current=self.current, window=_newest(made))
        return found, trained.steps

    def _restore(self, revision: ArtefactRef | None) -> None:
        self.pool.experts[NAME].revision = revision

    def _own_data(self, data: SnapshotRef) -> None:
        self.pool.experts[NAME].data = data

    def _write(self, texts: list[str]) -> None:
        folder = self.sources / NAME
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        for number, text in enumerate(texts):
            (folder / f"{number:04}.txt").write_text(text)


def judged(found: EvaluateHeadline) -> Ruling:
    """Return the gate's ruling on a revision of cause Drift, which must improve on the new window."""
    return judge(
        Candidate(
            name=NAME,
            cause=Cause.DRIFT,
            first=False,
            evidence=evidence_of(found, None),
            promotion=Promotion(),
            targets=[],
        )
    )


def restyled(text: str, share: float) -> str:
    """Return a text with a share of its sentences in capitals and without articles; always the same ones."""
    draw = random.Random(text)
    sentences = re.split(r"(?<=[.;:]) ", text)
    return " ".join(
        re.sub(r"\b(the|a|an) ", "", sentence).upper() if draw.random() < share else sentence
        for sentence in sentences
    )


def _halves(text: str) -> tuple[str, str]:
    middle = text.find(" ", len(text) // 2) + 1
    return text[:middle], text[middle:]


def _newest(made: SnapshotHeadline) -> HoldoutRef:
    window = made.newest
    assert window is not None
    return HoldoutRef(domain=NAME, expert=NAME, path=window.path, digest=window.digest)


def _by_role(found: EvaluateHeadline) -> dict[str, Decision]:
    return {decision.role: decision for decision in found.decisions}


def _outcome(found: EvaluateHeadline, drift: float) -> dict[str, Any]:
    decisions, ruling = _by_role(found), judged(found)
    window, anchor = decisions["window"].interval.value, decisions["anchor"].interval.value
    return {
        "regainedOnWindow": round(-window / drift, 3),
        "regainedOfD": round((anchor - window) / drift, 3),
        "window": _interval(decisions["window"]),
        "anchor": _interval(decisions["anchor"]),
        "outcome": ruling.outcome,
        "clause": ruling.clause,
    }


def _interval(decision: Decision) -> list[float]:
    found = decision.interval
    return [round(value, 4) for value in (found.value, found.lower, found.upper)]


if __name__ == "__main__":
    main()
