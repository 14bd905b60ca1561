"""The sizes of the segments on which models are compared. A pool has one size, which never changes.

    bytes of a segment    tokens that a model must see      models that see as many
    256                   384                               the presets
    3968                  4096                              checkpoints with a long context

A segment is scored after at most 128 bytes of the text before it. A tokenizer that can restore its text makes hardly
more tokens than the text has bytes. One token is added, which begins the document; one is left out, because the last
byte is predicted and not read. So a model must see as many tokens as context and segment have bytes.
"""

from typing import Literal

#: Size of a segment, in bytes.
SegmentBytes = Literal[256, 3968]

#: Size in a pool that does not choose one.
DEFAULT_SEGMENT_BYTES: SegmentBytes = 256

#: Largest number of bytes before a segment that the model reads. Where routing is judged, they are the prompt.
CONTEXT_BYTES = 128


def tokens_needed(segment_bytes: SegmentBytes) -> int:
    """Return how many tokens a model must see, and a training sequence must have, for segments of a size."""
    return CONTEXT_BYTES + segment_bytes
