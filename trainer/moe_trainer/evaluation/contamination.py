"""Which held-out clusters a model may have seen: nothing is claimed on text that a side was trained on.

A pool excludes every held-out document from later training snapshots, so clean is the rule. A domain that
joins after its base was trained is the exception: the base may have read what is now held out.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from moe_trainer.deduplication.catalogue import Catalogue, digits_of
from moe_trainer.deduplication.fingerprints import Fingerprint, read_fingerprints, take_up
from moe_trainer.deduplication.minhash import THRESHOLD
from moe_trainer.deduplication.near_duplicates import Resembling, search
from moe_trainer.snapshots.layout import FINGERPRINTS


def tainted_clusters(holdout: Path, snapshots: Iterable[Path]) -> frozenset[str]:
    """Return the holdout's clusters with a document, or a near-duplicate of one, in a snapshot."""
    with Catalogue() as catalogue:
        held_out, places = take_up(catalogue, read_fingerprints(holdout / FINGERPRINTS, Fingerprint))
        for snapshot in snapshots:
            take_up(catalogue, read_fingerprints(snapshot / FINGERPRINTS, Fingerprint))
        rows = np.arange(len(catalogue))
        trained_on = rows >= len(held_out)
        seen = Resembling(trained_on)
        search(catalogue, rows, THRESHOLD, seen)
        return frozenset(digits_of(places.clusters[seen.found[: len(held_out)]]))
