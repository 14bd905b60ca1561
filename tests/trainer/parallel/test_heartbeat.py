"""The first process may work alone for longer than the others would wait, as long as it says that it lives."""

import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).parent / "heartbeat_worker.py"


@pytest.mark.parametrize(("how", "told"), [("alive", "done"), ("quiet", "PeerLost")])
def test_others_wait_for_one_that_says_it_is_alive_and_for_no_other(how: str, told: str) -> None:
    done = subprocess.run(
        [sys.executable, str(WORKER), how], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == [told], done.stderr
