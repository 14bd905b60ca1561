"""What holds of every pod, whatever it runs."""

import json
from typing import Any

import pytest
from golden_manifests import CLAIM, GRADE_JOB, TRAIN_JOB, a_pool, an_expert, chart_config, on_cpu, on_profile

from moe_formats.job_config import HoldoutRule, TrainJob, parse_job_config
from moe_formats.resources.expert_pool import KeysFrom
from moe_operator.builders.gateway import build_gateway
from moe_operator.builders.grade_job import build_grade_job
from moe_operator.builders.pod import config_text
from moe_operator.builders.server import TEMPLATE
from moe_operator.builders.training_job import build_training_job

WORKLOADS = [
    pytest.param(manifest, id=f"{manifest['kind']}-{manifest['metadata']['name']}")
    for manifest in [*on_cpu(), *on_profile("nvidia")]
    if "template" in manifest.get("spec", {})
]


def container(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifest["spec"]["template"]["spec"]["containers"][0]
    return found


def environment(manifest: dict[str, Any]) -> dict[str, Any]:
    return {item["name"]: item.get("value") for item in container(manifest)["env"]}


@pytest.mark.parametrize("manifest", WORKLOADS)
def test_pods_are_restricted_and_hold_no_credentials(manifest: dict[str, Any]) -> None:
    spec = manifest["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for item in [*spec.get("initContainers", []), *spec["containers"]]:
        security = item["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("manifest", WORKLOADS)
def test_no_pod_can_fill_the_disk_of_its_node(manifest: dict[str, Any]) -> None:
    spec = manifest["spec"]["template"]["spec"]
    for item in [*spec.get("initContainers", []), *spec["containers"]]:
        assert item["resources"]["limits"]["ephemeral-storage"], item["name"]
        assert item["resources"]["requests"]["ephemeral-storage"] == "0", "the limit would be reserved"
    for volume in spec["volumes"]:
        assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"], volume["name"]


def test_the_owner_of_the_platform_decides_how_much_disk_a_profile_gives() -> None:
    config, expert = chart_config(), an_expert("cpu")
    limits = {"memory": "4Gi", "ephemeral-storage": "300Gi"}
    requests = {"cpu": "1", "ephemeral-storage": "10Gi"}
    profile = config.profiles["cpu"].model_copy(update={"limits": limits, "requests": requests})
    job = build_training_job(
        name="mathematics-1-a1", expert=expert, job=TRAIN_JOB, claim=CLAIM, profile=profile, config=config
    )
    assert container(job)["resources"] == {"requests": requests, "limits": limits}
    scratch = next(v for v in job["spec"]["template"]["spec"]["volumes"] if v["name"] == "scratch")
    assert scratch["emptyDir"] == {"sizeLimit": "300Gi"}


@pytest.mark.parametrize("memory", ["64Gi", None])
def test_shared_memory_is_bounded_by_the_memory_of_the_pod(memory: str | None) -> None:
    config = chart_config()
    limits = {"memory": memory} if memory else {}
    profile = config.profiles["nvidia"].model_copy(update={"limits": limits})
    job = build_training_job(
        name="mathematics-1-a1",
        expert=an_expert("nvidia", devices=8),
        job=TRAIN_JOB,
        claim=CLAIM,
        profile=profile,
        config=config,
    )
    shared = next(v for v in job["spec"]["template"]["spec"]["volumes"] if v["name"] == "shared-memory")
    assert shared["emptyDir"] == {"medium": "Memory", "sizeLimit": memory or "16Gi"}


def test_every_job_has_a_deadline_which_starts_when_it_runs() -> None:
    jobs = [item for item in on_cpu() if item["kind"] == "Job"]
    deadlines = {
        item["metadata"]["labels"]["moe-operator.dev/role"]: item["spec"]["template"]["spec"][
            "activeDeadlineSeconds"
        ]
        for item in jobs
    }
    day = 86_400
    assert deadlines == {
        "snapshot": 3 * day,
        "train": 30 * day,
        "evaluate": 3 * day,
        "grade": 900,
        "distill": day,
    }
    # The Job's own deadline would also count the time in which no node has room for its pods.
    assert all("activeDeadlineSeconds" not in item["spec"] for item in jobs)


@pytest.mark.parametrize("manifest", WORKLOADS)
def test_only_the_job_that_reads_sources_sees_a_stores_secret(manifest: dict[str, Any]) -> None:
    secrets = [volume for volume in manifest["spec"]["template"]["spec"]["volumes"] if "secret" in volume]
    assert bool(secrets) == (container(manifest)["name"] == "snapshot")
    assert ("MOE_CREDENTIALS" in environment(manifest)) == bool(secrets)


@pytest.mark.parametrize("manifest", WORKLOADS)
def test_pods_listen_on_their_own_address_and_write_to_their_own_folder(manifest: dict[str, Any]) -> None:
    values = environment(manifest)
    assert "POD_IP" in values
    assert values["TMPDIR"] == values["HOME"] == "/moe/scratch"


@pytest.mark.parametrize("manifest", WORKLOADS)
def test_every_object_is_found_by_its_labels_and_goes_with_its_owner(manifest: dict[str, Any]) -> None:
    metadata = manifest["metadata"]
    assert metadata["labels"]["app.kubernetes.io/managed-by"] == "moe-operator"
    assert metadata["ownerReferences"][0]["controller"] is True
    assert manifest["spec"]["template"]["metadata"]["labels"].items() <= metadata["labels"].items()


def test_the_pools_claim_has_no_owner_so_that_weights_outlive_the_pool() -> None:
    claim = next(item for item in on_cpu() if item["kind"] == "PersistentVolumeClaim")
    assert "ownerReferences" not in claim["metadata"]


def test_jobs_are_made_suspended_with_one_try_and_fail_at_once_on_wrong_input() -> None:
    for job in (item for item in on_cpu() if item["kind"] == "Job"):
        assert job["spec"]["suspend"] is True
        assert job["spec"]["backoffLimit"] == 0
        codes = job["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]
        assert codes.items() >= {"operator": "In", "values": [64]}.items()


def test_sources_are_mounted_read_only() -> None:
    snapshot = next(item for item in on_cpu() if item["metadata"]["name"].startswith("mathematics-snapshot"))
    mount = next(item for item in container(snapshot)["volumeMounts"] if item["name"] == "source-0")
    assert mount == {"name": "source-0", "mountPath": "/moe/sources/corpora", "readOnly": True}


def test_a_grader_sees_its_own_folder_and_nothing_else_and_its_exit_code_means_nothing() -> None:
    grade = next(item for item in on_cpu() if item["metadata"]["name"] == "mathematics-1-g1")
    pod = grade["spec"]["template"]["spec"]
    handout, grader = pod["initContainers"]
    assert grader["name"] == "grader-0-pytest"
    assert grader["volumeMounts"] == [{"name": "gradings", "mountPath": "/moe/grading", "subPath": "0"}]
    assert grader["resources"]["limits"] == {"cpu": "1", "memory": "2Gi", "ephemeral-storage": "1Gi"}
    assert {item["name"] for item in grader["env"]} == {
        "MOE_GRADER_INPUT",
        "MOE_GRADER_OUTPUT",
        "HOME",
        "TMPDIR",
    }
    assert pod["automountServiceAccountToken"] is False
    assert pod["activeDeadlineSeconds"] == 900
    assert next(v for v in pod["volumes"] if v["name"] == "gradings")["emptyDir"] == {"sizeLimit": "1Gi"}
    read_only = {m["name"]: m.get("readOnly", False) for m in handout["volumeMounts"]}
    assert read_only == {"store": True, "scratch": False, "gradings": False}
    assert next(m for m in container(grade)["volumeMounts"] if m["name"] == "gradings")["readOnly"] is True
    rules = grade["spec"]["podFailurePolicy"]["rules"]
    assert [rule["onExitCodes"]["containerName"] for rule in rules[:2]] == ["handout", "grade"]


def test_a_grader_without_a_command_runs_its_images_own() -> None:
    config = chart_config()
    plain = config.graders["pytest"].model_copy(update={"command": ()})
    made = build_grade_job(
        name="mathematics-1-g1",
        expert=an_expert("cpu"),
        job=GRADE_JOB,
        graders=[plain],
        claim=CLAIM,
        profile=config.profiles["cpu"],
        config=config,
    )
    assert "command" not in made["spec"]["template"]["spec"]["initContainers"][1]


def test_servers_and_gateways_cannot_write_to_the_store() -> None:
    for manifest in (item for item in on_cpu() if item["kind"] == "Deployment"):
        mount = next(item for item in container(manifest)["volumeMounts"] if item["name"] == "store")
        assert mount["readOnly"] is True


def test_a_server_is_ready_only_with_the_digest_of_its_artefact() -> None:
    server = on_profile("cpu")[2]
    path = container(server)["readinessProbe"]["httpGet"]["path"]
    assert path.startswith("/ready?digest=sha256:")
    assert json.loads(server["metadata"]["annotations"][TEMPLATE]) == server["spec"]["template"]


def test_training_is_an_indexed_job_that_runs_plain_python_and_tells_its_progress() -> None:
    job = on_profile("cpu")[0]
    assert job["spec"]["completionMode"] == "Indexed"
    assert container(job)["command"] == ["moe-trainer", "train"]
    assert container(job)["ports"] == [{"name": "progress", "containerPort": 8090, "protocol": "TCP"}]
    assert environment(job)["MOE_PROGRESS_PORT"] == "8090"
    assert isinstance(parse_job_config(environment(job)["MOE_JOB_CONFIG"]), TrainJob)


@pytest.mark.parametrize(
    ("profile", "device", "devices"), [("nvidia", "nvidia.com/gpu", 4), ("gke-tpu-v5e", "google.com/tpu", 8)]
)
def test_a_profile_gives_devices_selectors_and_tolerations(profile: str, device: str, devices: int) -> None:
    hardware = chart_config().profiles[profile]
    for manifest in on_profile(profile, devices)[:1]:
        spec = manifest["spec"]["template"]["spec"]
        assert container(manifest)["resources"]["limits"][device] == str(devices)
        assert container(manifest)["resources"]["requests"][device] == str(devices)
        assert spec["tolerations"] == [dict(item) for item in hardware.tolerations]
        assert spec.get("nodeSelector", {}) == hardware.node_selector


def test_a_host_that_lends_its_devices_together_is_asked_for_all_of_them() -> None:
    for manifest in on_profile("gke-tpu-v5e", 1):
        assert container(manifest)["resources"]["limits"]["google.com/tpu"] == "8"


def test_text_of_a_user_is_no_variable_to_torchx_or_kubernetes() -> None:
    rule = HoldoutRule(fraction=0.1, salt="$(POD_IP) ${app_id}")
    assert "$" not in config_text(rule)
    assert HoldoutRule.model_validate_json(config_text(rule)) == rule


def test_a_profile_may_bring_its_own_image() -> None:
    config = chart_config()
    expert = an_expert("cpu")
    profile = config.profiles["cpu"].model_copy(update={"image": "registry.example/trainer:tpu"})
    job = build_training_job(
        name="mathematics-1-a1", expert=expert, job=TRAIN_JOB, claim=CLAIM, profile=profile, config=config
    )
    assert container(job)["image"] == "registry.example/trainer:tpu"


def test_pull_secrets_are_referred_to_by_name() -> None:
    config = chart_config()
    config = config.model_copy(
        update={"images": config.images.model_copy(update={"pull_secrets": ("mirror",)})}
    )
    gateway = build_gateway(name="g", pool=a_pool(), policy_name="p", config=config)
    assert gateway["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "mirror"}]


def test_the_keys_of_a_gateway_are_one_file_of_one_secret() -> None:
    config = chart_config()
    keys = KeysFrom(secret="team-gateway-keys", key="api")
    pool = a_pool()
    spec = pool.spec.model_copy(update={"gateway": pool.spec.gateway.model_copy(update={"keys_from": keys})})
    pool = pool.model_copy(update={"spec": spec})
    gateway = build_gateway(name="g", pool=pool, policy_name="p", config=config)
    pod = gateway["spec"]["template"]["spec"]
    assert {
        "name": "keys",
        "secret": {
            "secretName": "team-gateway-keys",
            "items": [{"key": "api", "path": "keys"}],
            "defaultMode": 0o440,
        },
    } in pod["volumes"]
    assert {"name": "MOE_API_KEYS_FILE", "value": "/moe/keys/keys"} in pod["containers"][0]["env"]
    assert {"name": "keys", "mountPath": "/moe/keys", "readOnly": True} in pod["containers"][0][
        "volumeMounts"
    ]
    without = build_gateway(name="g", pool=a_pool(), policy_name="p", config=config)
    assert "MOE_API_KEYS_FILE" not in str(without) and "secret" not in str(without)
