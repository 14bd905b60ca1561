"""Object stores that a Job may read: where they are, in ``MOE_OBJECT_STORES``; never how to get in.

MOE_OBJECT_STORES   {"lake": {"endpoint": ..., "bucket": ..., "prefix": ..., "secret": ...}}, no secrets
MOE_CREDENTIALS     a folder with one folder a store: a mounted Secret with the keys below
"""

from pydantic import Field, TypeAdapter, ValidationError

from moe_formats.failure import JobError
from moe_formats.format import Format

#: Keys of a store's Secret, which are files once it is mounted.
ACCESS_KEY_ID = "AWS_ACCESS_KEY_ID"
SECRET_ACCESS_KEY = "AWS_SECRET_ACCESS_KEY"
#: These two only where they are needed: temporary credentials, and a private authority's certificates (PEM).
SESSION_TOKEN = "AWS_SESSION_TOKEN"
CERTIFICATES = "ca.crt"


class ObjectStoreLocation(Format):
    """Objects of one bucket, in a store that speaks S3."""

    endpoint: str = Field(default="", description="URL of the service; empty: AWS, by region.")
    region: str = "us-east-1"
    bucket: str
    prefix: str = Field(default="", description="Sources are beneath it; `/` separates folders.")
    secret: str = Field(default="", description="Name of the Secret, for messages; empty: read anonymously.")


_ADAPTER = TypeAdapter(dict[str, ObjectStoreLocation])


def write_object_stores(stores: dict[str, ObjectStoreLocation]) -> str:
    """Return the text of MOE_OBJECT_STORES."""
    return _ADAPTER.dump_json(stores, by_alias=True, exclude_defaults=True).decode()


def read_object_stores(text: str) -> dict[str, ObjectStoreLocation]:
    """Return the stores in MOE_OBJECT_STORES; raises JobError (InvalidEnvironment) that names the field."""
    try:
        return _ADAPTER.validate_json(text or "{}")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the text"
        raise JobError("InvalidEnvironment", f"MOE_OBJECT_STORES: {where}: {first['msg']}") from None
