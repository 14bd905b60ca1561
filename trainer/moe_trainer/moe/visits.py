"""The visits of a loop over in-layer experts: pieces of some hundred rows, one after the other in the ordering.

What a product has read or written should still be in the cache when the next step needs it. So crowded in-layer
experts are cut into several pieces, and small neighbours share a visit.

V rows of a visit; I columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

from moe_trainer.moe.dispatch import Dispatch

#: A visit has rows for about this many numbers of x, h, a and their gradients, which mostly stay in a cache of 2 MiB;
#: but at least as many rows as a product needs to run at its full rate, and no more than help.
NUMBERS, LEAST, MOST = 850_000, 512, 1024


def visit_rows(hidden: int, inner: int) -> int:
    """Return the most rows of a visit, for rows of these sizes."""
    return max(LEAST, min(MOST, NUMBERS // (hidden + 6 * inner)))


class ExpertRows(NamedTuple):
    """Some rows of one in-layer expert."""

    expert: int
    rows: int
    again: (
        bool  #: Whether other rows of this expert came before, so that the gradients of its weights add up.
    )


@dataclass
class Visit:
    """Pieces that lie one after the other in the ordering, from place ``first`` on."""

    first: int
    pieces: list[ExpertRows] = field(default_factory=list)

    @cached_property
    def sizes(self) -> list[int]:
        """Rows of each piece."""
        return [piece.rows for piece in self.pieces]

    @cached_property
    def rows(self) -> int:
        """Rows of all pieces."""
        return sum(self.sizes)

    def pieces_of(self, rows_VI: Tensor) -> Sequence[Tensor]:
        """Return the visit's rows, cut into its pieces. Few views are made, since each costs as much as an elementwise step."""
        if len(self.sizes) == 1:
            return (rows_VI,)
        parts: Sequence[Tensor] = rows_VI.split_with_sizes(self.sizes)
        return parts


def plan_visits(dispatch: Dispatch, rows: int, every: bool = True) -> Sequence[Visit]:
    """Cut crowded in-layer experts into equal pieces of about ``rows`` rows, and join small neighbours up to that size.

    With ``every``, in-layer experts without slots get an empty piece, which sets their gradients to 0.
    """
    return _planned(tuple(dispatch.offsets_E1.tolist()), rows, every)


@lru_cache(maxsize=64)  # the backward pass asks for the same plan as the forward pass
def _planned(offsets: tuple[int, ...], rows: int, every: bool) -> Sequence[Visit]:
    visits, filled = [Visit(0)], 0
    for expert, (first, last) in enumerate(pairwise(offsets)):
        if first == last and not every:
            continue
        pieces = max(1, round((last - first) / rows))
        cuts = [first + (last - first) * piece // pieces for piece in range(pieces + 1)]
        for start, end in pairwise(cuts):
            if filled + end - start > rows:
                visits.append(Visit(start))
                filled = 0
            visits[-1].pieces.append(ExpertRows(expert, end - start, again=start > first))
            filled += end - start
    return visits


def cut(visits: Sequence[Visit], rows_SI: Tensor) -> Sequence[Tensor]:
    """Return the rows of each visit, given one row per place."""
    dropped = len(rows_SI) - visits[-1].first - visits[-1].rows
    parts: Sequence[Tensor] = rows_SI.split_with_sizes([*(visit.rows for visit in visits), dropped])
    return parts[:-1]
