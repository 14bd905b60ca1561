"""Notices that somebody else undoes what the operator writes, and keeps the two from writing against each other without end.

A change is made again at once when it is undone, so that an edit by mistake does no harm. But if the very same change is undone
again and again, another program wants the object otherwise: another operator, or a tool that applies its own version.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable

from moe_formats.format import canonical_json, digest_of
from moe_operator.cluster.ownership import NameTaken
from moe_operator.state import Manifest

#: How often the same change is made within ``WINDOW_SECONDS`` before it is left undone for a while.
CHANGES = 5
WINDOW_SECONDS = 300.0
#: Number of objects that are remembered.
REMEMBERED = 10_000


class Contested(NameTaken):
    """What the operator writes into an object is undone again and again."""


class Contest:
    """Counts how often each object was changed to the same."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Use a clock in seconds."""
        self._clock = clock
        self._made: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()

    def about_to_change(self, desired: Manifest, uid: str) -> None:
        """Count a change of the object with a uid. Raises Contested if the same was made too often just now."""
        key = uid, digest_of(canonical_json(desired))
        now, made = self._clock(), self._made.setdefault(key, deque())
        self._made.move_to_end(key)
        while made and made[0] <= now - WINDOW_SECONDS:
            made.popleft()
        if len(made) >= CHANGES:
            name = f"{desired['kind']} {desired['metadata']['name']}"
            raise Contested(
                f"{name} was changed back by somebody else {len(made)} times within {WINDOW_SECONDS / 60:.0f} minutes, so it is "
                "left as it is for now. Another release of moe-operator may act in this namespace (`kubectl get leases "
                "--all-namespaces -l app.kubernetes.io/managed-by=moe-operator` lists all), or a tool applies a version of "
                f"its own: `kubectl get {desired['kind'].lower()} {desired['metadata']['name']} --show-managed-fields -o yaml` "
                "shows who wrote what"
            )
        made.append(now)
        while len(self._made) > REMEMBERED:
            self._made.popitem(last=False)
