from prometheus_client import generate_latest

from moe_operator.cluster.metrics import Metrics


def exposed(metrics):
    return generate_latest(metrics.registry).decode()


def test_experts_are_counted_by_phase_and_an_empty_phase_goes_to_zero(cache, expert):
    metrics = Metrics()
    cache.put(expert("a", status={"phase": "Training"}))
    cache.put(expert("b"))
    metrics.count(cache)
    assert 'moe_operator_experts{phase="Training"} 1.0' in exposed(metrics)
    assert 'moe_operator_experts{phase="Pending"} 1.0' in exposed(metrics)
    cache.put(expert("a", status={"phase": "Serving"}, version=2))
    metrics.count(cache)
    assert 'moe_operator_experts{phase="Training"} 0.0' in exposed(metrics)
    assert 'moe_operator_experts{phase="Serving"} 1.0' in exposed(metrics)


def test_no_name_of_an_object_is_a_label(cache, expert):
    metrics = Metrics()
    cache.put(expert("a-very-special-name"))
    metrics.count(cache)
    assert "a-very-special-name" not in exposed(metrics)


def test_an_expert_that_serves_and_is_stalled_counts_as_stalled(cache, expert):
    metrics = Metrics()
    stalled = {"type": "Stalled", "status": "True"}
    cache.put(expert("a", status={"phase": "Serving", "conditions": [stalled]}))
    cache.put(expert("b", status={"phase": "Serving", "conditions": [{**stalled, "status": "False"}]}))
    metrics.count(cache)
    assert "moe_operator_experts_stalled 1.0" in exposed(metrics)


def test_proposals_are_counted_by_act_and_phase_and_those_held_back_by_act(cache, expert, make):
    metrics = Metrics()
    for number, phase in enumerate(["Open", "Open", "Done"]):
        proposal = make("ExpertProposal", f"p{number}", spec={"pool": "a", "expert": "x", "act": "Rebase"})
        cache.put(proposal | {"status": {"phase": phase}})
    held = {"acts": [{"act": "Refresh", "heldBackTotal": 3}]}
    cache.put(make("ExpertPool", "a", spec={}) | {"status": {"lifecycle": held}})
    cache.put(expert("x", status={"analysis": {"needsAttention": True, "trend": "Declining"}}))
    metrics.count(cache)
    text = exposed(metrics)
    assert 'moe_operator_proposals{act="Rebase",phase="Open"} 2.0' in text
    assert 'moe_operator_proposals{act="Rebase",phase="Done"} 1.0' in text
    assert 'moe_operator_proposals_held_back{act="Refresh"} 3.0' in text
    assert "moe_operator_experts_needing_attention 1.0" in text
    assert 'moe_operator_experts_trend{trend="Declining"} 1.0' in text
