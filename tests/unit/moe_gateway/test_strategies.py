"""The mathematics of the strategies, without a network."""

import asyncio
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_formats.routing_policy import Familiar, RoutedExpert, RoutingPolicy
from moe_gateway.decision import Decision
from moe_gateway.strategies import STRATEGIES, distilled, posterior
from moe_gateway.strategies.context import Context, last_bytes

DIGEST = "sha256:" + "a" * 64


def _policy(*names, **options):
    experts = tuple(
        RoutedExpert(name=name, revision=f"{name}-1", digest=DIGEST, url=f"http://{name}:80")
        for name in names
    )
    return RoutingPolicy(**{"pool": "pool", "strategy": "Posterior", "experts": experts} | options)


class _Table:
    def __init__(self, probabilities):
        self.probabilities = probabilities
        self.texts = []

    def score(self, text):
        self.texts.append(text)
        return self.probabilities


def _context(policy, table=None, likelihoods=None):
    async def log_likelihood(expert, text):
        value = (likelihoods or {})[expert.name]
        if isinstance(value, Exception):
            raise value
        return value

    return Context(policy, table, log_likelihood)


def test_every_strategy_of_the_policy_is_there():
    names = RoutingPolicy.model_fields["strategy"].annotation.__args__
    assert set(STRATEGIES) == set(names)


def test_posterior_is_bayes_rule():
    policy = _policy("a", "b", prior={"a": 3, "b": 1})
    decision = posterior.decide({"a": math.log(0.2), "b": math.log(0.4)}, 1, policy)
    assert decision.expert == "a"
    assert decision.confidence == pytest.approx(0.6)
    assert decision.probabilities == pytest.approx({"a": 0.6, "b": 0.4})
    assert decision.bits_per_byte["a"] == pytest.approx(-math.log2(0.2))


def test_temperature_takes_confidence_away_and_changes_no_choice():
    likelihoods = {"a": -100.0, "b": -104.0}
    sharp = posterior.decide(likelihoods, 50, _policy("a", "b"))
    soft = posterior.decide(likelihoods, 50, _policy("a", "b", temperature=4))
    assert sharp.expert == soft.expert == "a"
    assert sharp.confidence == pytest.approx(1 / (1 + math.exp(-4)))
    assert soft.confidence == pytest.approx(1 / (1 + math.exp(-1)))


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.floats(-1e6, 0), min_size=1),
    st.floats(0.1, 100),
)
def test_posterior_probabilities_are_a_distribution_whatever_the_numbers(likelihoods, temperature):
    policy = _policy(*"abcdef", temperature=temperature)
    decision = posterior.decide(likelihoods, 64, policy)
    assert sum(decision.probabilities.values()) == pytest.approx(1)
    assert all(0 <= p <= 1 for p in decision.probabilities.values())
    assert decision.confidence == max(decision.probabilities.values())
    assert likelihoods[decision.expert] == pytest.approx(max(likelihoods.values()), abs=1e-9)


def test_an_expert_without_a_finite_likelihood_does_not_count():
    decision = posterior.decide({"a": float("nan"), "b": -10.0}, 8, _policy("a", "b", "c"))
    assert decision.probabilities == {"b": 1.0}
    assert decision.why.endswith("did not answer in time: a, c")


async def test_where_no_expert_scores_the_fallback_takes_it():
    policy = _policy("a", "b", fallback="b")
    decision = await posterior.choose("text", _context(policy, likelihoods={"a": OSError(), "b": OSError()}))
    assert (decision.expert, decision.strategy, decision.confidence) == ("b", "Fallback", None)


async def test_posterior_scores_the_end_of_a_long_prompt_in_whole_characters():
    seen = []

    async def log_likelihood(expert, text):
        seen.append(text)
        return -1.0

    await posterior.choose("é" * 300, Context(_policy("a"), None, log_likelihood))
    assert seen == ["é" * 128]


async def test_distilled_takes_the_most_probable_expert_that_serves():
    table = _Table({"a": 0.2, "b": 0.3, "gone": 0.5})
    decision = await distilled.choose("text", _context(_policy("a", "b", "new"), table))
    assert decision.expert == "b"
    assert decision.probabilities == pytest.approx({"a": 0.4, "b": 0.6})
    assert decision.confidence == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("table", "text", "because"),
    [
        (None, "text", "no table has been distilled"),
        (_Table({"a": 1.0}), "", "the prompt is empty"),
        (_Table({"gone": 1.0}), "text", "knows none of the Experts"),
    ],
)
async def test_distilled_falls_back_where_it_cannot_know(table, text, because):
    decision = await distilled.choose(text, _context(_policy("a", "b", fallback="b"), table))
    assert (decision.expert, decision.strategy, decision.probabilities) == ("b", "Fallback", {})
    assert because in decision.why


@settings(deadline=None)
@given(st.text(), st.integers(1, 20))
def test_the_end_of_a_text_is_whole_characters_within_the_limit(text, limit):
    end = last_bytes(text, limit)
    assert len(end.encode()) <= limit
    assert text.encode("utf-8", "replace").decode().endswith(end)


async def test_a_slow_expert_is_not_waited_for():
    forgotten = asyncio.Event()

    async def log_likelihood(expert, text):
        if expert.name == "slow":
            try:
                await asyncio.Event().wait()
            finally:
                forgotten.set()
        return -5.0

    policy = _policy("slow", "quick", posterior_timeout_seconds=0.01)
    decision = await posterior.choose("text", Context(policy, None, log_likelihood))
    assert decision.expert == "quick"
    async with asyncio.timeout(5):
        await forgotten.wait()


@pytest.mark.parametrize(
    ("strategy", "parts", "unmet"),
    [
        ("Distilled", {"confidence": 0.59}, True),
        ("Distilled", {"confidence": 0.6}, False),
        ("Posterior", {"confidence": 0.1, "bits_per_byte": {"a": 2.1, "b": 3.0}}, True),
        ("Posterior", {"confidence": 0.1, "bits_per_byte": {"a": 2.0, "b": 3.0}}, False),
        ("Posterior", {"confidence": 0.1}, False),
        ("Pinned", {"confidence": 0.1, "bits_per_byte": {"a": 9.0}}, False),
        ("Fallback", {}, False),
        ("Conversation", {"confidence": 0.1}, False),
    ],
)
def test_a_prompt_that_looks_like_no_domain_of_the_pool_is_unmet(strategy, parts, unmet):
    familiar = Familiar(bits_per_byte=2.0, confidence=0.6)
    decision = Decision(expert="a", strategy=strategy, why="", **parts)
    assert decision.is_unmet(familiar) is unmet
    assert decision.is_unmet(Familiar()) is False
