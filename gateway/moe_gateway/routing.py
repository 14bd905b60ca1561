"""Finds the Expert for a call: pinned by name, or chosen by the pool's strategy."""

import json
from functools import partial
from http import HTTPStatus

from moe_formats.routing_policy import RoutedExpert
from moe_gateway.backends import Asking, Backends, Question
from moe_gateway.conversations import Conversation, Conversations
from moe_gateway.decision import Decision
from moe_gateway.openai import ApiError, Call
from moe_gateway.policy_file import LoadedPolicy
from moe_gateway.strategies import STRATEGIES
from moe_gateway.strategies.context import Context, in_its_place


class NotScored(Exception):
    """A server did not return the likelihood of a prompt."""


class Routing:
    """Decides which Expert answers each call, and remembers conversations."""

    def __init__(self, backends: Backends) -> None:
        """Ask Experts for likelihoods through `backends`."""
        self._backends = backends
        self._conversations = Conversations()

    async def decide(
        self, call: Call, loaded: LoadedPolicy, conversation: Conversation | None, asking: Asking
    ) -> Decision:
        """Return the decision for a call.

        `conversation` says where later turns find this decision again.

        Raises ApiError: 404 for a model that does not exist, 400 for a prompt that cannot be routed.
        """
        policy = loaded.policy
        if call.model and call.model != policy.pool:
            if policy.expert(call.model) is None:
                raise unknown_model(call.model, loaded)
            return Decision(expert=call.model, strategy="Pinned", why=f"the request names {call.model}")
        if call.text is None:
            experts = ", ".join(model_names(loaded)[1:])
            message = f"prompt: token ids cannot be routed; give text, or name one of: {experts}"
            raise ApiError(400, message, param="prompt")
        context = Context(policy, loaded.table, partial(self._log_likelihood, asking))
        decision = self._conversations.settle(
            conversation,
            await STRATEGIES[policy.strategy](call.text, context),
            margin=policy.stickiness_margin,
            serving=loaded.expert_names,
        )
        chosen = policy.expert(decision.expert)
        if chosen is None or chosen.is_ready:
            return decision
        return in_its_place(policy, decision, f"no server of {decision.expert} is ready") or decision

    async def _log_likelihood(self, asking: Asking, expert: RoutedExpert, text: str) -> float:
        """Return log p(text) in nats: ask the server to echo the prompt with log-probabilities and generate nothing."""
        body = {"model": expert.name, "prompt": text, "max_tokens": 0, "echo": True, "logprobs": 0}
        question = Question("/v1/completions", json.dumps(body).encode(), whole=True, read_seconds=60)
        async with self._backends.ask(lambda: expert, question, asking, patience_seconds=0) as answer:
            if answer.response.status != HTTPStatus.OK:
                raise NotScored(f"{expert.name} answered {answer.response.status}")
            logprobs = json.loads(answer.first)["choices"][0]["logprobs"]["token_logprobs"]
            return float(sum(value for value in logprobs if value is not None))


def model_names(loaded: LoadedPolicy) -> list[str]:
    """Return what a client may set `model` to: the pool's name, then the Experts' names."""
    return [loaded.policy.pool, *(expert.name for expert in loaded.policy.experts)]


def unknown_model(model: str, loaded: LoadedPolicy) -> ApiError:
    """Return the error for a model that does not exist, which lists those that do."""
    return ApiError(
        404,
        f"the model {model!r} does not exist here; there are: {', '.join(model_names(loaded))}",
        param="model",
        code="model_not_found",
    )
