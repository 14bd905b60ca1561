"""What every document is made of: frozen camelCase models, canonical JSON and digests."""

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

#: A content address: ``sha256:`` and 64 hexadecimal digits.
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)]


class Format(BaseModel):
    """A document that two programs exchange.

    Written in camelCase; unknown fields are ignored when read, so that a newer writer and an older
    reader can meet.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        protected_namespaces=(),
        allow_inf_nan=False,  # JSON has neither
    )

    def to_json(self) -> str:
        """Return the canonical text: sorted keys, no spaces, absent instead of null."""
        return canonical_json(self.model_dump(mode="json", by_alias=True, exclude_none=True))

    def content_digest(self) -> str:
        """Return the digest of the canonical text."""
        return digest_of(self.to_json())


def parse_json(text: str | bytes) -> Any:
    """Return what a JSON text from outside says; raises ValueError, also where it is nested without end."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def canonical_json(value: Any) -> str:
    """Return JSON text that depends on nothing but the value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(text: str | bytes) -> str:
    """Return the content address of a text or of bytes."""
    data = text.encode() if isinstance(text, str) else text
    return "sha256:" + hashlib.sha256(data).hexdigest()
