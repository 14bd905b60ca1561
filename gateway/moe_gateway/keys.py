"""API keys: if a file of keys is configured, every request below /v1 must carry one.

It is a bearer token, or in the header x-api-key for those who come through something that keeps Authorization for itself,
such as the proxy of an API server.
"""

import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path

from moe_formats.beneath import RefusedError, Version, mounted_version, read_mounted
from moe_gateway.openai import ApiError


class ApiKeys:
    """The keys in a file, one per line; `#` begins a comment. The file is read again whenever it changes.

    Only hashes of the keys stay in memory. A file that is missing or empty admits nobody, nor does what is no regular file of
    the folder that it is in, such as a mounted Secret.
    """

    def __init__(self, path: Path | None) -> None:
        """Read keys from `path`; None admits everybody."""
        self._path = path
        self._version: Version | None = None
        self._hashes: tuple[bytes, ...] = ()

    def check(self, headers: Mapping[str, str]) -> str | None:
        """Return a name for the caller, made from the hash of its key; None if there are no keys.

        Raises ApiError (401) unless the headers carry a known key.
        """
        if self._path is None:
            return None
        scheme, _, key = headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            key = headers.get("x-api-key", "")
        if not key.strip():
            raise _unauthorised("give an API key in the header `Authorization: Bearer <key>` or `x-api-key`")
        offered = _hash(key.strip())
        known = [hmac.compare_digest(offered, stored) for stored in self._stored(self._path)]
        if not any(known):
            raise _unauthorised("this API key is not known")
        return offered.hex()[:12]

    def _stored(self, path: Path) -> tuple[bytes, ...]:
        try:
            if mounted_version(path) != self._version:
                data, version = read_mounted(path)
                keys = [line.split("#", 1)[0].strip() for line in data.decode().splitlines()]
                self._hashes = tuple(_hash(key) for key in keys if key)
                self._version = version
        except (OSError, RefusedError, UnicodeDecodeError):
            self._hashes, self._version = (), None
        return self._hashes


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()


def _unauthorised(message: str) -> ApiError:
    return ApiError(401, message, kind="authentication_error", code="invalid_api_key")
