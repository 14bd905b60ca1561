"""The sizes of the segments that models are compared on: a pool has one, for good. Imports nothing heavy.

    bytes of a segment    tokens that a model has to see    what sees as many
    256                   384                               the presets
    3968                  4096                              checkpoints with a long context

A segment is scored after at most 128 bytes. A tokenizer that gives text back makes hardly more tokens than the
text has bytes. With the token that begins a document, and without the last byte, which is predicted and not
read, they are as many as context and segment have bytes.
"""

from typing import Literal

#: Bytes of a segment.
SegmentBytes = Literal[256, 3968]

#: The size of a pool that names none.
DEFAULT_SEGMENT_BYTES: SegmentBytes = 256

#: Bytes before a segment that it is scored after, at most. They also stand for a short prompt, where routing is judged.
CONTEXT_BYTES = 128


def tokens_needed(segment_bytes: SegmentBytes) -> int:
    """Return the tokens that a model has to see, and a training sequence to have, for segments of a size."""
    return CONTEXT_BYTES + segment_bytes
