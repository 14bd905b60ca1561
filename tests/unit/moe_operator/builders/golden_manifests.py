"""Makes the golden manifests from the builders; run it to write them anew."""

from pathlib import Path
from typing import Any

import yaml

from moe_formats.job_config import (
    DistillJob,
    DriftJob,
    EvaluateJob,
    GradeJob,
    MatrixJob,
    SnapshotJob,
    TrainJob,
)
from moe_formats.object_stores import ObjectStoreLocation
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_revision import ExpertRevisionSpec
from moe_formats.routing_policy import RoutedExpert, RoutingPolicy
from moe_formats.serve_config import ServeConfig, ServedArtefact
from moe_operator.builders.distill_job import build_distill_job
from moe_operator.builders.drift_job import build_drift_job
from moe_operator.builders.evaluate_job import build_evaluate_job
from moe_operator.builders.gang import build_gang_service
from moe_operator.builders.gateway import build_gateway, build_gateway_service, build_policy
from moe_operator.builders.grade_job import build_grade_job
from moe_operator.builders.matrix_job import build_matrix_job
from moe_operator.builders.pod import SourceMount
from moe_operator.builders.revision import build_revision
from moe_operator.builders.server import build_server, build_server_service, server_url
from moe_operator.builders.snapshot_job import build_snapshot_job
from moe_operator.builders.store import build_store
from moe_operator.builders.training_job import build_training_job
from moe_operator.config import OperatorConfig

FOLDER = Path(__file__).parent / "golden"
CHART_VALUES = Path(__file__).parents[4] / "charts/moe-operator/values.yaml"
CLAIM = "first-pool-store"
TEXT = "a" * 64
DIGEST = f"sha256:{TEXT}"
#: A bucket, as the platform's owner writes it into the chart's values.
LAKE: dict[str, Any] = {
    "s3": {
        "endpoint": "https://objects.example.org",
        "bucket": "text",
        "prefix": "mathematics",
        "secret": "lake-reader",
    }
}

#: A grader, likewise.
PYTEST: dict[str, Any] = {
    "image": "registry.example.org/graders/pytest:3",
    "command": ["python", "/grade.py"],
    "limits": {"memory": "2Gi"},
    "timeoutSeconds": 300,
}


def chart_config() -> OperatorConfig:
    """Return the operator's config with the profiles and stores of the chart's values."""
    values = yaml.safe_load(CHART_VALUES.read_text())
    return OperatorConfig.model_validate(
        {
            "images": {"trainer": "moe-operator/trainer:0.1.0", "gateway": "moe-operator/gateway:0.1.0"},
            "profiles": values["profiles"],
            "stores": {**values["stores"], "lake": LAKE},
            "graders": {"pytest": PYTEST},
        }
    )


def an_expert(profile: str, devices: int = 1, nodes: int = 1) -> Expert:
    """Return an Expert that trains and serves on a profile."""
    expert = Expert.model_validate(
        {
            "metadata": {"name": "mathematics", "namespace": "research", "uid": "expert-uid"},
            "spec": {
                "pool": "first-pool",
                "domain": "mathematics",
                "base": {"expert": "general"},
                "data": {"sources": [{"store": "corpora", "path": "mathematics/*.jsonl", "format": "jsonl"}]},
                "training": {"resources": {"profile": profile, "devicesPerNode": devices}},
                "serving": {"profile": profile},
            },
        }
    )
    # The API holds nodes at 1 until training spans processes; the manifests of a gang are there already.
    training = expert.spec.training
    resources = training.resources.model_copy(update={"nodes": nodes})
    spec = expert.spec.model_copy(update={"training": training.model_copy(update={"resources": resources})})
    return expert.model_copy(update={"spec": spec})


def a_pool() -> ExpertPool:
    """Return a pool."""
    return ExpertPool.model_validate(
        {
            "metadata": {"name": "first-pool", "namespace": "research", "uid": "pool-uid"},
            "spec": {"storage": {"size": "20Gi"}},
        }
    )


