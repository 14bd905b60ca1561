"""Names of objects, derived from what they are for: creating an object twice gives one object, since the names collide."""

import re

from moe_formats.format import digest_of
from moe_formats.resources.lifecycle import Act

#: The attempt at the end of a Job's name. It follows a revision's number or a digest: anything else is part of a name.
_ATTEMPT = re.compile(r"(?:-[0-9]+-[aeg]|-[0-9a-f]{8}-r)([0-9]+)$")

#: The name of a Job that works for a revision.
_OF_REVISION = re.compile(r"(.+-[0-9]+)-[aeg][0-9]+")


def revision_name(expert: str, number: int) -> str:
    """Return the name of an Expert's revision by number; its Deployment and its Service have the same name."""
    return f"{expert}-{number}"


def expert_of(revision: str) -> str:
    """Return the name of the Expert that a revision belongs to."""
    return revision.rpartition("-")[0]


def snapshot_job_name(expert: str, request: str, attempt: int) -> str:
    """Return the name of a snapshot Job. Attempts after the first end in ``-r2``, ``-r3`` and so on."""
    return _repeated(f"{expert}-snapshot-{_short(request)}", attempt)


def training_job_name(revision: str, attempt: int) -> str:
    """Return the name of the Job of a training attempt."""
    return f"{revision}-a{attempt}"


def evaluate_job_name(revision: str, attempt: int) -> str:
    """Return the name of the Job of an evaluation attempt."""
    return f"{revision}-e{attempt}"


def grade_job_name(revision: str, attempt: int) -> str:
    """Return the name of the Job of an attempt to have a revision's answers graded."""
    return f"{revision}-g{attempt}"


def drift_job_name(expert: str, request: str, attempt: int) -> str:
    """Return the name of the Job that measures drift. Later attempts end in ``-r2`` and so on."""
    return _repeated(f"{expert}-drift-{_short(request)}", attempt)


def distill_job_name(pool: str, roster: str, attempt: int) -> str:
    """Return the name of the Job that makes the table of a roster. Later attempts end in ``-r2`` and so on."""
    return _repeated(f"{pool}-distill-{_short(roster)}", attempt)


def matrix_job_name(pool: str, extent: str, attempt: int) -> str:
    """Return the name of the Job that fills a full matrix. Later attempts end in ``-r2`` and so on."""
    return _repeated(f"{pool}-matrix-{_short(extent)}", attempt)


def proposal_name(expert: str, act: Act, evidence: str) -> str:
    """Return the name of the proposal of an act that rests on evidence with a digest: same evidence, same proposal."""
    return f"{expert}-{act.value.lower()}-{evidence.removeprefix('sha256:')[:8]}"


def attempt_of(job: str) -> int:
    """Return the number of the attempt that a Job's name ends in; 1 if it ends in none."""
    match = _ATTEMPT.search(job)
    return int(match.group(1)) if match else 1


def revision_of(job: str) -> str | None:
    """Return the revision that a Job with a name trains, evaluates or grades; None for a Job of another kind.

    A name never changes. A label could be changed so that one revision got another's evidence.
    """
    match = _OF_REVISION.fullmatch(job)
    return match.group(1) if match else None


def is_attempt(job: str, first: str) -> bool:
    """Return whether a Job's name is that of a first attempt, or of a later attempt at the same."""
    return job == first or job.startswith(f"{first}-r")


def gateway_name(pool: str) -> str:
    """Return the name of a pool's gateway Deployment and of its Service."""
    return f"{pool}-gateway"


def policy_name(pool: str) -> str:
    """Return the name of the ConfigMap with a pool's routing policy."""
    return f"{pool}-routing"


def _repeated(name: str, attempt: int) -> str:
    # `r` is not a hexadecimal digit, so the suffix is never mistaken for part of a digest.
    return name if attempt == 1 else f"{name}-r{attempt}"


def _short(text: str) -> str:
    return digest_of(text).removeprefix("sha256:")[:8]
