"""Sends a request to an Expert's servers, and again to another replica or revision until an answer begins.

A completion changes nothing on a server, so a request may be sent again until the first byte of an answer has
arrived. This lets revisions change without a failed request: if a connection is refused or dropped, or a server is
about to stop (503), the request goes to whatever address the policy names by then. But a request that servers
keep dropping may be what kills them, so it is given up after a few drops, whichever Experts they were of.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp
from yarl import URL

from moe_formats.routing_policy import RoutedExpert
from moe_gateway.balancer import Balancer, Replica

log = logging.getLogger(__name__)

#: Seconds that a request tries to reach a replica that answers.
PATIENCE_SECONDS = 5.0
#: Seconds before the replicas are tried again when every one of them has been: the first pause, and the longest.
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 1.0
#: How often a client's request may be dropped after it was sent before it is given up.
MAX_DROPS = 3
#: Seconds after which a connection that is not accepted counts as refused.
CONNECT_SECONDS = 1.0


class Unreachable(Exception):
    """No replica of the Expert answered in time; the message says what was tried."""


class GivenUp(Unreachable):
    """Servers dropped the request MAX_DROPS times, so it may be what ends them and is sent no more."""


class TooSlow(Exception):
    """The next byte of an answer did not arrive in time."""


class _Unanswered(Exception):
    """A replica gave no answer, so another one may be asked."""


class _Dropped(_Unanswered):
    """A replica accepted the request and then closed the connection."""


@dataclass(frozen=True)
class Question:
    """A request to an Expert's server; with `whole` the entire answer is awaited, not only its beginning.

    `most_tokens` is how many tokens the server may generate where the body does not say; None: as many as it likes.
    """

    path: str
    body: bytes
    whole: bool
    read_seconds: float
    most_tokens: int | None = None


@dataclass
class Asking:
    """One client's request: its id, and how often servers have dropped it so far, also those that only scored it."""

    request_id: str
    drops: int = 0


@dataclass(frozen=True)
class Answer:
    """An answer that has begun: `first` holds its first bytes, or all of them if the question asked for the whole."""

    expert: RoutedExpert
    response: aiohttp.ClientResponse
    first: bytes


class Backends:
    """The expert servers, reached through the balancer."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        balancer: Balancer,
        *,
        on_retry: Callable[[str], None] = lambda expert: None,
    ) -> None:
        """Use the session's connections; `on_retry` is called with the Expert of every attempt after the first."""
        self._session = session
        self._balancer = balancer
        self._on_retry = on_retry

    @asynccontextmanager
    async def ask(
        self,
        target: Callable[[], RoutedExpert],
        question: Question,
        asking: Asking,
        *,
        patience_seconds: float,
    ) -> AsyncIterator[Answer]:
        """Yield the first answer that begins; leaving the block discards the rest of it.

        `target` is called again for every attempt, so it can return a newer revision. With a patience of 0 every
        replica is tried once.

        Raises Unreachable, GivenUp or TooSlow.
        """
        with ExitStack() as held:
            answer = await self._search(target, question, asking, patience_seconds, held)
            held.callback(answer.response.close)
            yield answer

    async def _search(
        self,
        target: Callable[[], RoutedExpert],
        question: Question,
        asking: Asking,
        patience: float,
        held: ExitStack,
    ) -> Answer:
        """Try one replica after another; the request counts as in flight until `held` is closed."""
        deadline = time.monotonic() + patience
        tried: set[Replica] = set()
        trouble: _Unanswered = _Unanswered("its host name has no address")
        attempts, pauses = 0, _pauses()
        while asking.drops < MAX_DROPS:
            expert = target()
            replica = await self._pick(expert, tried)
            if replica is None:
                if time.monotonic() >= deadline:
                    raise Unreachable(f"no server of {expert.name} answered in {patience:g} s: {trouble}")
                tried.clear()
                await asyncio.sleep(next(pauses))
                continue
            attempts += 1
            if attempts > 1:
                self._on_retry(expert.name)
            try:
                with ExitStack() as attempt:
                    attempt.enter_context(self._balancer.in_flight(replica))
                    answer = await self._begin(expert, replica, question, asking)
                    held.push(attempt.pop_all())
                    return answer
            except _Unanswered as error:
                log.info("request %s: %s gave no answer: %s", asking.request_id, replica.url, error)
                trouble = error
                tried.add(replica)
                self._balancer.failed(replica)
                asking.drops += isinstance(error, _Dropped)
        raise GivenUp(f"{asking.drops} servers of {target().name} dropped the request: {trouble}")

    async def _pick(self, expert: RoutedExpert, tried: set[Replica]) -> Replica | None:
        url = URL(expert.url)
        return await self._balancer.pick(url.host or "", url.port or 80, avoid=tried)

    async def _begin(
        self, expert: RoutedExpert, replica: Replica, question: Question, asking: Asking
    ) -> Answer:
        """Send the request to one replica and wait for the first bytes of its answer."""
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_SECONDS, sock_read=question.read_seconds)
        headers = {
            "Host": URL(expert.url).authority,
            "Content-Type": "application/json",
            "x-request-id": asking.request_id,
        }
        if question.most_tokens is not None:
            headers["x-moe-max-tokens"] = str(question.most_tokens)
        url = f"{replica.url}{question.path}"
        with ExitStack() as opened:
            try:
                response = await self._session.post(
                    url, data=question.body, headers=headers, timeout=timeout, allow_redirects=False
                )
                opened.callback(response.close)
                _check_is_meant(expert, response)
                first = await (response.read() if question.whole else response.content.readany())
            except aiohttp.SocketTimeoutError:
                raise TooSlow(f"{expert.name} sent nothing for {question.read_seconds:g} s") from None
            except aiohttp.ConnectionTimeoutError:
                raise _Unanswered(f"not accepted within {CONNECT_SECONDS:g} s") from None
            except aiohttp.ClientConnectorError as error:
                raise _Unanswered(error.os_error.strerror or "it cannot be connected to") from None
            except aiohttp.ClientError as error:
                raise _Dropped(f"the connection broke ({type(error).__name__})") from None
            opened.pop_all()
            return Answer(expert, response, first)


def _pauses() -> Iterator[float]:
    """Yield the seconds to wait before each round of attempts: twice as long each time, each a little shortened by chance.

    Without it, every request that waits would ask a server that is stopping ten times per second, all at once.
    """
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield pause * random.uniform(0.5, 1.0)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _check_is_meant(expert: RoutedExpert, response: aiohttp.ClientResponse) -> None:
    """Raise _Unanswered for a server that is stopping, or that has taken over the address of another one."""
    if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
        raise _Unanswered("the server is not ready, or about to stop")
    revision = response.headers.get("x-moe-revision", expert.revision)
    if revision != expert.revision:
        raise _Unanswered(f"the server serves {revision}, not {expert.revision}")
