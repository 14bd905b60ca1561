"""A curriculum: which sources are read how often, and the trials that it has to win."""

import random
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from moe_formats.failure import JobError, TransientError
from moe_formats.job_config import ArtefactRef, ExpertRef, HoldoutRule, SnapshotJob, Source
from moe_formats.training_spec import TrainingSpec
from moe_trainer import snapshot, train
from moe_trainer.environment import Environment
from moe_trainer.methods import checkpoint_format
from moe_trainer.models.preset_model import Model
from moe_trainer.streaming import tokens
from moe_trainer.streaming.batches import Batches, Phase
from moe_trainer.streaming.tokens import TokenStream
from moe_trainer.text.tokenizer import ByteTokenizer
from moe_trainer.training import curriculum as curriculum_module
from moe_trainer.training import trial as trial_module
from moe_trainer.training.curriculum import Curriculum, CurriculumState, Measured, Trial, paired, reweighted
from moe_trainer.training.run import Run, prepare
from moe_trainer.training.step import take_step

from .conftest import Pool

Write = Callable[[int], str]

#: Two validations before the end, so that trials begin at steps 4 and 8.
RULE = {"curriculum": {"rate": 4.0}}


@pytest.fixture
def pool(tmp_path: Path, small_model: Model, text: Write, monkeypatch: pytest.MonkeyPatch) -> Pool:
    """Two sources of one weight: sentences, and lines of digits that are harder to learn."""
    monkeypatch.setattr(tokens, "VALIDATION_SHARE", 0.4)
    draw = random.Random(0)
    digits = ["".join(draw.choices("0123456789\n", k=700)) for _ in range(60)]
    return made(tmp_path, small_model, {"sentences": [text(n) for n in range(60)], "digits": digits})


def made(root: Path, model: Model, sources: dict[str, list[str]], *, weights: bool = True) -> Pool:
    for name, texts in sources.items():
        (root / "sources" / name).mkdir(parents=True)
        for number, text in enumerate(texts):
            (root / "sources" / name / f"{number}.txt").write_text(text)
    job = SnapshotJob(
        pool_uid="pool-uid",
        expert=ExpertRef(name="prose", uid="prose-uid"),
        sources=tuple(
            Source(root=name, path="*.txt", format="text", weight=1.0 if weights else None)
            for name in sources
        ),
        holdout=HoldoutRule(fraction=0.1, salt="salt"),
    )
    (root / "store").mkdir()
    data = snapshot.run(job, Environment(store=root / "store", sources=root / "sources"))
    digest = checkpoint_format.write(root / "store", "parent", model, ByteTokenizer(), "{}")
    return Pool(root, data, ArtefactRef(revision="general-1", path="parent", digest=digest))


def decided(monkeypatch: pytest.MonkeyPatch, outcomes: dict[int, bool]) -> None:
    """Have trials end as given by the step at which they begin, whatever was measured."""

    def compared(self: Curriculum, step: int, *_: object) -> Trial:
        return Trial(step=step, source="source-0", clusters=20, difference=0, upper=0, used=outcomes[step])

    monkeypatch.setattr(Curriculum, "compared", compared)
    monkeypatch.setattr(curriculum_module, "MIN_CLUSTERS", 1)


