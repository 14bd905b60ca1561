"""Deterministic names: from what an object is for, so that making it twice makes it once."""

import re

from moe_formats.format import digest_of

#: After a revision's number, or after a digest: where neither stands before it, it is part of a digest.
_ATTEMPT = re.compile(r"(?:-[0-9]+-[aeg]|-[0-9a-f]{8}-r)([0-9]+)$")


def revision_name(expert: str, number: int) -> str:
    """Return the name of an Expert's n-th revision, of its servers and of their Service."""
    return f"{expert}-{number}"


def expert_of(revision: str) -> str:
    """Return the Expert that a revision's name belongs to."""
    return revision.rpartition("-")[0]


def snapshot_job_name(expert: str, request: str, attempt: int) -> str:
    """Return the name of a snapshot Job: one per request, ``-r2`` and so on where it had to be repeated."""
    return _repeated(f"{expert}-snapshot-{_short(request)}", attempt)


def training_job_name(revision: str, attempt: int) -> str:
    """Return the name of a training attempt."""
    return f"{revision}-a{attempt}"


def evaluate_job_name(revision: str, attempt: int) -> str:
    """Return the name of an evaluation attempt."""
    return f"{revision}-e{attempt}"


def grade_job_name(revision: str, attempt: int) -> str:
    """Return the name of an attempt to have a revision's answers graded."""
    return f"{revision}-g{attempt}"


def distill_job_name(pool: str, roster: str, attempt: int) -> str:
    """Return the name of the Job that makes the table of one roster."""
    return _repeated(f"{pool}-distill-{_short(roster)}", attempt)


def attempt_of(job: str) -> int:
    """Return the attempt that a Job's name counts; 1 where it counts none."""
    match = _ATTEMPT.search(job)
    return int(match.group(1)) if match else 1


def gateway_name(pool: str) -> str:
    """Return the name of a pool's gateway and of its Service."""
    return f"{pool}-gateway"


def policy_name(pool: str) -> str:
    """Return the name of the ConfigMap with a pool's routing policy."""
    return f"{pool}-routing"


def _repeated(name: str, attempt: int) -> str:
    # `r` is no hexadecimal digit, so a repetition is never taken for the end of a digest.
    return name if attempt == 1 else f"{name}-r{attempt}"


def _short(text: str) -> str:
    return digest_of(text).removeprefix("sha256:")[:8]
