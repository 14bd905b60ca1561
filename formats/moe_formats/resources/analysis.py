"""What is said in a status of how an Expert and a pool are used. docs/lifecycle.md defines each number."""

from typing import Literal

from pydantic import Field

from moe_formats.format import Format
from moe_formats.job_report import Interval
from moe_formats.resources.base import ShortText

#: How an Expert's speed developed over the window.
Trend = Literal["Improving", "Declining", "Stable", "Unknown"]


class Baseline(Format):
    """The same Expert over the seven days before the window."""

    requests_per_hour: float = Field(description="Requests per hour that was observed.")
    utilization: float | None = Field(
        default=None,
        description="Requests under way on average, over the number that servers work on at the same time. Absent if it had "
        "no servers.",
    )
    tokens_per_second: float | None = Field(
        default=None,
        description="Tokens generated per second of a request. Absent if nothing was generated.",
    )
    failed_share: float | None = Field(
        default=None,
        description="Share of requests that got no whole answer, 0 to 1. Absent if there were none.",
    )


class ExpertAnalysis(Format):
    """How an Expert was used over the last 24 hours. A number that is absent has a reason in ``absent``."""

    observed_hours: float = Field(
        description="Hours of the window in which its pods could be asked; at most 24."
    )
    requests: int = Field(description="Number of requests that it was chosen for, however they ended.")
    share: float | None = Field(
        default=None,
        description="Share of the pool's requests that were the Expert's, 0 to 1. Absent if the pool had none.",
    )
    failed_share: float | None = Field(
        default=None,
        description="Share of its requests that got no whole answer, 0 to 1. Absent if there were none.",
    )
    utilization: float | None = Field(
        default=None,
        description="Requests under way on average, over the number that its servers work on at the same time: 1 is as many "
        "as they can, more means that requests waited. Absent if it had no servers.",
    )
    tokens_per_second: float | None = Field(
        default=None,
        description="Tokens generated per second of a request, which is how fast an answer appears. Absent if nothing was "
        "generated.",
    )
    efficiency: float | None = Field(
        default=None,
        description="Tokens generated per second of a server, over the most of any hour of the last 30 days: 1 is as much as "
        "it ever did. Absent if nothing was generated.",
    )
    first_token_seconds: float | None = Field(
        default=None,
        description="Seconds within which 95 % of streamed answers began: the upper edge of a bucket, of which each is twice "
        "the one before. Absent if nothing was streamed.",
    )
    confidence: float | None = Field(
        default=None,
        description="Mean probability of this Expert where the pool's strategy chose it, to about 0.05. Absent if it never did.",
    )
    trend: Trend = Field(
        default="Unknown",
        description="Whether answers appear faster (`Improving`) or slower (`Declining`) than 24 hours ago: the slope of "
        "tokensPerSecond over four blocks of six hours is significant (|t| > 4.30) and changes it by 10 % or more. `Stable` "
        "otherwise; `Unknown` with a reason in absent if a block has fewer than 200 requests.",
    )
    change: float | None = Field(
        default=None,
        description="Change of tokensPerSecond from the first to the last block along that slope: 0.2 is 20 % faster. Absent "
        "if the trend is unknown.",
    )
    performance: Interval | None = Field(
        default=None,
        description="Gain over the base on the last windows of the Expert's own text, as measured of the current revision "
        "together with drift; on the anchor, of the revision that should serve, before that. Absent if it could not be computed.",
    )
    drift: Interval | None = Field(
        default=None,
        description="Drift of the current revision: how much less it gains over its base on the newest text than on the first, "
        "as in status.drift. Absent if it was not measured or could not be computed.",
    )
    baseline: Baseline | None = Field(
        default=None,
        description="The same Expert over the seven days before. Absent if nothing was observed then.",
    )
    needs_attention: bool = Field(
        default=False,
        description="Whether a proposal waits for a person, or a condition of the Expert asks for somebody to act.",
    )
    recommended_action: str | None = Field(
        default=None,
        max_length=1024,
        description="Act and evidence of the newest proposal that waits for a person; without one, reason and message of the "
        "condition that asks for somebody to act. Absent if nothing does.",
    )
    absent: dict[str, ShortText] = Field(
        default_factory=dict, max_length=16, description="Names of numbers that are absent, with the reason."
    )


class PoolAnalysis(Format):
    """How the pool's requests spread over its Experts in the last 24 hours."""

    observed_hours: float = Field(description="Hours of the window in which pods could be asked; at most 24.")
    requests: int = Field(description="Number of requests of all Experts, however they ended.")
    balance: float | None = Field(
        default=None,
        description="Largest share of requests of an Expert over the mean share: 1 is spread evenly, the number of Experts is "
        "all to one. Absent if there were no requests.",
    )
    stood_in_share: float | None = Field(
        default=None,
        description="Share of requests that the fallback took because the strategy could not decide or no server of the chosen "
        "Expert answered. Absent if there were no requests.",
    )
    unmet_share: float | None = Field(
        default=None,
        description="Share of the requests that the strategy routed whose prompt looked like none of the pool's domains: coded "
        "worse, or routed with less confidence, than 95 % of held-out text. Absent if there were none.",
    )
    utilization: float | None = Field(
        default=None,
        description="As of an Expert, over all servers of the pool. Absent if there were no servers.",
    )
    needs_attention: list[ShortText] = Field(
        default_factory=list, max_length=64, description="Names of Experts that need attention."
    )
    absent: dict[str, ShortText] = Field(
        default_factory=dict, max_length=16, description="Names of numbers that are absent, with the reason."
    )
