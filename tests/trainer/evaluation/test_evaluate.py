"""Evaluate real (very small) models on real snapshots."""

import shutil
from pathlib import Path

import pytest
import torch
from tests.trainer.evaluation.conftest import CONFIG, DOMAINS, Pool

from moe_formats.failure import JobError
from moe_formats.job_config import ArtefactRef, Comparison, EvaluateJob
from moe_formats.job_report import MAX_HEADLINE_BYTES, Decision, EvaluateHeadline
from moe_trainer import evaluate
from moe_trainer.evaluation import scorer
from moe_trainer.evaluation.matrix import Cell, Matrix
from moe_trainer.evaluation.report import EvaluationReport
from moe_trainer.evaluation.segments import cut
from moe_trainer.methods import checkpoint_format
from moe_trainer.models.preset_model import Model
from moe_trainer.snapshots.layout import read_documents
from moe_trainer.storage.committing import new_folder


def job(pool: Pool, expert: str, candidate: ArtefactRef, **changes: object) -> EvaluateJob:
    asked = {
        "pool_uid": "pool",
        "expert": pool.experts[expert],
        "revision": candidate.revision,
        "candidate": candidate,
        "base": pool.models["general-1"] if expert != "general" else None,
        "comparisons": (Comparison(holdout=pool.anchors[expert], role="anchor"),),
        "suite": tuple(pool.anchors[domain] for domain in DOMAINS),
    }
    return EvaluateJob.model_validate(asked | changes)


def recommit(folder: Path) -> None:
    """Write a folder's manifest anew after a test has altered its files."""
    copied = folder.rename(folder.with_name("altered"))
    (copied / "manifest.json").unlink()
    with new_folder(folder.parent, folder.name, "snapshot") as working:
        shutil.copytree(copied, working, dirs_exist_ok=True)


def decision(headline: EvaluateHeadline) -> Decision:
    (found,) = headline.decisions
    return found


def test_an_expert_is_better_than_its_base_on_its_own_domain_and_specialised(pool: Pool) -> None:
    headline = evaluate.run(job(pool, "birds", pool.models["birds-1"]), pool.environment)
    assert decision(headline).against == "base"
    assert decision(headline).upper < -headline.delta
    assert headline.gain and headline.gain.lower > 0.05
    assert headline.gain.value == pytest.approx(-decision(headline).interval.value)
    assert headline.specialization_score and headline.specialization_score.lower > 0.8
    assert headline.forgetting and headline.forgetting.lower > 0
    share = headline.next_byte_interval
    assert share and 0.1 < share.lower < share.value < share.upper < 1
    assert headline.next_byte_accuracy == share.value
    assert headline.row.keys() == headline.base_row.keys() == set(DOMAINS)
    assert headline.row["birds"] < headline.base_row["birds"]
    assert not headline.absent
    assert len(headline.to_json().encode()) <= MAX_HEADLINE_BYTES


def test_contamination_is_unknown_where_that_of_any_side_is(pool: Pool) -> None:
    candidate, base = pool.models["birds-1"], pool.models["general-1"]
    imported = base.model_copy(update={"contamination": "Unknown"})
    known = evaluate.run(job(pool, "birds", candidate), pool.environment)
    unknown = evaluate.run(job(pool, "birds", candidate, base=imported), pool.environment)
    against = evaluate.run(job(pool, "birds", candidate, current=imported), pool.environment)
    assert (known.contamination, unknown.contamination, against.contamination) == (None, "Unknown", "Unknown")
    assert (
        unknown.decisions == known.decisions and unknown.row == known.row
    )  # it is said, and decides nothing


def test_a_first_base_is_compared_with_a_byte_unigram_model(pool: Pool) -> None:
    headline = evaluate.run(job(pool, "general", pool.models["general-1"]), pool.environment)
    assert decision(headline).against == "unigram"
    assert decision(headline).upper < -headline.delta
    assert headline.gain is None and headline.absent["gain"].startswith("NoBase")
    assert headline.specialization_score is None and headline.absent["specializationScore"].startswith(
        "Mixture"
    )


def test_a_candidate_equal_to_the_current_one_shows_no_difference_at_all(pool: Pool) -> None:
    model = pool.models["metals-1"]
    found = decision(evaluate.run(job(pool, "metals", model, current=model), pool.environment))
    assert (found.against, found.interval.value, found.upper) == ("current", 0.0, 0.0)


