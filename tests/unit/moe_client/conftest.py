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
