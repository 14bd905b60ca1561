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
    """One TLS server on 127.0.0.1 that requires our client certificate. For one thread at a time.

    The connection is kept for the next request: whoever polls would otherwise spend more on handshakes than on answers.
    """

    def __init__(self, port: int, *, authority: Path, pair: Path) -> None:
        self._port = port
        self._authority = authority
        self._pair = pair
        self._kept: HTTPSConnection | None = None

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
        content = None if body is None else json.dumps(body)
        connection, self._kept = self._kept, None
        if connection is not None and method != "GET":
            connection.close()  # What changes something must not be sent twice.
        elif connection is not None:
            try:
                return self._ask(connection, method, path, content, content_type, timeout)
            except TimeoutError:
                raise
            except (OSError, HTTPException):
                pass  # The server has closed it since, or was started again.
        return self._ask(self._connect(), method, path, content, content_type, timeout)

    def _connect(self) -> HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self._authority))
        context.load_cert_chain(str(self._pair))
        return HTTPSConnection("127.0.0.1", self._port, context=context)

    def _ask(
        self,
        connection: HTTPSConnection,
        method: str,
        path: str,
        content: str | None,
        content_type: str,
        timeout: float,
    ) -> tuple[int, str]:
        """Return status and text of the answer, and keep the connection; close it if there is no answer."""
        connection.timeout = timeout
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        try:
            connection.request(method, path, body=content, headers={"Content-Type": content_type})
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
        except BaseException:
            connection.close()
            raise
        self._kept = connection
        return response.status, text

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
