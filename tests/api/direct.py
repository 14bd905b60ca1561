"""Requests to the API server without kubectl, which takes a tenth of a second of processor time to start."""

import json
import ssl
from dataclasses import dataclass
from http.client import HTTPSConnection
from typing import Any

from moe_local.cluster import LocalCluster
from moe_local.folder import load_network

JSON, MERGE, APPLY = "application/json", "application/merge-patch+json", "application/apply-patch+yaml"

#: The plural of each kind that is not its name in small letters and an s; and the groups of those not in the core one.
PLURALS = {"NetworkPolicy": "networkpolicies"}


@dataclass(frozen=True)
class Answer:
    """What the API server has answered."""

    status: int
    object: dict[str, Any]
    warnings: list[str]

    @property
    def refused(self) -> str:
        """Why the request was refused; empty if it was not."""
        return "" if self.status < 300 else str(self.object.get("message") or self.object)


class ApiServer:
    """The API server, asked by the administrator, or by a user in whose name the administrator asks."""

    def __init__(self, cluster: LocalCluster, user: str = "") -> None:
        network, certificates = load_network(cluster.folder), cluster.folder.certificates
        assert network
        context = ssl.create_default_context(cafile=str(certificates / "cluster-ca.pem"))
        context.load_cert_chain(str(certificates / "admin.pem"))
        self._connection = HTTPSConnection("127.0.0.1", network.apiserver, timeout=60, context=context)
        self._headers = {"Impersonate-User": user} if user else {}

    def ask(self, method: str, path: str, body: Any = None, content_type: str = JSON) -> Answer:
        """Send one request."""
        content = None if body is None else json.dumps(body)
        self._connection.request(method, path, content, {"Content-Type": content_type, **self._headers})
        response = self._connection.getresponse()
        found = json.loads(response.read())
        return Answer(response.status, found, response.headers.get_all("Warning", []))


def path_of(manifest: dict[str, Any], *rest: str) -> str:
    """Return the URL path of the collection that a manifest belongs to, or of something in it."""
    version, kind = manifest["apiVersion"], manifest["kind"]
    root = "/api" if "/" not in version else "/apis"
    plural = PLURALS.get(kind, f"{kind.lower()}s")
    return "/".join([root, version, "namespaces", manifest["metadata"]["namespace"], plural, *rest])
