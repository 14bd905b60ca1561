"""How a Job says that it cannot go on: one exception that becomes the Failure in its headline.

    JobError            the inputs are wrong: they would fail again, so there is no retry (exit code 64)
    └── TransientError  something else is wrong: another attempt may succeed (exit code 1)

Any other exception that escapes a command is a bug: exit code 1, reason ``Crashed``.
"""

import errno
import json
import re

from moe_formats.job_report import EXIT_ERROR, EXIT_INPUT_ERROR, Failure

#: Reason of a process that ends because another process of its run did. That process knows the cause.
PEER_LOST = "PeerLost"

#: Largest message in a headline, in bytes of JSON, so that it also fits Failure.message.
MAX_MESSAGE_BYTES = 1500


_LINE_ENDS = re.compile(r"[\t\n\v\f\r]+")


def escaped(character: str) -> str:
    """Return a character for a message; one that shows nothing or changes how others are shown is written as its code."""
    return character if character.isprintable() else character.encode("unicode_escape").decode()


class JobError(Exception):
    """The inputs are wrong. The message names the field or file, its value, the rule that it breaks, and the fix."""

    retryable = False

    def __init__(self, reason: str, message: str) -> None:
        if not message.isprintable():  # files and records may be called anything
            message = "".join(map(escaped, _LINE_ENDS.sub(" ", message)))
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message

    @property
    def exit_code(self) -> int:
        """Return the exit code of the process, which the Job's pod failure policy reads."""
        return EXIT_ERROR if self.retryable else EXIT_INPUT_ERROR

    def headline(self) -> Failure:
        """Return the failure for the termination message, its text cut to MAX_MESSAGE_BYTES."""
        message = self.message
        while (excess := len(json.dumps(message, ensure_ascii=False).encode()) - MAX_MESSAGE_BYTES) > 0:
            message = message[: -max(1, excess // 6)]
        return Failure(reason=self.reason, message=message, retryable=self.retryable)


class TransientError(JobError):
    """Something other than the inputs is wrong, such as a full disk, so that another attempt may succeed."""

    retryable = True


def from_exception(error: BaseException) -> JobError:
    """Return a JobError for any exception that escaped a command."""
    if isinstance(error, JobError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = error.filename or "the store"
        return TransientError(
            "DiskFull",
            f"no space left while writing {where}; everything committed before is intact. "
            "Enlarge the pool's claim or remove old revisions, and the next attempt goes on from there.",
        )
    return TransientError("Crashed", f"{type(error).__name__}: {error}")
