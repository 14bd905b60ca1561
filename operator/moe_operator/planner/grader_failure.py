"""What became of a grader that kept its Job from a result, in words; its own words are quoted and never parsed."""

from moe_operator.builders.grade_job import grader_of
from moe_operator.state import ObservedJob, ObservedPod

#: Of what a grader printed last, so many characters are quoted.
QUOTED = 500


def grader_failure(job: ObservedJob) -> str | None:
    """Return why a grade Job has no result; None where one of our own containers ended badly and says why itself."""
    pod = max(job.pods, key=lambda item: item.created, default=None)
    if pod is None:
        return f"the pod of {job.name} is gone, and with it what its graders said"
    name = grader_of(pod.container)
    if name is None and pod.ended is None:
        return None
    who = f"grader {name}" if name is not None else f"what was graded in {job.name}"
    return (
        f"{who} {_end(pod)}. None of its verdicts counts, for the model or against it: correct the program in its "
        "image, or its entry under `graders` in the chart's values"
    )


def _end(pod: ObservedPod) -> str:
    if pod.ended is not None:
        reason, message = pod.ended
        late = "was not done in time" if reason == "DeadlineExceeded" else "was stopped"
        return f"{late} ({reason}: {_printable(message)})"
    said = _printable(pod.message)[-QUOTED:]
    return f"ended with exit code {pod.exit_code}" + (f": {said}" if said else "")


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()
