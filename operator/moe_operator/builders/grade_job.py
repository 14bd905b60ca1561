"""The grade Job: hands answers to graders, each in a container of its own, and reads their verdicts.

    container            runs       does
    handout              trainer    reads the store and writes one folder per grader
    grader-0-NAME …      graders    one after the other, each judges the answers in its own folder and sees nothing else
    grade                trainer    reads the folders and completes the report in the store

A grader runs on text that a model wrote, in an image that only the platform's owner can name. It gets no credentials,
no store and no other grader's folder, and the pod has a deadline. Its files, its exit code and its output are not
trusted.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from moe_formats.job_config import GradeJob
from moe_formats.resources.expert import Expert
from moe_operator.builders.job import job_manifest
from moe_operator.builders.metadata import child_labels
from moe_operator.builders.pod import (
    EPHEMERAL_STORAGE,
    NOTHING_RESERVED,
    Workload,
    config_text,
    container_security,
    pod_spec,
)
from moe_operator.config import Grader, OperatorConfig, Profile
from moe_operator.state import Role

#: Beginning of the names of graders' containers; the grader's number and name follow.
GRADER_PREFIX = "grader-"

#: Where the folders of all graders are mounted in the trainer's containers.
GRADINGS_PATH = "/moe/gradings"
#: Where a grader's own folder is mounted in its container.
GRADING_PATH = "/moe/grading"

#: Largest size of all folders together.
GRADINGS_LIMIT = "1Gi"

#: Limits of a grader's container, unless the platform's owner sets others.
GRADER_LIMITS = {"cpu": "1", "memory": "1Gi", EPHEMERAL_STORAGE: GRADINGS_LIMIT}

#: Seconds that the pod may take in addition to its graders: for pulling images, and for the trainer's containers.
SPARE_SECONDS = 600

_VOLUME = "gradings"


def build_grade_job(
    *,
    name: str,
    expert: Expert,
    job: GradeJob,
    graders: Sequence[Grader],
    claim: str,
    profile: Profile,
    config: OperatorConfig,
) -> dict[str, Any]:
    """Return the Job. It needs no accelerator. ``graders`` are those of the gradings in ``job``, in the same order."""
    labels = child_labels(
        pool=expert.spec.pool, role=Role.GRADE, expert=expert.metadata.name, revision=job.revision
    )
    work = Workload(
        name="grade",
        image=profile.image or config.images.trainer,
        command=("moe-trainer", "grade"),
        env={"MOE_JOB_CONFIG": config_text(job), "MOE_GRADINGS": GRADINGS_PATH},
        profile=profile,
        images=config.images,
        claim=claim,
        volumes={_VOLUME: (GRADINGS_PATH, {"emptyDir": {"sizeLimit": GRADINGS_LIMIT}})},
    )
    pod = pod_spec(work)
    names = [grading.grader.name for grading in job.gradings]
    pod["initContainers"] = [
        _handout(pod["containers"][0]),
        *(_grader(number, names[number], grader, config) for number, grader in enumerate(graders)),
    ]
    return job_manifest(
        name=name,
        owner=expert,
        labels=labels,
        config_digest=job.content_digest(),
        pod=pod,
        deadline=SPARE_SECONDS + sum(grader.timeout_seconds for grader in graders),
        config=config,
        ours=("handout", "grade"),
    )


def grader_of(container: str) -> str | None:
    """Return the name of the grader that runs in a container; None if the trainer does."""
    if not container.startswith(GRADER_PREFIX):
        return None
    return container.removeprefix(GRADER_PREFIX).partition("-")[2]


def _handout(grade: dict[str, Any]) -> dict[str, Any]:
    """Return the container that writes the folders of all graders. It is the only one that can; it only reads the store."""
    mounts = [{**mount, "readOnly": mount["name"] == "store"} for mount in grade["volumeMounts"]]
    changes = {"name": "handout", "command": ["moe-trainer", "handout"], "volumeMounts": mounts}
    return deepcopy({**grade, **changes})


def _grader(number: int, name: str, grader: Grader, config: OperatorConfig) -> dict[str, Any]:
    environment = {
        "MOE_GRADER_INPUT": f"{GRADING_PATH}/input.jsonl",
        "MOE_GRADER_OUTPUT": f"{GRADING_PATH}/output.jsonl",
        "HOME": GRADING_PATH,
        "TMPDIR": GRADING_PATH,
    }
    return {
        "name": f"{GRADER_PREFIX}{number}-{name}",
        "image": grader.image,
        "imagePullPolicy": config.images.pull_policy,
        **({"command": list(grader.command)} if grader.command else {}),
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "resources": {
            "requests": {EPHEMERAL_STORAGE: NOTHING_RESERVED},
            "limits": GRADER_LIMITS | grader.limits,
        },
        "securityContext": container_security(),
        # The end of its output is shown to people; nothing parses it.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": _VOLUME, "mountPath": GRADING_PATH, "subPath": str(number)}],
    }
