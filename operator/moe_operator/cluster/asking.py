"""Asks pods questions over HTTP. Nothing that a manifest says becomes part of a URL, except an address that a pod can have."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable

import aiohttp
from yarl import URL

from moe_formats.addresses import OUTSIDE_A_CLUSTER, is_pod_address
from moe_operator.state import Manifest

log = logging.getLogger(__name__)

#: Seconds after which an answer is no longer waited for.
ANSWER_SECONDS = 2.0
#: Largest answer that is read, in bytes, unless the asker says otherwise.
LONGEST_ANSWER = 64 * 1024
#: Largest number of pods that are asked at the same time.
AT_ONCE = 32
#: Seconds of pause after a round that failed as a whole.
PAUSE_SECONDS = 5.0


class PodClient:
    """Connections to pods."""

    def __init__(self) -> None:
        self._own_address = os.environ.get("POD_IP") or OUTSIDE_A_CLUSTER
        self._limit = asyncio.Semaphore(AT_ONCE)
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS))

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def get(
        self, pod: Manifest, port: int, path: str, *, longest: int = LONGEST_ANSWER
    ) -> bytes | None:
        """Return the body of an answer; None if there is none, or if it is an error, a redirect or too long.

        A pod in its node's network is not asked, since its address is the node's.
        """
        address = (pod.get("status") or {}).get("podIP", "")
        in_node_network = (pod.get("spec") or {}).get("hostNetwork", False)
        if in_node_network or not is_pod_address(address, own=self._own_address):
            return None
        url = URL.build(scheme="http", host=address, port=port, path=path)
        try:
            async with self._limit, self._session.get(url, allow_redirects=False) as response:
                text = await response.content.read(longest + 1)
                while not response.content.at_eof() and len(text) <= longest:
                    text += await response.content.read(longest + 1 - len(text))
                return text if response.status == 200 and len(text) <= longest else None
        except (aiohttp.ClientError, TimeoutError) as error:
            log.debug("no answer from %s: %r", url, error)
            return None


async def every(seconds: float, ask: Callable[[], Awaitable[None]]) -> None:
    """Make one round after the other, with that pause between two, until cancelled."""
    while True:
        try:
            await ask()
        except Exception:  # Whatever this round met, the next one must still be made.
            log.exception("asking pods failed and is tried again in %g s", PAUSE_SECONDS)
            await asyncio.sleep(PAUSE_SECONDS)
        await asyncio.sleep(seconds)
