"""lm-evaluation-harness, unmodified, measures the pool's Experts: its figures are those of transformers on the same weights.

The tasks and their data are written here. The harness splits and tokenizes texts itself, so what is checked is every
likelihood that it reads from answers, and what it makes of them.
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from .conftest import KEY, Pool, Reference

CONTEXT = 512
CHOICES = [
    {"question": "The operator", "choices": [" writes one policy", " = None", " |"], "answer": 0},
    {"question": "class Expert", "choices": ["(Format):", " is a model", ":\n"], "answer": 0},
    {"question": "A revision is a set of inputs.", "choices": [" That is all.", ",", " and"], "answer": 0},
]
TEXTS = [
    {"text": "Every change of weights is a revision.\n"},
    {"text": "größer: 漢字 🙂, and an empty line\n\nafter it"},
    {"text": "A pool has a gateway, which sends each request to one of its Experts. " * 40},
]
PROMPTS = [{"prompt": "The operator", "said": ""}, {"prompt": "    def text(self)", "said": ""}]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> TaskManager:
    """The harness's tasks: a choice by likelihood, perplexity, and generation."""
    folder = tmp_path_factory.mktemp("tasks")
    choose = {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }
    perplexity = {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}, {"metric": "byte_perplexity"}],
    }
    generate = {
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{said}}",
        "generation_kwargs": {"until": ["\n\n", "|"], "max_gen_toks": 24, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    }
    for name, task, documents in (
        ("choose", choose, CHOICES),
        ("perplexity", perplexity, TEXTS),
        ("generate", generate, PROMPTS),
    ):
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(document) + "\n" for document in documents))
        source = {"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(source | {"test_split": "test"} | task))
    return TaskManager(include_path=str(folder), include_defaults=False)


@pytest.fixture
def measured(pool: Pool, tasks: TaskManager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a function that runs a task as the command `lm_eval` does, and returns its results and samples."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(
        task: str, model: str = "local-completions", **arguments: Any
    ) -> tuple[dict[str, float], list[Any]]:
        endpoint = "chat/completions" if "chat" in model else "completions"
        given = {
            "model": "prose",
            "base_url": f"{pool.base_url}/{endpoint}",
            "max_length": CONTEXT,
            "max_retries": 1,
        }
        if "chat" not in model:
            given["tokenizer"] = pool.tokenizer("prose")
        done = simple_evaluate(
            model=model,
            model_args=given | arguments,
            tasks=[task],
            task_manager=tasks,
            bootstrap_iters=0,
            apply_chat_template="chat" in model,
        )
        assert done is not None
        return done["results"][task], sorted(done["samples"][task], key=lambda sample: sample["doc_id"])

    return run


def _likelihood(reference: Reference, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    """Return the log-likelihood of a continuation, and whether it is the most probable one."""
    scored = reference.logprobs("prose", [*context, *continuation])[-len(continuation) :]
    greedy = all(entry["top"][0][0] == id for entry, id in zip(scored, continuation, strict=True))
    return sum(entry["logprob"] for entry in scored), greedy


@pytest.mark.parametrize(
    "arguments", [{}, {"batch_size": 3}, {"tokenized_requests": False}, {"num_concurrent": 4}]
)
def test_likelihoods_of_choices_are_the_models(
    measured: Any, reference: Reference, arguments: dict[str, Any]
) -> None:
    results, samples = measured("choose", **arguments)
    right = 0
    # Ids are literal, so there is no token that begins a text unless the harness sends it; a text is read after that token.
    begin = [0] if arguments.get("tokenized_requests") is False else []
    for document, sample in zip(CHOICES, samples, strict=True):
        context = reference.encode("prose", document["question"])
        expected = []
        for choice, ((got, greedy),) in zip(document["choices"], sample["resps"], strict=True):
            whole = reference.encode("prose", document["question"] + choice)
            likelihood, is_greedy = _likelihood(
                reference, begin + whole[: len(context)], whole[len(context) :]
            )
            assert float(got) == pytest.approx(likelihood, rel=2e-6, abs=2e-6)
            assert (greedy in (True, "True")) == is_greedy
            expected.append(likelihood)
        right += max(range(len(expected)), key=expected.__getitem__) == document["answer"]
    assert results["acc,none"] == pytest.approx(right / len(CHOICES))


def test_a_likelihood_is_right_where_the_text_ends(measured: Any, reference: Reference) -> None:
    """The harness lets one token be generated and drops it, so it has to have an entry also where it is the end."""
    _, samples = measured("choose", custom_prefix_token_id=0)
    ends = 0
    for document, sample in zip(CHOICES, samples, strict=True):
        for choice, ((got, _),) in zip(document["choices"], sample["resps"], strict=True):
            whole = reference.encode("prose", document["question"] + choice)
            following = reference.greedy("prose", whole, 1)
            ends += following["ended"]
            context = len(reference.encode("prose", document["question"]))
            assert float(got) == pytest.approx(
                _likelihood(reference, whole[:context], whole[context:])[0], rel=2e-6, abs=2e-6
            )
    assert ends, "no choice is followed by the end, so this test would test nothing"


def test_perplexity_is_the_models_over_the_harnesss_windows(measured: Any, reference: Reference) -> None:
    results, _ = measured("perplexity")
    nats, size = 0.0, 0
    for document in TEXTS:
        text = document["text"]
        # The harness leaves room for the token that it has generated, and for the one that a window begins with.
        windows = get_rolling_token_windows(
            token_list=reference.encode("prose", text), prefix_token=0, max_seq_len=CONTEXT - 2, context_len=1
        )
        for window in windows:
            context, continuation = make_disjoint_window(window)
            nats += _likelihood(reference, list(context), list(continuation))[0]
        size += len(text.encode())
    assert results["bits_per_byte,none"] == pytest.approx(-nats / size / math.log(2), rel=2e-6)
    assert results["byte_perplexity,none"] == pytest.approx(math.exp(-nats / size), rel=2e-6)


def test_generations_are_the_greedy_ones_up_to_where_they_should_end(
    measured: Any, reference: Reference
) -> None:
    _, samples = measured("generate")
    for document, sample in zip(PROMPTS, samples, strict=True):
        ids = reference.encode("prose", document["prompt"])
        assert sample["resps"][0][0] == _until(reference.greedy("prose", ids, 24)["text"])


def test_chats_are_generated_after_the_templates_prompt(measured: Any, reference: Reference) -> None:
    _, samples = measured("generate", model="local-chat-completions", eos_string="<|end|>")
    for document, sample in zip(PROMPTS, samples, strict=True):
        ids = reference.chat("prose", [{"role": "user", "content": document["prompt"]}])
        assert sample["resps"][0][0] == _until(reference.greedy("prose", ids, 24)["text"])


def _until(text: str) -> str:
    return min((text.split(stop, 1)[0] for stop in ("\n\n", "|")), key=len)