EXPERT_REF = {"name": "mathematics", "uid": "expert-uid", "domain": "mathematics"}
SNAPSHOT = {"path": "pools/pool-uid/experts/expert-uid/snapshots/aaaaaaaaaaaaaaaa", "digest": DIGEST}
WINDOW = {"path": "pools/pool-uid/experts/expert-uid/holdouts/aaaaaaaaaaaaaaaa", "digest": DIGEST}
PARENT = {"revision": "general-1", "path": "pools/pool-uid/general-1", "digest": DIGEST}
CANDIDATE = {"revision": "mathematics-1", "path": "pools/pool-uid/mathematics-1", "digest": DIGEST}
HOLDOUT = {"domain": "mathematics", "expert": "mathematics", **WINDOW}
SNAPSHOT_JOB = SnapshotJob.model_validate(
    {
        "poolUid": "pool-uid",
        "expert": EXPERT_REF,
        "sources": [
            {"root": "corpora", "path": "mathematics/*.jsonl", "format": "jsonl"},
            {"root": "lake", "path": "chats/*.parquet", "format": "messages"},
        ],
        "holdout": {"fraction": 0.1, "salt": "moe"},
    }
)
TRAIN_JOB = TrainJob.model_validate(
    {
        "poolUid": "pool-uid",
        "expert": EXPERT_REF,
        "revision": "mathematics-1",
        "attempt": 1,
        "inputsDigest": DIGEST,
        "parent": PARENT,
        "data": SNAPSHOT,
        "training": {
            "learningRate": 0.0003,
            "loadBalancingLossWeight": 0.2,
            "validationEvery": 200,
            "checkpointEvery": 100,
        },
        "seed": 0,
    }
)
EVALUATE_JOB = EvaluateJob.model_validate(
    {
        "poolUid": "pool-uid",
        "expert": EXPERT_REF,
        "revision": "mathematics-1",
        "candidate": CANDIDATE,
        "base": PARENT,
        "comparisons": [{"holdout": HOLDOUT, "role": "anchor"}],
        "suite": [HOLDOUT],
    }
)
GRADE_JOB = GradeJob.model_validate(
    {
        "poolUid": "pool-uid",
        "expert": EXPERT_REF,
        "revision": "mathematics-1",
        "evaluation": "pools/pool-uid/evaluations/aaaaaaaaaaaaaaaa",
        "report": DIGEST,
        "gradings": [
            {
                "evaluator": "programs",
                "grader": {"name": "pytest", "image": PYTEST["image"], "command": PYTEST["command"]},
            }
        ],
    }
)
DISTILL_JOB = DistillJob.model_validate(
    {"poolUid": "pool-uid", "roster": [CANDIDATE], "experts": [EXPERT_REF], "suite": [HOLDOUT]}
)
DRIFT_JOB = DriftJob.model_validate(
    {
        "poolUid": "pool-uid",
        "expert": EXPERT_REF,
        "model": CANDIDATE,
        "base": PARENT,
        "anchor": HOLDOUT,
        "newest": HOLDOUT,
    }
)
MATRIX_JOB = MatrixJob.model_validate(
    {"poolUid": "pool-uid", "models": [CANDIDATE], "experts": [EXPERT_REF], "suite": [HOLDOUT]}
)
SERVE = ServeConfig(
    expert="mathematics",
    domain="mathematics",
    revision="mathematics-1",
    artefact=ServedArtefact(path="pools/pool-uid/mathematics-1", digest=DIGEST),
)
REVISION = ExpertRevisionSpec.model_validate(
    {
        "expert": "mathematics",
        "expertUID": "expert-uid",
        "pool": "first-pool",
        "number": 1,
        "cause": "SpecChanged",
        "inputs": {
            "parent": PARENT,
            "data": SNAPSHOT,
            "training": {
                "learningRate": 0.001,
                "maxEpochs": 1,
                "batchTokens": 4096,
                "weightDecay": 0.1,
                "loadBalancingLossWeight": 0.01,
                "auxiliaryLossWeight": 0.001,
                "validationEvery": 100,
                "checkpointEvery": 50,
            },
            "seed": 0,
        },
        "inputsDigest": DIGEST,
        "anchor": {**WINDOW, "clusters": 31, "segments": 256},
        "suiteDigest": DIGEST,
    }
)


