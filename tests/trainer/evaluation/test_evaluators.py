"""Put tasks to real (very small) models: one letter of a language follows another, and they have learnt which."""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from tests.trainer.evaluation.conftest import LETTERS, Pool
from tests.trainer.evaluation.test_evaluate import job

from moe_formats.evaluator_source import EvaluatorSource
from moe_formats.job_config import TasksRef
from moe_formats.job_report import MAX_HEADLINE_BYTES, Accuracy, EvaluateHeadline
from moe_trainer import evaluate
from moe_trainer.evaluators import tasks
from moe_trainer.evaluators.generation import complete
from moe_trainer.methods import checkpoint_format


def following(domain: str) -> dict[str, str]:
    """Return which letter follows which in a domain's language (conftest.write_domain)."""
    return dict(zip(LETTERS, random.Random(domain).sample(LETTERS, len(LETTERS)), strict=True))


def frozen(pool: Pool, path: Path, domain: str, **changes: object) -> TasksRef:
    """Freeze items that ask for the likeliest next letter after a word."""
    draw = random.Random(0)
    lines = []
    for number in range(60):
        word = " ".join("".join(draw.choices(LETTERS, k=3)) for _ in range(4))
        lines.append({"prompt": word, "answer": following(domain)[word[-1]], "cluster": number % 30})
    (path / "tasks").mkdir(exist_ok=True)
    (path / "tasks" / "letters.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    given = {"name": "letters", "measure": "exactMatch", "root": "tasks", "path": "*.jsonl", "max_tokens": 1}
    environment = pool.environment.__class__(store=pool.environment.store, sources=path)
    made = tasks.freeze(EvaluatorSource.model_validate(given | changes), "pool", environment)
    return TasksRef(evaluator=made.evaluator, path=made.path, digest=made.digest)


def accuracy(headline: EvaluateHeadline) -> Accuracy:
    (found,) = headline.accuracies
    return found


def test_an_expert_is_more_accurate_than_its_base_on_its_own_tasks(own_pool: Pool, tmp_path: Path) -> None:
    asked = frozen(own_pool, tmp_path, "birds")
    headline = evaluate.run(
        job(own_pool, "birds", own_pool.models["birds-1"], tasks=(asked,)), own_pool.environment
    )
    found = accuracy(headline)
    assert (found.evaluator, found.items, found.against) == ("letters", 60, "base")
    assert found.accuracy.clusters == 30
    assert found.accuracy.lower > 0.5
    assert found.difference and found.difference.lower > 0.2
    assert len(headline.to_json().encode()) <= MAX_HEADLINE_BYTES


def test_another_domains_expert_is_inferior_by_the_same_tasks(own_pool: Pool, tmp_path: Path) -> None:
    asked = frozen(own_pool, tmp_path, "metals")
    judged = job(
        own_pool,
        "metals",
        own_pool.models["birds-1"],
        current=own_pool.models["metals-1"],
        tasks=(asked,),
    )
    found = accuracy(evaluate.run(judged, own_pool.environment))
    assert found.against == "current"
    assert found.difference and found.difference.upper < -0.2


def test_answers_are_kept_and_a_job_run_again_loads_nothing(
    own_pool: Pool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = job(
        own_pool, "rivers", own_pool.models["rivers-1"], tasks=(frozen(own_pool, tmp_path, "rivers"),)
    )
    first = evaluate.run(asked, own_pool.environment)
    shutil.rmtree(own_pool.path(own_pool.models["rivers-1"]).parent / "evaluations")
    monkeypatch.setattr(checkpoint_format, "load", None)
    assert evaluate.run(asked, own_pool.environment) == first


def test_a_prompt_too_long_for_the_model_costs_this_score_and_no_other(
    own_pool: Pool, tmp_path: Path
) -> None:
    asked = frozen(own_pool, tmp_path, "birds", max_tokens=1000)
    headline = evaluate.run(
        job(own_pool, "birds", own_pool.models["birds-1"], tasks=(asked,)), own_pool.environment
    )
    assert not headline.accuracies
    assert headline.absent["accuracy.letters"].startswith("ContextTooShort")
    assert headline.gain is not None


def test_completions_are_those_of_one_prompt_at_a_time_without_a_cache(pool: Pool) -> None:
    model, tokenizer = checkpoint_format.load(pool.path(pool.models["birds-1"]), None)
    prompts = ["abc d", "", "ponm ab", "a"]
    made = complete(model, tokenizer, prompts, 12, [" "])
    for prompt, completion in zip(prompts, made, strict=True):
        ids = [tokenizer.bos_id, *tokenizer.encode(prompt)]
        written: list[int] = []
        while len(written) < 12 and 32 not in written:
            with torch.no_grad():
                logits_V = model(torch.tensor([[*ids, *written]]))[0, -1]
            logits_V[sorted(model.never_ids)] = -torch.inf
            written.append(int(logits_V.argmax()))
            if written[-1] == tokenizer.eos_id:
                break
        text = tokenizer.decode(written)
        assert completion.text == text.partition(" ")[0]
        assert completion.cut == (len(written) == 12 and " " not in text)
