"""Two shares are compared by closed forms."""

import pytest

from moe_operator.planner.proportions import Share, difference, is_larger


def test_newcombes_interval_is_that_of_his_paper() -> None:
    # Newcombe 1998, table II, method 10 for 56/70 - 48/80: 0.0524 to 0.3339.
    found = difference(Share(56, 70), Share(48, 80))
    assert (found.value, found.lower, found.upper) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_newcombes_interval_of_two_shares_of_nought_is_that_of_his_paper() -> None:
    # The same table, for 0/10 - 0/20: -0.1611 to 0.2775.
    found = difference(Share(0, 10), Share(0, 20))
    assert (found.value, found.lower, found.upper) == pytest.approx((0.0, -0.1611, 0.2775), abs=5e-5)


@pytest.mark.parametrize(
    ("share", "than", "larger"),
    [
        (Share(31, 1000), Share(10, 1000), True),
        (Share(20, 1000), Share(10, 1000), False),  # z = 1.84
        (Share(26, 1000), Share(10, 1000), False),  # z = 2.69
        (Share(10, 1000), Share(30, 1000), False),
        (Share(0, 0), Share(10, 1000), False),
        (Share(10, 1000), Share(0, 0), False),
        (Share(0, 100), Share(0, 100), False),
        (Share(100, 100), Share(100, 100), False),
    ],
)
def test_a_share_is_larger_only_by_more_than_chance(share: Share, than: Share, larger: bool) -> None:
    assert is_larger(share, than) is larger
