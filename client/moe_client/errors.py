"""What can go wrong on the user's side, each with the way out.

ClientError
├── NoCluster     no API server answers
├── NotFound      the object does not exist
└── Unreachable   the gateway does not answer
"""


class ClientError(Exception):
    """Shown to the user as it is: what, why, and what to do next."""


class NoCluster(ClientError):
    """No API server answers."""


class NotFound(ClientError):
    """The object does not exist."""


class Unreachable(ClientError):
    """The gateway does not answer."""
