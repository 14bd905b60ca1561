import pytest

from moe_operator.cluster.liveness import LONGEST_WAIT, Liveness


@pytest.mark.parametrize(
    ("oldest", "sweep", "word"),
    [(0, 0, None), (LONGEST_WAIT - 1, 99, None), (LONGEST_WAIT + 1, 0, "waited"), (0, 101, "sweep")],
)
def test_it_is_well_while_it_makes_progress(oldest, sweep, word):
    liveness = Liveness(oldest_seconds=lambda: oldest, sweep_age=lambda: sweep, longest_sweep_age=100)
    assert liveness.problem() is None, "while it waits for the Lease or the API server"
    liveness.ready = True
    problem = liveness.problem()
    assert problem is None if word is None else word in problem


def test_what_the_start_waits_for_is_said() -> None:
    holder = ["the Lease moe-system/moe-operator is held by another"]
    liveness = Liveness(
        oldest_seconds=lambda: 0, sweep_age=lambda: 0, longest_sweep_age=100, waits_for=lambda: holder[0]
    )
    assert liveness.stage() == "waiting: the Lease moe-system/moe-operator is held by another"
    holder[0] = ""
    assert liveness.stage().startswith("priming")
    liveness.ready = True
    assert liveness.stage() == "ready"
