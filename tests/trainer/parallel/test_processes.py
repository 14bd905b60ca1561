"""The first process may work alone for longer than the others would wait, as long as it says that it lives."""

import subprocess
import sys
from pathlib import Path

WORKER = "tests.trainer.parallel.processes_worker"
ROOT = Path(__file__).parents[3]


def test_others_wait_for_one_that_says_it_is_alive_and_for_no_other() -> None:
    started = {
        how: subprocess.Popen(
            [sys.executable, "-m", WORKER, how],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for how in ("alive", "quiet")  # at once, for both do little but wait
    }
    said = {how: process.communicate(timeout=60) for how, process in started.items()}
    told = {how: output.split() for how, (output, _) in said.items()}
    assert told == {"alive": ["done"], "quiet": ["PeerLost"]}, said
