"""The operator, but it is killed (-9) right after a number of writes: the first argument.

The API server has done the last write; the operator has not heard of it.
"""

import asyncio
import os
import signal
import sys
from typing import Any

from moe_operator.cluster.api_client import ApiClient
from moe_operator.main import main

left = int(sys.argv.pop(1))
send = ApiClient._send


async def send_and_die(self: ApiClient, method: str, path: str, *rest: Any) -> dict[str, Any]:
    """Send a request; after the last write that is allowed, die. The Lease does not count."""
    global left
    answer = await send(self, method, path, *rest)
    if method != "GET" and "/leases/" not in path and not path.endswith("/leases"):
        print(method, path, flush=True)
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
            await asyncio.sleep(60)
    return answer


ApiClient._send = send_and_die  # type: ignore[method-assign]
main()
