"""How a Job says that it cannot go on: one exception that becomes the Failure in its headline.

    JobError            input is wrong: the same inputs fail again (exit code 64, no retry)
    └── TransientError  the world is wrong: another attempt may succeed (exit code 1)

Anything else that escapes a command is a fault of ours: exit code 1, reason ``Crashed``.
"""

import errno
import json

from moe_formats.job_report import EXIT_ERROR, EXIT_INPUT_ERROR, Failure

#: The reason of a process that ends because another of its run did: that one knows more.
PEER_LOST = "PeerLost"

#: Most bytes of a message in its headline, as JSON: what Failure.message allows, whatever the characters.
MAX_MESSAGE_BYTES = 1500


class JobError(Exception):
    """The inputs are wrong. The message names the field or file, the value, the rule and the fix."""

    retryable = False

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message

    @property
    def exit_code(self) -> int:
        """Return the process's exit code, which the Job's pod failure policy reads."""
        return EXIT_ERROR if self.retryable else EXIT_INPUT_ERROR

    def headline(self) -> Failure:
        """Return what the termination message says."""
        message = self.message
        while (excess := len(json.dumps(message, ensure_ascii=False).encode()) - MAX_MESSAGE_BYTES) > 0:
            message = message[: -max(1, excess // 6)]
        return Failure(reason=self.reason, message=message, retryable=self.retryable)


class TransientError(JobError):
    """Something around the Job is wrong, such as a full disk; the inputs may be fine."""

    retryable = True


def from_exception(error: BaseException) -> JobError:
    """Return the JobError that stands for any exception that a command let through."""
    if isinstance(error, JobError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = error.filename or "the store"
        return TransientError(
            "DiskFull",
            f"no space left while writing {where}; everything committed before is intact. "
            "Enlarge the pool's storage or remove old revisions, and the next attempt goes on from there.",
        )
    return TransientError("Crashed", f"{type(error).__name__}: {error}")
