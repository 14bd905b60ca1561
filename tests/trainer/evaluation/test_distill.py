"""Distil a table from real cells, and let the gateway's own code score with it."""

import dataclasses
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from tests.trainer.evaluation.conftest import DOMAINS, Pool

from moe_formats import ngram_table
from moe_formats.failure import JobError
from moe_formats.format import digest_of
from moe_formats.job_config import Comparison, DistillJob, EvaluateJob
from moe_formats.job_report import DistillHeadline
from moe_trainer import distill, evaluate
from moe_trainer.distilling.examples import Segments
from moe_trainer.evaluation.segments import cut
from moe_trainer.snapshots.layout import read_documents

ROSTER = (*DOMAINS, "general")


def job(pool: Pool) -> DistillJob:
    return DistillJob(
        pool_uid="pool",
        roster=tuple(pool.models[f"{name}-1"] for name in ROSTER),
        experts=tuple(pool.experts[name] for name in ROSTER),
        suite=tuple(pool.anchors[domain] for domain in DOMAINS),
    )


@pytest.fixture(scope="session")
def scored_pool(pool: Pool) -> Pool:
    """The pool with every cell of its matrix filled."""
    for name in ROSTER:
        evaluate.run(
            EvaluateJob(
                pool_uid="pool",
                expert=pool.experts[name],
                revision=f"{name}-1",
                candidate=pool.models[f"{name}-1"],
                comparisons=(Comparison(holdout=pool.anchors[name], role="anchor"),),
                suite=tuple(pool.anchors[domain] for domain in DOMAINS),
            ),
            pool.environment,
        )
    return pool


@pytest.fixture(scope="session")
def headline(scored_pool: Pool) -> DistillHeadline:
    """What a distill Job reports."""
    return distill.run(job(scored_pool), scored_pool.environment)


def test_cells_of_the_other_size_make_no_table(scored_pool: Pool) -> None:
    asked = job(scored_pool).model_copy(update={"segment_bytes": 3968})
    with pytest.raises(JobError, match="CellsMissing"):
        distill.run(asked, scored_pool.environment)


def test_labels_of_long_segments_are_as_soft_for_each_256_bytes() -> None:
    nats_SE, sizes_S = np.array([[100.0, 108.0]]), np.array([256.0])
    short = Segments([b""], sizes_S, nats_SE, nats_SE, ["a"])
    shorter = dataclasses.replace(short, sizes_S=sizes_S / 2)
    long = dataclasses.replace(short, sizes_S=10 * sizes_S, nats_SE=10 * nats_SE)
    assert short.labels_SE.tolist() == shorter.labels_SE.tolist() == long.labels_SE.tolist()
    assert short.labels_SE[0, 0] == pytest.approx(1 / (1 + math.exp(-2)))


def test_the_route_lies_between_the_oracle_and_a_random_one(headline: DistillHeadline) -> None:
    oracle, routed, blind = (
        headline.oracle_bits_per_byte,
        headline.routed_bits_per_byte,
        headline.random_bits_per_byte,
    )
    assert oracle <= routed < oracle + 0.25 * (blind - oracle)
    assert headline.posterior_bits_per_byte and oracle <= headline.posterior_bits_per_byte < blind
    assert headline.accuracy > 0.8


def test_the_gateway_loads_the_table_and_sends_each_domain_to_its_expert(
    scored_pool: Pool, headline: DistillHeadline
) -> None:
    data = (scored_pool.environment.store / headline.path).read_bytes()
    assert digest_of(data) == headline.digest
    assert len(data) <= ngram_table.MAX_TABLE_BYTES
    table = ngram_table.load(data)
    for domain in DOMAINS:
        right = 0
        segments = cut(read_documents(scored_pool.path(scored_pool.anchors[domain])), 256)
        for segment in segments:
            probabilities = table.score(segment.text.decode())
            assert set(probabilities) == set(ROSTER)
            right += max(probabilities, key=probabilities.__getitem__) == domain
        assert right > 0.8 * len(segments)


def test_the_same_job_makes_the_same_table(scored_pool: Pool, headline: DistillHeadline) -> None:
    assert distill.run(job(scored_pool), scored_pool.environment) == headline


def test_a_holdout_that_some_expert_was_not_scored_on_is_left_out(
    scored_pool: Pool, headline: DistillHeadline
) -> None:
    unscored = scored_pool.anchors["general"]  # only general was scored on its own mixture
    asked = job(scored_pool)
    found = distill.run(asked.model_copy(update={"suite": (*asked.suite, unscored)}), scored_pool.environment)
    report = json.loads((scored_pool.environment.store / found.path).with_name("report.json").read_text())
    assert report["leftOut"] == ["general"]
    assert found.oracle_bits_per_byte == headline.oracle_bits_per_byte


def test_a_route_that_is_nearly_the_oracle_has_no_interval_and_a_table_all_the_same() -> None:
    clusters = 16
    nats_SE = np.array([[100.0, 200.0]] * clusters)
    segments = Segments(
        [b""] * clusters, np.full(clusters, 256.0), nats_SE, nats_SE, list(map(str, range(clusters)))
    )
    choice_S = np.zeros(clusters, dtype=np.intp)
    assert (best := segments.route(choice_S).against_oracle) and best.value == best.upper == 1
    choice_S[0] = 1
    route = segments.route(choice_S)
    assert route.against_oracle is None and route.absent and route.absent.startswith("NoSpread: ")
    assert route.accuracy == 15 / 16


def test_familiar_is_what_95_of_100_contexts_keep_to() -> None:
    """By hand: context n has 10 bytes and costs its better Expert n * 10 bits, and its choice is certain to (100 - n) %."""
    order = list(range(1, 101))
    context_nats_SE = np.array([[number * 10 * math.log(2), 1e6] for number in order])
    segments = Segments(
        [b"x" * 10] * 100, np.full(100, 256.0), context_nats_SE, context_nats_SE, list(map(str, order))
    )
    found = segments.familiar(np.array([[1 - number / 100, 0.0] for number in order]))
    assert found.bits_per_byte == pytest.approx(95.05)
    assert found.confidence == pytest.approx(0.0495, abs=1e-3)


def test_what_is_familiar_is_reported(headline: DistillHeadline) -> None:
    assert headline.familiar is not None and headline.familiar.bits_per_byte is not None
    assert 0 < headline.familiar.bits_per_byte < 8
    assert headline.familiar.confidence is not None and 0.25 <= headline.familiar.confidence < 1


def test_without_any_complete_column_it_says_who_must_be_evaluated(scored_pool: Pool) -> None:
    asked = job(scored_pool).model_copy(update={"suite": (scored_pool.anchors["general"],)})
    with pytest.raises(JobError, match=r"CellsMissing: .*birds-1.*Evaluate those revisions first"):
        distill.run(asked, scored_pool.environment)


def test_distilling_imports_no_torch() -> None:
    code = "import sys, moe_trainer.distill; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_altered_training_text_is_refused(scored_pool: Pool) -> None:
    documents = scored_pool.path(scored_pool.snapshots["birds"]) / "documents.jsonl"
    before = documents.read_bytes()
    try:
        documents.write_bytes(before + b"\n")
        with pytest.raises(JobError, match=r"ArtefactCorrupt: .*documents\.jsonl"):
            distill.run(job(scored_pool), scored_pool.environment)
    finally:
        documents.write_bytes(before)
