"""Errors that the user sees; the message of each says what to do.

ClientError
├── NoCluster     no API server answers
├── NotFound      the object does not exist
├── Forbidden     the user may not do that
├── Conflict      somebody changed the object meanwhile
├── Undecidable   nothing can be decided about the proposal now
└── Unreachable   the gateway does not answer
"""


class ClientError(Exception):
    """Its message is shown to the user as it is: what happened, why, and what to do next."""


class NoCluster(ClientError):
    """No API server answers."""


class NotFound(ClientError):
    """The object does not exist."""


class Forbidden(ClientError):
    """The API server refuses it to this user: a permission is missing."""


class Conflict(ClientError):
    """The object has changed since it was read."""


class Undecidable(ClientError):
    """A proposal can be neither approved, rejected nor undone as it is now."""


class Unreachable(ClientError):
    """The gateway does not answer."""
