"""API keys: if a file of keys is configured, every request below /v1 must carry one as a bearer token."""

import hashlib
import hmac
import os
from pathlib import Path

from moe_gateway.openai import ApiError


class ApiKeys:
    """The keys in a file, one per line; `#` begins a comment. The file is read again whenever it changes.

    Only hashes of the keys stay in memory. A file that is missing or empty admits nobody.
    """

    def __init__(self, path: Path | None) -> None:
        """Read keys from `path`; None admits everybody."""
        self._path = path
        self._version: tuple[int, ...] | None = None
        self._hashes: tuple[bytes, ...] = ()

    def check(self, authorization: str | None) -> str | None:
        """Return a name for the caller, made from the hash of its key; None if there are no keys.

        Raises ApiError (401) unless the Authorization header carries a known key.
        """
        if self._path is None:
            return None
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise _unauthorised("give an API key in the header `Authorization: Bearer <key>`")
        offered = _hash(key.strip())
        known = [hmac.compare_digest(offered, stored) for stored in self._stored(self._path)]
        if not any(known):
            raise _unauthorised("this API key is not known")
        return offered.hex()[:12]

    def _stored(self, path: Path) -> tuple[bytes, ...]:
        try:
            status = os.stat(path)
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            if version != self._version:
                lines = path.read_text(encoding="utf-8").splitlines()
                keys = [line.split("#", 1)[0].strip() for line in lines]
                self._hashes = tuple(_hash(key) for key in keys if key)
                self._version = version
        except (OSError, UnicodeDecodeError):
            self._hashes, self._version = (), None
        return self._hashes


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()


def _unauthorised(message: str) -> ApiError:
    return ApiError(401, message, kind="authentication_error", code="invalid_api_key")
