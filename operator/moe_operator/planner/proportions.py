"""Compares two shares, such as the shares of requests that failed before and after a change. Closed forms only."""

from dataclasses import dataclass
from math import sqrt

from moe_formats.job_report import Interval

#: Quantile of the normal distribution at one-sided 0.1 %, and at two-sided 5 %.
_Z_LARGER, _Z_INTERVAL = 3.090, 1.960


@dataclass(frozen=True)
class Share:
    """How many of a number of things were of some kind."""

    hits: float
    total: float

    @property
    def value(self) -> float:
        """The share, 0 to 1; 0 of nothing."""
        return self.hits / self.total if self.total > 0 else 0.0


def is_larger(share: Share, than: Share) -> bool:
    """Return whether a share is larger than another by the pooled z-test at one-sided alpha 0.001.

    Source: Fleiss, Levin and Paik, Statistical Methods for Rates and Proportions, section 3.2 (without correction).
    """
    if share.total <= 0 or than.total <= 0:
        return False
    pooled = (share.hits + than.hits) / (share.total + than.total)
    spread = sqrt(pooled * (1 - pooled) * (1 / share.total + 1 / than.total))
    return spread > 0 and (share.value - than.value) / spread > _Z_LARGER


def difference(after: Share, before: Share) -> Interval:
    """Return ``after - before`` with its 95 % interval by Newcombe's method 10, from the two Wilson intervals.

    Source: Newcombe, Interval estimation for the difference between independent proportions, Statistics in Medicine 17 (1998).
    """
    change = after.value - before.value
    (low, high), (low_before, high_before) = _wilson(after), _wilson(before)
    lower = change - sqrt((after.value - low) ** 2 + (high_before - before.value) ** 2)
    upper = change + sqrt((high - after.value) ** 2 + (before.value - low_before) ** 2)
    return Interval(value=change, lower=lower, upper=upper)


def _wilson(share: Share) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share; 0 to 1 for nothing."""
    if share.total <= 0:
        return 0.0, 1.0
    z, total = _Z_INTERVAL, share.total
    middle = share.value + z * z / (2 * total)
    spread = z * sqrt(share.value * (1 - share.value) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max((middle - spread) / scale, 0.0), min((middle + spread) / scale, 1.0)
