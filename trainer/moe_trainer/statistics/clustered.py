"""Values of segments, grouped by the clusters of near-duplicate documents that the segments come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Clustered:
    """One value per segment, with the index of its cluster.

    Attributes:
        values_S: the values, in any unit.
        index_S: the index of each segment's cluster, 0 to clusters - 1; each index occurs at least once.
        clusters: the number of clusters.

    """

    values_S: Array
    index_S: npt.NDArray[np.intp]
    clusters: int

    @classmethod
    def of(cls, values: Sequence[float] | Array, cluster_ids: Sequence[str]) -> Self:
        """Group values by cluster id; raises ValueError if the lengths differ."""
        if len(values) != len(cluster_ids):
            raise ValueError(
                f"{len(values)} values but {len(cluster_ids)} cluster ids: each segment has both"
            )
        names, index_S = np.unique(np.asarray(cluster_ids), return_inverse=True)
        return cls(np.asarray(values, dtype=np.float64), index_S, len(names))

    @property
    def sums_G(self) -> Array:
        """Each cluster's sum of values."""
        return np.bincount(self.index_S, weights=self.values_S, minlength=self.clusters).astype(np.float64)

    @property
    def sizes_G(self) -> Array:
        """Each cluster's number of segments."""
        return np.bincount(self.index_S, minlength=self.clusters).astype(np.float64)

    @property
    def members_GS(self) -> Array:
        """One row per cluster, with 1 for the segments that belong to it."""
        members_GS: Array = (self.index_S == np.arange(self.clusters)[:, None]).astype(np.float64)
        return members_GS
