"""Which domain's text other text resembles most, by hashed byte n-grams. numpy only; no model is loaded.

Each domain's anchor gives a distribution over hashed n-grams of one to four bytes, with add-one smoothing; a text is the
nearer to a domain, the higher its n-grams' mean log-probability under that distribution. All distributions are counted on
the same number of bytes, since more text alone would give better ones. Another domain is the nearest only if the one-sided
lower bound of its lead over the own domain, over the clusters of the text, is above 0.

Shape suffixes: S segments, W buckets.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from moe_formats.ngram_table import buckets_of
from moe_trainer.evaluation.matrix import Array
from moe_trainer.statistics.bootstrap import Ratio, bootstrap, seed_of
from moe_trainer.statistics.clustered import Clustered

#: Number of buckets that n-grams are hashed into.
BUCKETS = 1 << 14

#: Largest number of bytes that a domain's distribution is counted on.
DOMAIN_BYTES = 64 * 1024

#: Largest number of bytes that are read of a segment.
SEGMENT_BYTES = 512


def nearest_domain(
    segments: Sequence[bytes],
    clusters: Sequence[str],
    own: str,
    domains: Mapping[str, Sequence[bytes]],
    *,
    alpha: float,
) -> str:
    """Return the domain that segments resemble most: the own one, unless another leads at an error rate of ``alpha``.

    Args:
        segments: the text.
        clusters: the cluster of near-duplicate documents of each segment.
        own: the domain that it is expected to resemble.
        domains: segments of each domain's text, the own included.
        alpha: the error rate of all other domains together.

    """
    size = min(DOMAIN_BYTES, *(sum(map(len, of)) for of in domains.values()))
    log_p = {domain: _distribution(of, size) for domain, of in domains.items()}
    buckets_S = [_buckets(segment[:SEGMENT_BYTES]) for segment in segments]
    likelihood = {
        domain: np.array([log_p_W[buckets].mean() for buckets in buckets_S])
        for domain, log_p_W in log_p.items()
    }
    leading, lead = own, 0.0
    for domain in sorted(set(domains) - {own}):
        grouped = Clustered.of(likelihood[domain] - likelihood[own], clusters)
        if grouped.clusters < 2:
            continue
        found = bootstrap(Ratio(grouped.sums_G, grouped.sizes_G), seed=seed_of("nearest", own, domain))
        if found.lower(alpha / (len(domains) - 1)) > 0 and found.estimate > lead:
            leading, lead = domain, found.estimate
    return leading


def _distribution(segments: Sequence[bytes], size: int) -> Array:
    """Return ln p of each bucket, counted on ``size`` bytes that are taken evenly from all segments."""
    share = max(1, -(-size // max(1, len(segments))))
    counts_W = np.ones(BUCKETS)
    left = size
    for segment in segments:
        part = segment[: min(share, left)]
        left -= len(part)
        counts_W += np.bincount(_buckets(part), minlength=BUCKETS)
    log_p_W: Array = np.log(counts_W / counts_W.sum())
    return log_p_W


def _buckets(text: bytes) -> npt.NDArray[np.intp]:
    return np.asarray(buckets_of(text or b"\0", BUCKETS), dtype=np.intp)
