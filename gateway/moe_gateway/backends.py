"""Asking the servers of an Expert: on another replica, or another revision, as long as nothing came back.

A completion changes nothing on a server, so a request may be sent again until the first byte of an
answer has arrived. That is what makes a handover without a failed request: a connection that is refused
or dropped, and a server that is about to stop (503), are tried anew at whatever address the policy names
by then.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp
from yarl import URL

from moe_gateway.balancer import Balancer, Replica
from moe_gateway.routing_policy import RoutedExpert

#: Seconds for which a request looks for a replica that answers.
PATIENCE_SECONDS = 5.0
#: Seconds between two looks where no replica is left to try.
PAUSE_SECONDS = 0.1
#: Seconds until a connection that is not accepted counts as refused.
CONNECT_SECONDS = 1.0


class Unreachable(Exception):
    """No replica of the Expert answered in time; the text says what was tried."""


class TooSlow(Exception):
    """The next byte of an answer did not come in time."""


class _Unanswered(Exception):
    """A replica gave no answer, so another may be asked."""


@dataclass(frozen=True)
class Answer:
    """An answer that has begun: its first bytes (all of them, where it was asked whole) are here."""

    expert: RoutedExpert
    response: aiohttp.ClientResponse
    first: bytes


class Backends:
    """The expert servers, by way of the balancer."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        balancer: Balancer,
        *,
        on_retry: Callable[[str], None] = lambda expert: None,
    ) -> None:
        """Use the session's connections; `on_retry` hears the Expert of every attempt after the first."""
        self._session = session
        self._balancer = balancer
        self._on_retry = on_retry

    @asynccontextmanager
    async def ask(
        self,
        target: Callable[[], RoutedExpert],
        path: str,
        body: bytes,
        *,
        whole: bool,
        read_seconds: float,
        patience_seconds: float | None = None,
    ) -> AsyncIterator[Answer]:
        """Yield the first answer that begins; leaving the block drops what is left of it.

        `target` is asked again at every attempt, so that it can name a newer revision. `whole` waits for
        all of the answer. Raises Unreachable or TooSlow.
        """
        patience = PATIENCE_SECONDS if patience_seconds is None else patience_seconds
        deadline = time.monotonic() + patience
        tried: set[Replica] = set()
        trouble = "its name has no address"
        attempts = 0
        while True:
            expert = target()
            url = URL(expert.url)
            replica = await self._balancer.pick(url.host or "", url.port or 80, avoid=tried)
            if replica is not None:
                attempts += 1
                if attempts > 1:
                    self._on_retry(expert.name)
                with self._balancer.in_flight(replica):
                    try:
                        answer = await self._begin(expert, replica, url, path, body, whole, read_seconds)
                    except _Unanswered as error:
                        trouble = str(error)
                        tried.add(replica)
                        self._balancer.failed(replica)
                    else:
                        try:
                            yield answer
                        finally:
                            answer.response.close()
                        return
            elif time.monotonic() >= deadline:
                raise Unreachable(f"no server of {expert.name} answered in {patience:g} s: {trouble}")
            else:
                tried.clear()
                await asyncio.sleep(PAUSE_SECONDS)

    async def _begin(
        self,
        expert: RoutedExpert,
        replica: Replica,
        url: URL,
        path: str,
        body: bytes,
        whole: bool,
        read_seconds: float,
    ) -> Answer:
        """Send the request to one replica and wait for the first bytes of its answer."""
        response: aiohttp.ClientResponse | None = None
        try:
            response = await self._session.post(
                f"{replica.url}{path}",
                data=body,
                headers={"Host": url.authority, "Content-Type": "application/json"},
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=CONNECT_SECONDS, sock_read=read_seconds
                ),
                allow_redirects=False,
            )
            _check_is_meant(expert, response)
            first = await (response.read() if whole else response.content.readany())
            return Answer(expert, response, first)
        except aiohttp.SocketTimeoutError:
            _close(response)
            raise TooSlow(f"{expert.name} sent nothing for {read_seconds:g} s") from None
        except aiohttp.ClientConnectorError as error:
            raise _Unanswered(f"{replica.url}: {error.os_error.strerror}") from None
        except (aiohttp.ClientError, _Unanswered) as error:
            _close(response)
            raise _Unanswered(f"{replica.url}: {error or type(error).__name__}") from None
        except BaseException:
            _close(response)
            raise


def _check_is_meant(expert: RoutedExpert, response: aiohttp.ClientResponse) -> None:
    """Refuse the answer of a server that is stopping, or that came to an address after its owner went."""
    if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
        raise _Unanswered("the server is not ready or about to stop")
    revision = response.headers.get("x-moe-revision", expert.revision)
    if revision != expert.revision:
        raise _Unanswered(f"the server serves {revision}, not {expert.revision}")


def _close(response: aiohttp.ClientResponse | None) -> None:
    if response is not None:
        response.close()
