"""The routing strategies, one per file: each turns the text of a request into a Decision."""

from collections.abc import Awaitable, Callable, Mapping

from moe_gateway.decision import Decision
from moe_gateway.strategies import distilled, posterior
from moe_gateway.strategies.context import Context

#: A strategy gets the text to route by and a Context.
Strategy = Callable[[str, Context], Awaitable[Decision]]

#: Strategies by their name in RoutingPolicy.strategy.
STRATEGIES: Mapping[str, Strategy] = {"Distilled": distilled.choose, "Posterior": posterior.choose}
