"""The object stores that a Job may read: their addresses, in ``MOE_OBJECT_STORES``, without any credentials.

MOE_OBJECT_STORES   {"lake": {"endpoint": ..., "bucket": ..., "prefix": ..., "secret": ...}}, where `secret` is a name
MOE_CREDENTIALS     a folder that has one folder per store: a mounted Secret with the keys below
"""

from pydantic import Field, TypeAdapter, ValidationError

from moe_formats.failure import JobError
from moe_formats.format import Format

#: Keys of a store's Secret. Each is a file once the Secret is mounted.
ACCESS_KEY_ID = "AWS_ACCESS_KEY_ID"
SECRET_ACCESS_KEY = "AWS_SECRET_ACCESS_KEY"
#: Optional keys: the token of temporary credentials, and the certificates of a private authority (PEM).
SESSION_TOKEN = "AWS_SESSION_TOKEN"
CERTIFICATES = "ca.crt"


class ObjectStoreLocation(Format):
    """Objects of one bucket, in an object store with the S3 protocol."""

    endpoint: str = Field(default="", description="URL of the service. Empty: AWS, in the region.")
    region: str = Field(default="us-east-1", description="Region of the bucket.")
    bucket: str = Field(description="Name of the bucket.")
    prefix: str = Field(
        default="",
        description="Prefix of the objects' names, with `/` between folders. Paths of sources are relative to it.",
    )
    secret: str = Field(
        default="",
        description="Name of the Secret with the credentials, for messages. Empty: the store is read anonymously.",
    )


_ADAPTER = TypeAdapter(dict[str, ObjectStoreLocation])


def write_object_stores(stores: dict[str, ObjectStoreLocation]) -> str:
    """Return the text of MOE_OBJECT_STORES."""
    return _ADAPTER.dump_json(stores, by_alias=True, exclude_defaults=True).decode()


def read_object_stores(text: str) -> dict[str, ObjectStoreLocation]:
    """Return the stores in the text of MOE_OBJECT_STORES; raises JobError (InvalidEnvironment) that names the field."""
    try:
        return _ADAPTER.validate_json(text or "{}")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the text"
        raise JobError("InvalidEnvironment", f"MOE_OBJECT_STORES: {where}: {first['msg']}") from None
