"""Errors that the user sees; the message of each says what to do.

ClientError
├── NoCluster     no API server answers
├── NotFound      the object does not exist
└── Unreachable   the gateway does not answer
"""


class ClientError(Exception):
    """Its message is shown to the user as it is: what happened, why, and what to do next."""


class NoCluster(ClientError):
    """No API server answers."""


class NotFound(ClientError):
    """The object does not exist."""


class Unreachable(ClientError):
    """The gateway does not answer."""
