"""Fill the full matrix of a pool of real (very small) models."""

import json

import pytest
from tests.trainer.evaluation.conftest import DOMAINS, Pool
from tests.trainer.evaluation.test_evaluate import job as evaluate_job

from moe_formats.format import digest_of
from moe_formats.job_config import MatrixJob
from moe_trainer import evaluate, matrix
from moe_trainer.methods import checkpoint_format


def job(pool: Pool) -> MatrixJob:
    names = ("general", *DOMAINS)
    models = [pool.models[f"{name}-1"] for name in names]
    return MatrixJob(
        pool_uid="pool",
        models=tuple(model.model_copy(update={"ancestry": ()}) for model in models),
        experts=tuple(pool.experts[name] for name in names),
        suite=tuple(pool.anchors[domain] for domain in DOMAINS),
        trained_on=tuple(sorted({snapshot.path for model in models for snapshot in model.ancestry})),
    )


def test_every_model_is_measured_on_every_domain_as_evaluations_measure_it(
    own_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = matrix.run(job(own_pool), own_pool.environment)
    text = (own_pool.environment.store / found.path).read_bytes()
    assert digest_of(text) == found.digest
    entries = json.loads(text)["entries"]
    assert found.cells == len(entries) == 12 and found.absent == 0
    bits = {(entry["expert"], entry["domain"]): entry["bitsPerByte"]["value"] for entry in entries}
    for domain in DOMAINS:
        headline = evaluate.run(
            evaluate_job(own_pool, domain, own_pool.models[f"{domain}-1"]), own_pool.environment
        )
        assert headline.row == {other: bits[domain, other] for other in DOMAINS}
        assert headline.base_row == {other: bits["general", other] for other in DOMAINS}
        assert min(DOMAINS, key=lambda name: bits[name, domain]) == domain
    monkeypatch.setattr(checkpoint_format, "load", None)  # nothing may be loaded: every cell is there
    assert matrix.run(job(own_pool), own_pool.environment) == found


def test_clusters_that_some_model_was_trained_on_are_left_out(own_pool: Pool) -> None:
    asked = job(own_pool)
    held_out = own_pool.anchors["metals"].path
    found = matrix.run(
        asked.model_copy(update={"trained_on": (*asked.trained_on, held_out)}), own_pool.environment
    )
    entries = json.loads((own_pool.environment.store / found.path).read_bytes())["entries"]
    absent = {entry["domain"] for entry in entries if "absent" in entry}
    assert absent == {"metals"} and found.absent == 4