def test_another_domains_model_is_worse_than_the_current_one(pool: Pool) -> None:
    asked = job(pool, "metals", pool.models["birds-1"], current=pool.models["metals-1"])
    headline = evaluate.run(asked, pool.environment)
    assert decision(headline).interval.lower > headline.delta
    assert headline.specialization_score is None and headline.absent["specializationScore"].startswith(
        "NoGain"
    )


def test_scoring_twice_gives_the_same_bits(pool: Pool) -> None:
    model, tokenizer = checkpoint_format.load(
        pool.path(pool.models["birds-1"]), pool.models["birds-1"].digest
    )
    segments = cut(read_documents(pool.path(pool.anchors["birds"])), 256)
    key = Matrix(pool.environment.store, "pool", 256).key(pool.models["birds-1"], pool.anchors["birds"])
    assert scorer.score(model, tokenizer, segments, key) == scorer.score(model, tokenizer, segments, key)


def test_scores_are_the_likelihood_of_the_bytes_one_by_one(pool: Pool) -> None:
    model, tokenizer = checkpoint_format.load(pool.path(pool.models["birds-1"]), None)
    segment = cut(read_documents(pool.path(pool.anchors["birds"])), 256)[3]
    key = Matrix(pool.environment.store, "pool", 256).key(pool.models["birds-1"], pool.anchors["birds"])
    before, nats = [tokenizer.bos_id, *segment.context], 0.0
    with torch.inference_mode():
        for byte in segment.text:
            nats -= float(torch.log_softmax(model(torch.tensor([before]))[0, -1].double(), -1)[byte])
            before.append(byte)
    assert scorer.score(model, tokenizer, [segment], key).nats[0] == pytest.approx(nats, rel=1e-5)