def on_profile(profile: str, devices: int = 1, nodes: int = 1) -> list[dict[str, Any]]:
    """Return what runs on an Expert's profile: training, evaluation, server."""
    config, expert = chart_config(), an_expert(profile, devices, nodes)
    hardware = config.profiles[profile]
    return [
        build_training_job(
            name="mathematics-1-a1",
            expert=expert,
            job=TRAIN_JOB,
            claim=CLAIM,
            profile=hardware,
            config=config,
        ),
        build_evaluate_job(
            name="mathematics-1-e1",
            expert=expert,
            job=EVALUATE_JOB,
            claim=CLAIM,
            profile=hardware,
            config=config,
        ),
        build_server(expert=expert, serve=SERVE, claim=CLAIM, profile=hardware, config=config),
    ]


def on_cpu() -> list[dict[str, Any]]:
    """Return everything for a pool of one Expert."""
    config, expert, pool = chart_config(), an_expert("cpu"), a_pool()
    cpu = config.profiles["cpu"]
    snapshot = build_snapshot_job(
        name="mathematics-snapshot-0a1b2c3d",
        expert=expert,
        job=SNAPSHOT_JOB,
        claim=CLAIM,
        sources=(SourceMount(root="corpora", claim="corpora"),),
        object_stores={"lake": ObjectStoreLocation.model_validate(LAKE["s3"])},
        profile=cpu,
        config=config,
    )
    policy = RoutingPolicy(
        pool="first-pool",
        strategy="Posterior",
        experts=(
            RoutedExpert(
                name="mathematics",
                domain="mathematics",
                revision="mathematics-1",
                digest=DIGEST,
                url=server_url(revision="mathematics-1", namespace="research"),
            ),
        ),
    )
    grade = build_grade_job(
        name="mathematics-1-g1",
        expert=expert,
        job=GRADE_JOB,
        graders=[config.graders["pytest"]],
        claim=CLAIM,
        profile=cpu,
        config=config,
    )
    distill = build_distill_job(
        name="first-pool-distill-0a1b2c3d",
        pool=pool,
        job=DISTILL_JOB,
        claim=CLAIM,
        profile=cpu,
        config=config,
    )
    return [
        build_store(pool=pool),
        snapshot,
        build_revision(name="mathematics-1", expert=expert, spec=REVISION),
        *on_profile("cpu"),
        build_server_service(expert=expert, revision="mathematics-1"),
        grade,
        distill,
        build_policy(name="first-pool-routing", pool=pool, policy=policy),
        build_gateway(name="first-pool-gateway", pool=pool, policy_name="first-pool-routing", config=config),
        build_gateway_service(name="first-pool-gateway", pool=pool),
    ]


def measuring() -> list[dict[str, Any]]:
    """Return what is made between revisions to measure those that serve."""
    config = chart_config()
    cpu = config.profiles["cpu"]
    drift = build_drift_job(
        name="mathematics-drift-0a1b2c3d",
        expert=an_expert("cpu"),
        job=DRIFT_JOB,
        claim=CLAIM,
        profile=cpu,
        config=config,
    )
    matrix = build_matrix_job(
        name="first-pool-matrix-0a1b2c3d",
        pool=a_pool(),
        job=MATRIX_JOB,
        claim=CLAIM,
        profile=cpu,
        config=config,
    )
    return [drift, matrix]


def golden_texts() -> dict[str, str]:
    """Return the text of each golden file."""
    files = {
        "cpu.yaml": on_cpu(),
        "nvidia.yaml": [
            *on_profile("nvidia", devices=8, nodes=2),
            build_gang_service(expert=an_expert("nvidia", devices=8, nodes=2)),
        ],
        "gke-tpu.yaml": on_profile("gke-tpu-v5e", devices=8),
        "measuring.yaml": measuring(),
    }
    return {
        name: yaml.safe_dump_all(manifests, sort_keys=False, width=110) for name, manifests in files.items()
    }


if __name__ == "__main__":
    for name, text in golden_texts().items():
        (FOLDER / name).write_text(text)
