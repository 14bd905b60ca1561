"""Objects as the API server would return them."""

import pytest

DIGEST = "sha256:" + "a" * 64
WINDOW = {"path": "holdouts/a", "digest": DIGEST, "clusters": 24, "segments": 200}


@pytest.fixture
def expert_manifest():
    return {
        "metadata": {"name": "mathematics", "namespace": "default", "uid": "u1", "generation": 1},
        "spec": {
            "pool": "first-pool",
            "domain": "mathematics",
            "base": {"expert": "general"},
            "data": {"sources": [{"store": "corpora", "path": "mathematics/*"}]},
        },
    }


@pytest.fixture
def revision_manifest():
    training = {
        "learningRate": 0.001,
        "maxEpochs": 1,
        "batchTokens": 4096,
        "weightDecay": 0.1,
        "loadBalancingLossWeight": 0.01,
        "auxiliaryLossWeight": 0.001,
        "validationEvery": 100,
        "checkpointEvery": 50,
    }
    return {
        "metadata": {"name": "mathematics-2", "namespace": "default", "uid": "u2"},
        "spec": {
            "expert": "mathematics",
            "expertUID": "u1",
            "pool": "first-pool",
            "number": 2,
            "cause": "NewData",
            "inputs": {
                "parent": {"revision": "general-1", "path": "p", "digest": DIGEST},
                "data": {"path": "d", "digest": DIGEST},
                "training": training,
                "seed": 0,
            },
            "inputsDigest": DIGEST,
            "anchor": WINDOW,
            "suiteDigest": DIGEST,
        },
        "status": {
            "evidence": {
                "report": DIGEST,
                "delta": 0.005,
                "noiseFloor": 0,
                "decisions": [
                    {
                        "role": "anchor",
                        "holdout": DIGEST,
                        "uses": 1,
                        "alpha": 0.0304,
                        "against": "current",
                        "interval": {"value": 0.05, "lower": 0.03, "upper": 0.07},
                        "upper": 0.068,
                    }
                ],
                "row": {"mathematics": 2.0},
                "baseRow": {"mathematics": 2.5},
            },
            "verdict": {
                "outcome": "Refused",
                "clause": "anchor",
                "reason": "PromotionRefused",
                "message": "0.050 [0.030, 0.070]",
                "final": True,
                "time": "2026-01-01T00:00:00Z",
            },
        },
    }


@pytest.fixture
def proposal_manifest():
    return {
        "metadata": {
            "name": "mathematics-rebase-1a2b3c4d",
            "namespace": "default",
            "uid": "u3",
            "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"pool": "first-pool", "expert": "mathematics", "act": "Rebase"},
        "status": {
            "phase": "Open",
            "reason": "AwaitingApproval",
            "conditions": [
                {
                    "type": "Ready",
                    "status": "False",
                    "reason": "AwaitingApproval",
                    "message": "general-2 is newer. Approve it: moectl approve mathematics-rebase-1a2b3c4d -n default",
                }
            ],
            "evidence": {
                "digest": DIGEST,
                "summary": "mathematics-1 starts from general-1, and general-2 was promoted since",
                "expertUID": "u1",
                "current": "mathematics-1",
                "parent": "general-2",
                "time": "2026-01-01T00:00:00+00:00",
            },
            "expected": {
                "quantity": "mean ln(bits per byte after / before) on the newest holdout",
                "interval": {"value": -0.04, "lower": -0.08, "upper": -0.005},
            },
            "effect": "promised -4.0 % [-8.0, -0.5]",
            "expires": "2026-01-08T00:00:00+00:00",
            "patch": "kind: ExpertProposal\nspec:\n  act: Rebase\n",
        },
    }
