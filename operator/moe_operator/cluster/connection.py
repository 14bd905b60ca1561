"""Address and credentials of the API server: in a cluster from the service account, elsewhere from KUBECONFIG.

The loaders of the kubernetes package read both, so every kind of credentials works that kubectl accepts. They also read
tokens again that are rotated.
"""

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kopf
from kubernetes.client import Configuration
from kubernetes.config import load_kube_config
from kubernetes.config.incluster_config import InClusterConfigLoader

#: Environment variable with the folder of the pod's token, for a node that cannot mount it at the usual place.
SERVICE_ACCOUNT_VARIABLE = "MOE_SERVICE_ACCOUNT"
#: The usual folder of a pod's token.
SERVICE_ACCOUNT_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"


@dataclass(frozen=True)
class Connection:
    """Address and credentials of one API server."""

    configuration: Any

    @property
    def server(self) -> str:
        """Base URL of the API server, without a slash at its end."""
        return str(self.configuration.host).rstrip("/")

    def authorization(self) -> str | None:
        """Return the value of the Authorization header; None if a client certificate is used.

        A token from a file is read again when it may have been rotated.
        """
        value = self.configuration.get_api_key_with_prefix("BearerToken")
        if not value:
            return None
        return "Bearer " + str(value).partition(" ")[2].strip()

    def ssl_context(self) -> ssl.SSLContext:
        """Return a context that trusts the cluster's certificate authority and sends our client certificate, if any."""
        configuration = self.configuration
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if configuration.cert_file:
            context.load_cert_chain(configuration.cert_file, configuration.key_file)
        if not configuration.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def for_kopf(self) -> kopf.ConnectionInfo:
        """Return the same credentials in the form that kopf expects."""
        scheme, _, token = (self.authorization() or "").partition(" ")
        return kopf.ConnectionInfo(
            server=self.server,
            ca_path=self.configuration.ssl_ca_cert,
            insecure=not self.configuration.verify_ssl,
            scheme=scheme or None,
            token=token or None,
            certificate_path=self.configuration.cert_file,
            private_key_path=self.configuration.key_file,
        )


def load_connection() -> Connection:
    """Return the connection. Raises kubernetes.config.ConfigException if there are no credentials."""
    configuration = Configuration()
    folder = Path(os.environ.get(SERVICE_ACCOUNT_VARIABLE) or SERVICE_ACCOUNT_FOLDER)
    if not os.environ.get("KUBECONFIG") and (folder / "token").is_file():
        loader = InClusterConfigLoader(
            token_filename=str(folder / "token"), cert_filename=str(folder / "ca.crt")
        )
        loader.load_and_set(configuration)
    else:
        load_kube_config(client_configuration=configuration, persist_config=False)
    return Connection(configuration)
