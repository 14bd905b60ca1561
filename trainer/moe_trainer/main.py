"""``moe-trainer <command>``: runs one command, whose code is imported only when that command is given.

    snapshot  train  evaluate  drift  matrix  distill  compose     read MOE_JOB_CONFIG, write a headline, exit
    handout  grade                                                 the same, before and after the graders in one pod
    serve                                                          reads MOE_SERVE_CONFIG, answers until SIGTERM
    digest FOLDER                                                  prints the base.digest of a checkpoint

Exit codes: 0 done; 1 another attempt may succeed; 64 the input is wrong (job_report.py). A Job's function is
``run(job, environment) -> headline``. Whatever it raises becomes a Failure headline here, the only place where
failures are reported.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from moe_formats.failure import PEER_LOST, JobError, from_exception
from moe_formats.format import Format
from moe_formats.job_config import parse_job_config
from moe_formats.job_report import EXIT_INPUT_ERROR, EXIT_OK, MAX_HEADLINE_BYTES, Failure
from moe_trainer.environment import Environment
from moe_trainer.untrusted import is_panic

#: The Jobs' commands, each with the kind of Job config that it reads.
JOBS = {
    kind: kind for kind in ("snapshot", "train", "evaluate", "drift", "matrix", "grade", "distill", "compose")
} | {"handout": "grade"}
USAGE = f"usage: moe-trainer {{{','.join(JOBS)},serve,digest FOLDER}}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given == ["serve"]:
        serve: Callable[[], int] = importlib.import_module("moe_trainer.serve").main
        return serve()
    if len(given) == 2 and given[0] == "digest":
        return _say_digest(Path(given[1]))
    if len(given) == 1 and given[0] in JOBS:
        return _run_job(given[0])
    print(USAGE, file=sys.stderr)
    return EXIT_OK if given in (["-h"], ["--help"]) else EXIT_INPUT_ERROR


def _say_digest(folder: Path) -> int:
    digest_of_folder: Callable[[Path], str] = importlib.import_module(
        "moe_trainer.hugging_face.importing"
    ).digest_of_folder
    try:
        print(digest_of_folder(folder))
    except JobError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return EXIT_OK


def _run_job(command: str) -> int:
    try:
        environment = Environment.read(os.environ)
        job = _read_job(JOBS[command], os.environ.get("MOE_JOB_CONFIG", ""))
        run: Callable[[Any, Environment], Format] = importlib.import_module(f"moe_trainer.{command}").run
        _leave_headline(run(job, environment))
        return EXIT_OK
    except BaseException as error:  # the border: whatever happened must reach the headline
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        failed = from_exception(error)
        if failed is not error:
            traceback.print_exc()
        print(failed, file=sys.stderr, flush=True)
        _leave_headline(failed.headline())
        return failed.exit_code


def _read_job(kind: str, text: str) -> Any:
    """Return the config of a Job; raises JobError (InvalidConfig, PathNotAllowed) with the field's name."""
    try:
        job = parse_job_config(text)
    except ValidationError as error:
        first = error.errors()[0]
        refused_path = first["type"] == "value_error" and first["loc"][-1:] == ("path",)
        where = ".".join(map(str, first["loc"])) or "the text"
        raise JobError(
            "PathNotAllowed" if refused_path else "InvalidConfig",
            f"MOE_JOB_CONFIG: {where}: {first['msg']}, got {first['input']!r:.100}",
        ) from None
    if job.kind != kind:
        raise JobError(
            "InvalidConfig", f"MOE_JOB_CONFIG has kind {job.kind!r}, but this command needs kind {kind!r}."
        )
    return job


def _leave_headline(headline: Format) -> None:
    """Write the termination message. If that fails, the report in the store still has the result."""
    text = headline.to_json().encode()
    if len(text) > MAX_HEADLINE_BYTES:
        raise AssertionError(
            f"headline of {len(text)} bytes: at most {MAX_HEADLINE_BYTES} fit a termination message"
        )
    path = os.environ.get("MOE_TERMINATION_LOG") or "/dev/termination-log"
    if _said_already(headline, path):
        return
    try:
        with open(path, "wb") as file:
            file.write(text)
    except OSError as error:
        print(f"the headline could not be written to {path}: {error.strerror}", file=sys.stderr)


def _said_already(headline: Format, path: str) -> bool:
    """Return whether this process only lost a peer, and that peer, in the same pod, has reported the cause already."""
    if not (isinstance(headline, Failure) and headline.reason == PEER_LOST):
        return False
    try:
        return os.path.getsize(path) > 0
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
