"""Measure the drift of a real (very small) model on windows that real snapshot Jobs held out."""

import json
import shutil

import pytest
from tests.trainer.evaluation.conftest import Pool, write_domain

from moe_formats import store
from moe_formats.failure import JobError
from moe_formats.job_config import DriftJob, HoldoutRef, HoldoutRule, SnapshotJob, Source
from moe_formats.job_report import MAX_HEADLINE_BYTES, SnapshotHeadline
from moe_trainer import drift, snapshot
from moe_trainer.methods import checkpoint_format


def deliver(pool: Pool, expert: str, delivery: str, *, language: str = "", changed: int = 0) -> HoldoutRef:
    """Add documents to an Expert's sources, take a snapshot and return its newest window."""
    sources = pool.environment.sources
    assert sources is not None
    folder = sources / "corpora" / f"{expert}-{delivery}"
    if not folder.exists():
        write_domain(folder, language or expert, delivery=delivery, changed=changed)
    found = take(pool, expert, delivery)
    assert found.newest is not None
    return HoldoutRef(domain=expert, expert=expert, path=found.newest.path, digest=found.newest.digest)


def take(pool: Pool, expert: str, delivery: str) -> SnapshotHeadline:
    return snapshot.run(
        SnapshotJob(
            pool_uid="pool",
            expert=pool.experts[expert],
            sources=(Source(root="corpora", path=f"{expert}-{delivery}/*.txt", format="text"),),
            holdout=HoldoutRule(fraction=0.3, salt="tests"),
        ),
        pool.environment,
    )


def job(pool: Pool, expert: str, newest: HoldoutRef) -> DriftJob:
    return DriftJob(
        pool_uid="pool",
        expert=pool.experts[expert],
        model=pool.models[f"{expert}-1"],
        base=pool.models["general-1"],
        anchor=pool.anchors[expert],
        newest=newest,
        suite=tuple(pool.anchors.values()),
    )


def test_text_like_the_first_shows_no_drift_and_changed_text_does(own_pool: Pool) -> None:
    for delivery in ("second", "third"):
        newest = deliver(own_pool, "birds", delivery)
    same = drift.run(job(own_pool, "birds", newest), own_pool.environment)
    assert same.drift and same.drift.lower_bound < 0.01
    assert abs(same.drift.interval.value) < 0.03
    assert len(same.windows) == 2 and same.clusters >= 40
    assert same.nearest_domain == "birds"
    assert same.gain and same.gain.lower > 0.05
    assert not same.absent
    for delivery in ("fourth", "fifth", "sixth"):
        newest = deliver(own_pool, "birds", delivery, changed=8)
    changed = drift.run(job(own_pool, "birds", newest), own_pool.environment)
    assert len(changed.windows) == 4  # the last four of five
    assert changed.windows[0] == same.windows[1]
    assert changed.drift and changed.drift.lower_bound > 0.01
    assert changed.drift.interval.value > changed.drift.lower_bound
    assert len(changed.to_json().encode()) <= MAX_HEADLINE_BYTES


def test_text_of_another_domain_is_named(own_pool: Pool) -> None:
    for delivery in ("strange", "stranger"):
        newest = deliver(own_pool, "birds", delivery, language="metals")
    found = drift.run(job(own_pool, "birds", newest), own_pool.environment)
    assert found.nearest_domain == "metals"


def test_one_window_is_too_few_and_nothing_is_loaded(own_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = deliver(own_pool, "birds", "second")
    monkeypatch.setattr(checkpoint_format, "load", None)
    found = drift.run(job(own_pool, "birds", newest), own_pool.environment)
    assert found.drift is None
    assert found.absent["interval"].startswith("TooFewWindows: 1 ")


def test_a_job_run_again_repeats_itself_and_reuses_the_cells(
    own_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for delivery in ("second", "third"):
        newest = deliver(own_pool, "birds", delivery)
    asked = job(own_pool, "birds", newest)
    first = drift.run(asked, own_pool.environment)
    shutil.rmtree(own_pool.path(own_pool.models["birds-1"]).parent / "evaluations")
    monkeypatch.setattr(checkpoint_format, "load", None)  # nothing may be loaded: every cell is there
    assert drift.run(asked, own_pool.environment) == first


def test_a_window_that_vanished_is_named(own_pool: Pool) -> None:
    second = deliver(own_pool, "birds", "second")
    newest = deliver(own_pool, "birds", "third")
    shutil.rmtree(own_pool.path(second))
    with pytest.raises(JobError, match=f"ArtefactCorrupt: {own_pool.path(second).name}"):
        drift.run(job(own_pool, "birds", newest), own_pool.environment)


def test_a_window_that_the_list_does_not_have_is_too_few(own_pool: Pool) -> None:
    deliver(own_pool, "birds", "second")
    newest = deliver(own_pool, "birds", "third")
    listed = own_pool.environment.store / store.windows("pool", own_pool.experts["birds"].uid)
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    listed.write_text("".join(json.dumps(line) + "\n" for line in lines[:-1]))
    found = drift.run(job(own_pool, "birds", newest), own_pool.environment)
    assert found.absent["interval"].startswith("TooFewWindows: 0 ")
