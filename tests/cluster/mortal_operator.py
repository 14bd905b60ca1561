"""The operator, but it is killed (-9) right after a number of writes.

The API server has done the last write; the operator has not heard of it.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from moe_operator.cluster.api_client import ApiClient
from moe_operator.main import main


def live(writes: int, arguments: list[str], log: Path) -> None:
    """Be the operator in this process until it has written so often. Its writes and what it says go to a file."""
    with log.open("wb", buffering=0) as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    sys.argv = ["moe-operator", *arguments]
    send, left = ApiClient._send, writes

    async def send_and_die(self: ApiClient, method: str, path: str, *rest: Any) -> dict[str, Any]:
        """Send a request; after the last write that is allowed, die. The Lease does not count."""
        nonlocal left
        answer = await send(self, method, path, *rest)
        if method != "GET" and "/leases/" not in path and not path.endswith("/leases"):
            print(WRITE, method, path, flush=True)
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
                await asyncio.sleep(60)
        return answer

    ApiClient._send = send_and_die  # type: ignore[method-assign]
    main()


#: Begins the line of a write.
WRITE = "WRITE"


def writes_in(log: Path) -> list[str]:
    """Return method and path of each write that a life has left in its file."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.removeprefix(f"{WRITE} ") for line in lines if line.startswith(WRITE)]
