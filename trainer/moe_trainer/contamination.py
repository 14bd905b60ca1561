"""Which held-out clusters a model may have seen: nothing is claimed on text that a side was trained on.

A pool excludes every held-out document from later training snapshots, so clean is the rule. A domain that
joins after its base was trained is the exception: the base may have read what is now held out.
"""

from base64 import b64decode
from collections.abc import Iterable
from pathlib import Path

from moe_trainer.data.minhash import NearDuplicates
from moe_trainer.data.snapshot_layout import read_fingerprints


def tainted_clusters(holdout: Path, snapshots: Iterable[Path]) -> frozenset[str]:
    """Return the holdout's clusters with a document, or a near-duplicate of one, in a snapshot."""
    held_out = NearDuplicates()
    cluster_of = {}
    for fingerprint in read_fingerprints(holdout):
        held_out.add(fingerprint.document, b64decode(fingerprint.signature))
        cluster_of[fingerprint.document] = fingerprint.cluster
    return frozenset(
        cluster_of[document]
        for snapshot in snapshots
        for trained_on in read_fingerprints(snapshot)
        for document in held_out.like(b64decode(trained_on.signature))
    )
