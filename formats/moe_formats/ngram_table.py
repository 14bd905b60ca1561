"""The table of the Distilled strategy: hashed byte n-grams, with a weight for each Expert.

    logit(e | text) = bias(e) + scale · Σ weight(e, bucket(g)) / √n      over the text's n-grams g
    p(e | text)     = softmax(logit / temperature)

where n is the number of n-grams. It is a multinomial logistic regression that is cheap enough to compute for every
request: one CRC-32 per n-gram, and one addition per n-gram and Expert. Dividing by the root of n keeps long texts from
getting too sure, since their n-grams repeat. The distill Job (moe_trainer.distill) uses the functions below as well,
so that fitting and scoring hash alike.
"""

import base64
import binascii
import math
from array import array
from typing import Self
from zlib import crc32

from pydantic import Field, ValidationError, model_validator

from moe_formats.format import Format
from moe_formats.names import ObjectName

#: Largest table, in bytes of JSON.
MAX_TABLE_BYTES = 262_144

#: Lengths of the n-grams, in bytes.
ORDERS = (1, 2, 3, 4)

#: Largest number of weights of all Experts together: their base64 must fit the largest table, with the rest.
_MAX_WEIGHTS = 187_500


class TableFile(Format):
    """The table as it is written: JSON, with the weights as base64 of signed bytes, one row per Expert."""

    version: int = Field(default=1, ge=1, le=1, description="Version of the hashing and the arithmetic.")
    experts: tuple[ObjectName, ...] = Field(
        min_length=1, max_length=64, description="Names of the Experts, in the order of the rows."
    )
    buckets: int = Field(
        ge=2, le=1 << 17, description="Number of buckets that n-grams are hashed into: a power of two."
    )
    bias: tuple[float, ...] = Field(description="Bias of each Expert.")
    scale: float = Field(gt=0, le=1e6, description="Number that a stored weight is multiplied by.")
    temperature: float = Field(
        gt=0,
        le=1e6,
        description="Number that logits are divided by to calibrate the probabilities, fitted by likelihood.",
    )
    weights: str = Field(description="Base64 of len(experts) rows of `buckets` signed bytes.")

    @model_validator(mode="after")
    def _shapes_agree(self) -> Self:
        if self.buckets & (self.buckets - 1):
            raise ValueError(f"buckets: {self.buckets} is not a power of two")
        if len(set(self.experts)) != len(self.experts):
            raise ValueError("experts: a name is listed twice")
        if len(self.bias) != len(self.experts):
            raise ValueError(f"bias: {len(self.bias)} values for {len(self.experts)} Experts")
        if not all(map(math.isfinite, self.bias)):
            raise ValueError("bias: every value must be finite")
        try:
            found = len(base64.b64decode(self.weights, validate=True))
        except binascii.Error as error:
            raise ValueError(f"weights: not base64: {error}") from None
        if found != len(self.experts) * self.buckets:
            raise ValueError(
                f"weights: {found} bytes, not {len(self.experts)} Experts × {self.buckets} buckets"
            )
        return self


class NgramTable:
    """A table that has been read, ready to score texts."""

    def __init__(self, file: TableFile) -> None:
        self._file = file
        raw = base64.b64decode(file.weights)
        self._rows = [
            array("b", raw[start : start + file.buckets]) for start in range(0, len(raw), file.buckets)
        ]

    def score(self, text: str) -> dict[str, float]:
        """Return the calibrated probability of each Expert for a text. For an empty text, only the biases count."""
        file, found = self._file, buckets_of(text.encode("utf-8", "replace"), self._file.buckets)
        factor = file.scale / math.sqrt(max(1, len(found)))
        logits = [
            (bias + factor * sum(map(row.__getitem__, found))) / file.temperature
            for bias, row in zip(file.bias, self._rows, strict=True)
        ]
        highest = max(logits)
        odds = [math.exp(logit - highest) for logit in logits]
        total = math.fsum(odds)
        return {name: part / total for name, part in zip(file.experts, odds, strict=True)}


def load(data: bytes) -> NgramTable:
    """Return the table in a file's bytes; raises ValueError that names the field and the rule."""
    if len(data) > MAX_TABLE_BYTES:
        raise ValueError(f"the table has {len(data)} bytes; at most {MAX_TABLE_BYTES} are read")
    try:
        return NgramTable(TableFile.model_validate_json(data))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None


def buckets_of(text: bytes, buckets: int) -> list[int]:
    """Return the bucket of every n-gram of a text, one entry per occurrence."""
    mask = buckets - 1
    return [
        crc32(text[start : start + order], order) & mask
        for order in ORDERS
        for start in range(len(text) - order + 1)
    ]


def buckets_for(experts: int) -> int:
    """Return the largest number of buckets that a table for this many Experts can have: a power of two."""
    return 1 << int(math.log2(_MAX_WEIGHTS / experts))