def moving_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have weights move by every difference, as they would after more steps than a test takes."""

    def excess(self: Curriculum, state: CurriculumState, _step: int) -> list[float]:
        pairs = zip(self.measured, state.reference, strict=True)
        return [now.bits_per_byte - before.bits_per_byte for now, before in pairs]

    monkeypatch.setattr(Curriculum, "_provable_excess", excess)


# -- weights


def by_bisection(raw: list[float], floors: list[float]) -> list[float]:
    """Return max(floor, c * raw) with the c for which their sum is 1: what the weights are, found another way."""
    low, high = 0.0, 1 / min(raw)
    for _ in range(200):
        middle = (low + high) / 2
        if sum(max(floor, middle * value) for value, floor in zip(raw, floors, strict=True)) < 1:
            low = middle
        else:
            high = middle
    return [max(floor, low * value) for value, floor in zip(raw, floors, strict=True)]


@pytest.mark.parametrize("seed", range(30))
def test_weights_are_the_softmax_with_floors(seed: int) -> None:
    draw = random.Random(seed)
    count = draw.randint(2, 8)
    stratified = [draw.uniform(0.1, 1) for _ in range(count)]
    stratified = [value / sum(stratified) for value in stratified]
    weights, excess = stratified, [draw.gauss(0, 5) for _ in range(count)]
    rate, floor = draw.choice([0.1, 1.0]), draw.choice([0.0, 0.5, 1.0])
    found = reweighted(weights, excess, rate, [floor * share for share in stratified])
    exact = np.exp(np.log(weights) + rate * np.array(excess))
    assert found == pytest.approx(
        by_bisection(list(exact / exact.sum()), [floor * share for share in stratified]), abs=1e-9
    )
    assert sum(found) == pytest.approx(1)
    assert all(weight >= floor * share - 1e-12 for weight, share in zip(found, stratified, strict=True))


def test_sources_that_are_learnt_alike_keep_their_weights() -> None:
    weights: tuple[float, ...] = (0.25, 0.25, 0.5)
    for _ in range(100):
        weights = reweighted(weights, [-0.7] * 3, 0.1, [0.125, 0.125, 0.25])
    assert weights == pytest.approx((0.25, 0.25, 0.5))


def test_a_difference_that_may_be_chance_moves_no_weight(pool: Pool) -> None:
    run = prepare(pool.job(curriculum={}), pool.store)
    curriculum, draw = run.curriculum, np.random.default_rng(0)
    assert curriculum is not None
    for slice in curriculum._slices:
        object.__setattr__(slice, "documents", list(range(24)))

    def measured(mean: float) -> Measured:
        return Measured(nats=tuple(draw.normal(mean, 5, 24).tolist()), bytes=(64,) * 24)

    curriculum.measured = [measured(100), measured(100)]
    state = curriculum.begun(run.batches)
    curriculum.measured = [measured(80), measured(81)]
    assert curriculum.moved(state, run.batches, 4).weights == pytest.approx((0.5, 0.5))
    curriculum.measured = [measured(80), measured(95)]
    assert curriculum.moved(state, run.batches, 4).weights[1] > 0.503


# -- batches


def test_when_shares_change_each_stream_is_read_on_from_where_it_was() -> None:
    def stream(first: int) -> TokenStream:
        return TokenStream(torch.arange(first, first + 1001, dtype=torch.int16), share=0.5)

    changing = Batches(stream(0), stream(10_000), context=10, batch_tokens=80, seed=0)
    constant = Batches(stream(0), stream(10_000), context=10, batch_tokens=80, seed=0)
    blocks: dict[bool, list[list[int]]] = {False: [], True: []}
    taken = []
    for step in range(30):
        if step in (5, 12):
            changing.change(step, (0.75, 0.25) if step == 5 else (0.25, 0.75))
        rows = changing.batch(step).tolist()
        taken.append(sum(row[0] >= 10_000 for row in rows))
        for row in rows:
            blocks[row[0] >= 10_000].append(row)
    assert (taken[:5], taken[5:12], taken[12:]) == ([4] * 5, [2] * 7, [6] * 18)
    expected: dict[bool, list[list[int]]] = {False: [], True: []}
    for step in range(60):
        for row in constant.batch(step).tolist():
            expected[row[0] >= 10_000].append(row)
    for second in (False, True):
        assert blocks[second] == expected[second][: len(blocks[second])]
    read = [len(blocks[second]) * 10 / 1000 for second in (False, True)]
    assert changing.passes(30) == pytest.approx(read)
    again = Batches(stream(0), stream(10_000), context=10, batch_tokens=80, seed=0)
    again.enter(Phase.model_validate_json(changing.phase.to_json()))
    assert torch.equal(again.batch(29), changing.batch(29))


# -- trials


def test_a_trial_that_is_lost_leaves_no_trace(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    decided(monkeypatch, {4: False, 8: False})
    tried = pool.report(pool.train(pool.job(**RULE)))
    plain_made = pool.train(pool.job(run="plain"))
    plain = pool.report(plain_made)
    assert [trial["step"] for trial in tried["curriculum"]["trials"]] == [4, 8]
    assert tried["losses"] == plain["losses"]
    assert tried["validations"] == plain["validations"]
    assert tried["loads"] == plain["loads"]
    assert pool.weights(pool.train(pool.job(**RULE))) == pool.weights(plain_made)


def test_a_trial_that_is_won_is_the_run_with_these_weights(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided(monkeypatch, {4: True, 8: False})
    moving_at_once(monkeypatch)
    seen: list[Phase] = []
    real = trial_module.take_step

    def watched(run: Run) -> float | None:
        seen.append(run.batches.phase)
        return real(run)

    monkeypatch.setattr(trial_module, "take_step", watched)
    report = pool.report(pool.train(pool.job(**RULE)))
    (plain, tried) = (seen[0], seen[4])
    assert (plain.first, tried.first) == (0, 4 * 4)
    assert tried.shares != plain.shares == (0.5, 0.5)
    assert report["curriculum"]["used"] is False  # the second trial was lost

    reference = prepare(pool.job(run="by hand"), pool.store)
    for step in range(8):
        if step == 4:
            reference.batches.change(4, tried.shares)
        reference.curve.losses.append(take_step(reference))
    assert report["losses"][:8] == reference.curve.losses


def test_the_source_that_is_learnt_least_is_read_more_but_none_below_its_floor(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided(monkeypatch, {4: True, 8: True, 16: True, 32: True})
    report = pool.report(pool.train(pool.job(max_steps=48, learning_rate=0.03, **RULE)))
    state = report["curriculum"]
    assert state["used"] is True
    assert sum(state["weights"]) == pytest.approx(1)
    assert min(state["weights"]) >= 0.25
    assert max(state["weights"]) > 0.6


def test_it_is_used_only_where_the_worst_source_is_provably_better(pool: Pool) -> None:
    documents = [n // 2 for n in range(60)]
    draw = np.random.default_rng(0)

    def measured(nats: list[float]) -> Measured:
        return Measured(nats=tuple(nats), bytes=(50,) * 60)

    before = measured(draw.normal(100, 5, 60).tolist())
    better = measured(
        [nats - 3 + noise for nats, noise in zip(before.nats, draw.normal(0, 1, 60), strict=True)]
    )
    noisy = measured(
        [nats - 0.1 + noise for nats, noise in zip(before.nats, draw.normal(0, 5, 60), strict=True)]
    )
    run = prepare(pool.job(**RULE), pool.store)
    assert run.curriculum is not None
    slice = run.curriculum._slices[0]
    object.__setattr__(slice, "documents", documents)
    found = run.curriculum.compared(4, 0, [before], [better])
    expected = (sum(better.nats) - sum(before.nats)) / np.log(2) / (50 * 60)
    assert found.difference == pytest.approx(expected)
    assert found.clusters == 30
    assert found.used and found.upper is not None and found.difference < found.upper < 0
    assert not run.curriculum.compared(4, 0, [before], [noisy]).used
    assert not run.curriculum.compared(4, 0, [before], [before]).used


def test_differences_are_summed_by_document() -> None:
    before, after = (Measured(nats=nats, bytes=(10, 10, 20)) for nats in ((1, 2, 3), (2, 2, 1)))
    ratio = paired([3, 3, 7], before, after)
    assert ratio.numerators_G.tolist() == pytest.approx([1 / np.log(2), -2 / np.log(2)])
    assert ratio.denominators_G.tolist() == [20, 20]


def test_with_too_few_documents_nothing_is_tried(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curriculum_module, "MIN_CLUSTERS", 1000)
    report = pool.report(pool.train(pool.job(**RULE)))
    trials = report["curriculum"]["trials"]
    assert [(trial["step"], trial["used"]) for trial in trials] == [(4, False), (8, False)]
    assert all("difference" not in trial and 1 < trial["clusters"] < 1000 for trial in trials)
    assert report["losses"] == pool.report(pool.train(pool.job(run="plain")))["losses"]


def test_identical_sources_keep_weights_within_a_tenth_of_uniform(
    tmp_path: Path, small_model: Model, text: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "VALIDATION_SHARE", 0.4)
    names = ("one", "two", "three")
    alike = {name: [text(place + 3 * n) for n in range(50)] for place, name in enumerate(names)}
    pool = made(tmp_path, small_model, alike)
    decided(monkeypatch, {4: True, 8: True, 16: True, 32: True})
    report = pool.report(pool.train(pool.job(max_steps=40, curriculum={})))
    assert report["curriculum"]["used"] is True
    assert [3 * weight for weight in report["curriculum"]["weights"]] == pytest.approx([1, 1, 1], abs=0.1)


# -- interruptions


@pytest.mark.parametrize("call", [3, 6, 10, 13, 19])
def test_a_run_that_is_killed_anywhere_ends_with_the_same_bits(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """Steps 5 to 8 and 9 to 12 are taken twice, so calls 5 to 20 are in a trial."""
    decided(monkeypatch, {4: True, 8: False})
    moving_at_once(monkeypatch)
    whole = pool.train(pool.job(run="unbroken", **RULE))
    calls = 0

    def interrupted(run: Run) -> float | None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise InterruptedError
        return take_step(run)

    for module in (train, trial_module):
        monkeypatch.setattr(module, "take_step", interrupted)
    with pytest.raises(InterruptedError):
        pool.train(pool.job(**RULE))
    for module in (train, trial_module):
        monkeypatch.setattr(module, "take_step", take_step)
    resumed = pool.train(pool.job(attempt=2, **RULE))
    assert pool.report(resumed)["losses"] == pool.report(whole)["losses"]
    assert pool.report(resumed)["curriculum"] == pool.report(whole)["curriculum"]
    assert pool.weights(resumed) == pool.weights(whole)


def test_a_run_that_is_asked_to_stop_in_a_trial_ends_at_once(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided(monkeypatch, {4: True, 8: False})
    asked: list[int] = []

    def stopping(run: Run) -> float | None:
        asked.append(run.step)
        if len(asked) == 3:
            signal.raise_signal(signal.SIGTERM)
        return take_step(run)

    monkeypatch.setattr(trial_module, "take_step", stopping)
    with pytest.raises(TransientError, match=r"Interrupted.*step 7, in a trial of the curriculum"):
        pool.train(pool.job(**RULE))
    assert asked == [4, 5, 6]


# -- what it needs


def test_one_source_has_no_curriculum(tmp_path: Path, small_model: Model, text: Write) -> None:
    pool = made(tmp_path, small_model, {"prose": [text(n) for n in range(30)]}, weights=False)
    with pytest.raises(JobError, match=r"InvalidConfig.*fewer than two with a weight"):
        prepare(pool.job(validation_every=4, **RULE), pool.store)


def test_every_source_needs_text_to_validate_on(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "VALIDATION_SHARE", 0.0)
    with pytest.raises(JobError, match=r"DataEmpty.*in source-0, source-1: add data"):
        prepare(pool.job(**RULE), pool.store)


def test_the_steps_between_validations_are_part_of_its_identity() -> None:
    def identity(**fields: object) -> dict[str, object]:
        return TrainingSpec.model_validate(fields).revision_identity()

    assert identity(curriculum={}) == {"curriculum": {"rate": 0.1, "floor": 0.5}, "validation_every": 100}
    assert identity(validation_every=7) == {}
