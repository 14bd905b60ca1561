"""Reads the body of a request, within limits of size and time.

Bodies that are still arriving take no place of a request, or clients that send slowly would keep out all others. What they
may take together is memory, so that is what has a limit.
"""

import asyncio

from aiohttp import web

#: Seconds within which the body of a request must have arrived.
BODY_SECONDS = 30.0
#: Bytes that all bodies that are arriving may have together; two of the largest that are allowed always fit.
ARRIVING_BYTES = 64 * 1024 * 1024


class BodyError(Exception):
    """A body that cannot be read: the message says why, `status` and `code` are for the answer."""

    def __init__(self, status: int, message: str, code: str) -> None:
        """Take the HTTP status, what is wrong, and the code of OpenAI's errors."""
        super().__init__(message)
        self.status = status
        self.code = code


class Bodies:
    """Reads the bodies of one server's requests."""

    def __init__(self) -> None:
        """Begin with no body arriving."""
        self._arriving = 0

    async def read(self, request: web.Request, limit: int) -> bytes:
        """Return the body, decompressed.

        Raises BodyError: 413 above `limit` bytes, 408 if it takes too long, 400 if it cannot be decompressed or breaks
        off, 429 if too many bytes of others are arriving.
        """
        if (request.content_length or 0) > limit:
            raise _too_large(limit)
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in request.content.iter_any():
                    self._arriving += len(chunk)
                    body += chunk
                    self._check(len(body), limit)
        except TimeoutError:
            raise BodyError(408, f"the body did not arrive within {BODY_SECONDS:g} s", "timeout") from None
        except web.RequestPayloadError as error:
            raise BodyError(400, f"the body cannot be read: {error}", "unreadable_body") from None
        finally:
            self._arriving -= len(body)
        return bytes(body)

    def _check(self, size: int, limit: int) -> None:
        if size > limit:
            raise _too_large(limit)
        if self._arriving > max(ARRIVING_BYTES, 2 * limit):
            message = "the bodies of too many requests are arriving at once: try again later"
            raise BodyError(429, message, "too_many_requests")


def _too_large(limit: int) -> BodyError:
    return BodyError(413, f"the body is larger than {limit} bytes", "request_too_large")
