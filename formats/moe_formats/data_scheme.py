"""Schemes: how a pool reads text, tells near-duplicates apart and splits them. A pool keeps the scheme that it began with.

    scheme    a file's text                           is cut at blank lines           is compared
    1         as it is                                of which LF ends the lines      as it is, in lower case
    2         without a byte order mark before it     of which LF, CRLF or CR does    without differences of Unicode's forms
    3         as in 2; thoughts that messages have in a field of their own are part of a conversation's text

Which documents are held out rests on all of these, so a pool in which one of them changed would train on text that it has
held out. A new scheme is therefore only for pools that begin with it. Where it is recorded: `store.scheme`.
"""

from typing import Literal

#: Version of how a pool reads, compares and splits documents.
Scheme = Literal[1, 2, 3]

#: The first scheme in which the thoughts of messages are read.
WITH_THOUGHTS: Scheme = 3

#: The scheme of pools that record none: they began before there was another.
FIRST: Scheme = 1

#: The scheme that a new pool begins with.
NEWEST: Scheme = 3
