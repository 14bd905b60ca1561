"""The few requests that are needed to start and watch a cluster, over TLS with a client certificate.

The standard library is enough here, and half a second faster to import than a full client.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

from moe_local.errors import LocalClusterError

FIELD_MANAGER = "moe-local"
Body = Mapping[str, Any]


class Endpoint:
    """One TLS server on 127.0.0.1 that requires our client certificate."""

    def __init__(self, port: int, *, authority: Path, pair: Path) -> None:
        self._port = port
        self._authority = authority
        self._pair = pair

    def request(
        self,
        method: str,
        path: str,
        body: Body | None = None,
        *,
        content_type: str = "application/json",
        timeout: float = 10,
    ) -> tuple[int, str]:
        """Return status and text of the answer; raises OSError or HTTPException if there is no answer."""
        context = ssl.create_default_context(cafile=str(self._authority))
        context.load_cert_chain(str(self._pair))
        connection = HTTPSConnection("127.0.0.1", self._port, timeout=timeout, context=context)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, body=content, headers={"Content-Type": content_type})
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        finally:
            connection.close()

    def healthy(self, path: str) -> bool:
        """Return whether a health check answers 200."""
        try:
            return self.request("GET", path, timeout=2)[0] == 200
        except (OSError, HTTPException):
            return False


class AdminAPI(Endpoint):
    """The API server, as administrator."""

    def get(self, path: str) -> dict[str, Any] | None:
        """Return an object or a list; None if it does not exist, or if the server does not answer yet."""
        try:
            status, text = self.request("GET", path)
        except (OSError, HTTPException):
            return None
        return json.loads(text) if status == 200 else None

    def apply(self, path: str, manifest: Body) -> None:
        """Apply an object on the server side; raises LocalClusterError with the server's message if it is refused."""
        query = f"?fieldManager={FIELD_MANAGER}&force=true"
        self._write("PATCH", path + query, manifest, content_type="application/apply-patch+yaml")

    def delete_all(self, path: str, selector: str) -> None:
        """Delete every object of a collection that matches the label selector, which must be URL-quoted."""
        self._write("DELETE", f"{path}?labelSelector={selector}")

    def _write(
        self, method: str, path: str, body: Body | None = None, *, content_type: str = "application/json"
    ) -> None:
        try:
            status, text = self.request(method, path, body, content_type=content_type)
        except (OSError, HTTPException) as error:
            status, text = 0, str(error)
        if not 200 <= status < 300:
            what = f"was answered {status}" if status else "was not answered"
            raise LocalClusterError(
                f"{method} {path} {what}: {text[:500]}", fix="read the log of the API server, then try again"
            )
