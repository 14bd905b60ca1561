"""Decides which pods are those of a Job, and whose reports can be believed. Pure functions.

A pod can name any Job as its controller, so a reference to the Job's uid alone proves little. The Job controller gives
its pods more, and keeps account of them in the Job's status:

name          ``<job>-<index>-<5 letters>`` for an Indexed Job, ``<job>-<5 letters>`` for another one
labels        ``batch.kubernetes.io/controller-uid``, ``…/job-name`` and, if Indexed, ``…/job-completion-index``
finalizer     ``batch.kubernetes.io/job-tracking``, until the Job's status has counted the pod
status        ``uncountedTerminatedPods``, then ``succeeded`` and ``completedIndexes``, or ``failed``

A report counts if the Job controller has counted its pod or is about to, and if no other pod claims the same place in
the Job: with ``backoffLimit: 0``, each place is taken once. Whoever may create pods and change Jobs in a namespace can
still imitate all of this. docs/decisions/0024 says what that means.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from moe_operator.state import Manifest

_PREFIX = "batch.kubernetes.io"
JOB_NAME = f"{_PREFIX}/job-name"
CONTROLLER_UID = f"{_PREFIX}/controller-uid"
#: Label of a pod of an Indexed Job: the number of the pod within the Job.
COMPLETION_INDEX = f"{_PREFIX}/job-completion-index"
#: Finalizer that a pod bears until the status of its Job has counted it.
TRACKING = f"{_PREFIX}/job-tracking"
#: Largest length of the part of a generated name that comes before the random letters.
LONGEST_PREFIX = 58


@dataclass(frozen=True)
class JobPods:
    """The pods of a Job, those whose reports are believed, and why others are not."""

    pods: tuple[Manifest, ...] = ()
    believed: tuple[Manifest, ...] = ()
    #: Which pods contradict each other, as a sentence; None if none do.
    doubt: str | None = None


def job_pods(job: Manifest, candidates: Iterable[Manifest]) -> JobPods:
    """Return which of the pods that name a Job as their controller are its pods, and which are believed."""
    metadata = job["metadata"]
    pods = tuple(pod for pod in candidates if bears_marks(pod, metadata["name"], metadata["uid"]))
    places = defaultdict(list)
    for pod in pods:
        places[index_of(pod)].append(pod)
    contested = [claimants for claimants in places.values() if len(claimants) > 1]
    alone = [claimants[0] for claimants in places.values() if len(claimants) == 1]
    believed = tuple(pod for pod in alone if index_of(pod) < _width(job) and _is_counted(job, pod))
    return JobPods(pods, believed, _doubt(job, contested))


def bears_marks(pod: Manifest, job: str, uid: str) -> bool:
    """Return whether a pod bears the name and the labels that the Job controller gives to the pods of a Job."""
    metadata = pod["metadata"]
    marks = metadata.get("labels") or {}
    index = marks.get(COMPLETION_INDEX)
    if index is not None and not _is_number(index):
        return False
    named = str(metadata["name"]).startswith(_prefix(job, index))
    return named and marks.get(JOB_NAME) == job and marks.get(CONTROLLER_UID) == uid


def _prefix(job: str, index: str | None) -> str:
    """Return how the names of a Job's pods begin, cut as the Job controller and the API server cut them."""
    if index is None:
        return f"{job}-"[:LONGEST_PREFIX]
    ending = f"-{index}-"
    return job[: LONGEST_PREFIX - len(ending)] + ending


def index_of(pod: Manifest) -> int:
    """Return the number of a pod within its Job; 0 for a pod of a Job that is not Indexed."""
    index = (pod["metadata"].get("labels") or {}).get(COMPLETION_INDEX, "0")
    return int(index) if _is_number(index) else 0


def _is_counted(job: Manifest, pod: Manifest) -> bool:
    """Return whether the Job controller has counted a pod that has ended, or will: it still bears the finalizer."""
    metadata, status = pod["metadata"], job.get("status") or {}
    if TRACKING in (metadata.get("finalizers") or ()):
        return True
    phase = (pod.get("status") or {}).get("phase")
    outcome = {"Succeeded": "succeeded", "Failed": "failed"}.get(str(phase))
    if outcome is None:
        return False
    if metadata["uid"] in (status.get("uncountedTerminatedPods") or {}).get(outcome, ()):
        return True
    if outcome == "succeeded" and _is_indexed(job):
        return index_of(pod) in set(
            chain.from_iterable(_ranges(status.get("completedIndexes", ""), _width(job)))
        )
    return bool(status.get(outcome, 0) > 0)


def _ranges(text: str, width: int) -> Iterable[range]:
    """Yield the ranges of ``completedIndexes``, such as ``0,2-4``, as far as they lie within the Job."""
    for part in text.split(","):
        first, _, last = part.partition("-")
        if _is_number(first) and _is_number(last or first):
            yield range(min(int(first), width), min(int(last or first) + 1, width))


def _width(job: Manifest) -> int:
    return int((job.get("spec") or {}).get("completions", 1))


def _is_indexed(job: Manifest) -> bool:
    return (job.get("spec") or {}).get("completionMode") == "Indexed"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 9


def _doubt(job: Manifest, contested: Sequence[Sequence[Manifest]]) -> str | None:
    if not contested:
        return None
    names = sorted(str(pod["metadata"]["name"]) for pod in contested[0])
    return (
        f"pods {' and '.join(names[:4])} both claim to be pod {index_of(contested[0][0])} of Job "
        f"{job['metadata']['name']}, so no report of theirs is believed: delete the pod that the Job controller did not "
        "create, and find out who created it"
    )
