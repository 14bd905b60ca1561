"""The base class of all documents, canonical JSON, and digests."""

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

#: A content address: ``sha256:`` and 64 hexadecimal digits.
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)]


class Format(BaseModel):
    """A document that two programs exchange: an immutable model whose fields are in camelCase when written.

    Unknown fields are ignored when it is read, so that an older program can read what a newer one wrote.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        protected_namespaces=(),
        allow_inf_nan=False,  # JSON can write neither
    )

    def to_json(self) -> str:
        """Return the canonical JSON text: sorted keys, no spaces, and no fields that are null."""
        return canonical_json(self.model_dump(mode="json", by_alias=True, exclude_none=True))

    def content_digest(self) -> str:
        """Return the digest of the canonical JSON text."""
        return digest_of(self.to_json())


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text from outside; raises ValueError, also for one that is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def canonical_json(value: Any) -> str:
    """Return the same JSON text for equal values: sorted keys, no spaces. Raises ValueError for NaN and infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(text: str | bytes) -> str:
    """Return the content address of some text or bytes."""
    data = text.encode() if isinstance(text, str) else text
    return "sha256:" + hashlib.sha256(data).hexdigest()