def test_a_job_run_again_repeats_itself_and_reuses_the_cells(
    own_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = job(own_pool, "rivers", own_pool.models["rivers-1"])
    first = evaluate.run(asked, own_pool.environment)
    shutil.rmtree(own_pool.path(own_pool.models["rivers-1"]).parent / "evaluations")
    monkeypatch.setattr(checkpoint_format, "load", None)  # nothing may be loaded: every cell is there
    assert evaluate.run(asked, own_pool.environment) == first  # renewed from the cells
    assert evaluate.run(asked, own_pool.environment) == first  # repeated from the report


def test_a_job_killed_half_way_goes_on_from_its_cells(
    own_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = job(own_pool, "rivers", own_pool.models["rivers-1"])
    scored: list[str] = []
    whole = scorer.score

    def score(*arguments: object) -> Cell:
        if len(scored) == 4:
            raise KeyboardInterrupt  # stands for a kill: nothing after it runs
        cell = whole(*arguments)  # type: ignore[arg-type]
        scored.append(cell.key.content_digest())
        return cell

    monkeypatch.setattr(scorer, "score", score)
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(asked, own_pool.environment)
    before_the_kill = scored.copy()
    scored.clear()
    found = evaluate.run(asked, own_pool.environment)
    assert len(scored) == 2 and not set(scored) & set(before_the_kill)
    shutil.rmtree(own_pool.environment.store / "pools/pool/cells")
    shutil.rmtree(own_pool.path(own_pool.models["rivers-1"]).parent / "evaluations")
    monkeypatch.setattr(scorer, "score", whole)
    assert evaluate.run(asked, own_pool.environment) == found  # as if it had never been killed


def test_of_two_experts_on_one_domain_the_first_anchor_stands_for_both(pool: Pool) -> None:
    alone = evaluate.run(job(pool, "birds", pool.models["birds-1"]), pool.environment)
    twin = pool.anchors["general"].model_copy(update={"domain": "metals"})
    suite = (*(pool.anchors[domain] for domain in DOMAINS), twin)
    beside = evaluate.run(job(pool, "birds", pool.models["birds-1"], suite=suite), pool.environment)
    assert beside.specialization_score == alone.specialization_score
    assert beside.forgetting == alone.forgetting
    assert beside.suite != alone.suite


def with_context(pool: Pool, model: ArtefactRef, tokens: int) -> ArtefactRef:
    """Commit a model again as one that sees so many tokens."""
    loaded, tokenizer = checkpoint_format.load(pool.path(model), model.digest)
    longer = Model(CONFIG.model_copy(update={"max_position_embeddings": tokens}))
    longer.load_state_dict(loaded.state_dict())
    path = f"{model.path}-sees-{tokens}"
    digest = checkpoint_format.write(pool.environment.store, path, longer, tokenizer, "{}")
    return model.model_copy(update={"path": path, "digest": digest})


def test_a_pool_of_long_segments_is_measured_on_them_and_on_no_others(own_pool: Pool) -> None:
    models = {
        name: with_context(own_pool, own_pool.models[f"{name}-1"], 4096) for name in ("birds", "general")
    }
    asked = job(own_pool, "birds", models["birds"], base=models["general"])
    long = asked.model_copy(update={"segment_bytes": 3968})
    short_bits, long_bits = (evaluate.run(each, own_pool.environment).row["birds"] for each in (asked, long))
    assert evaluate.run(asked, own_pool.environment).row["birds"] == short_bits != long_bits
    cells = {size: Matrix(own_pool.environment.store, "pool", size) for size in (256, 3968)}
    found = {
        size: matrix.read(matrix.key(models["birds"], own_pool.anchors["birds"]))
        for size, matrix in cells.items()
    }
    short, whole = found[256], found[3968]
    assert short and whole and max(short.sizes) == 256 < max(whole.sizes)
    assert len(whole.nats) == len(list(read_documents(own_pool.path(own_pool.anchors["birds"]))))
    reports = {
        EvaluationReport.model_validate_json(path.read_text()).scorer
        for path in own_pool.path(models["birds"]).parent.glob("evaluations/*/report.json")
    }
    assert reports == {"bytes-128+256-of-256-v2", "bytes-128+3968-of-256-v2"}


def test_a_model_that_cannot_see_long_segments_is_not_measured_on_them(own_pool: Pool) -> None:
    asked = job(own_pool, "birds", own_pool.models["birds-1"], segment_bytes=3968)
    with pytest.raises(JobError, match=r"ContextTooShort: the model's context is 384 tokens"):
        evaluate.run(asked, own_pool.environment)


def test_a_damaged_cell_is_filled_again(own_pool: Pool) -> None:
    asked = job(own_pool, "rivers", own_pool.models["rivers-1"])
    first = evaluate.run(asked, own_pool.environment)
    cells = sorted((own_pool.environment.store / "pools/pool/cells").iterdir())
    cells[0].write_text(cells[0].read_text().replace("1", "2", 5))
    cells[1].write_bytes(cells[1].read_bytes()[:100])
    shutil.rmtree(own_pool.path(own_pool.models["rivers-1"]).parent / "evaluations")
    assert evaluate.run(asked, own_pool.environment) == first


def test_altered_weights_are_refused_before_anything_is_scored(own_pool: Pool) -> None:
    weights = own_pool.path(own_pool.models["birds-1"]) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x55")
    with pytest.raises(JobError, match=r"ArtefactCorrupt: .*model\.safetensors"):
        evaluate.run(job(own_pool, "birds", own_pool.models["birds-1"]), own_pool.environment)
    assert not (own_pool.environment.store / "pools/pool/cells").exists()


def test_clusters_that_a_side_was_trained_on_are_left_out(own_pool: Pool) -> None:
    contaminated = own_pool.models["birds-1"].model_copy(
        update={"ancestry": (*own_pool.models["birds-1"].ancestry, own_pool.snapshots["metals"])}
    )
    anchor, trained_on = own_pool.anchors["metals"], own_pool.path(own_pool.snapshots["metals"])
    fingerprints = (own_pool.path(anchor) / "fingerprints.jsonl").read_text().splitlines()
    with (trained_on / "fingerprints.jsonl").open("a") as file:
        file.write("\n".join(fingerprints[: len(fingerprints) // 2]) + "\n")
    recommit(trained_on)
    headline = evaluate.run(job(own_pool, "birds", contaminated), own_pool.environment)
    assert "metals" not in headline.row  # fewer than 20 clean clusters are left
    assert headline.absent["specializationScore"].startswith("HoldoutTooSmall")
