"""How a revision does on the last windows of its Expert, against the anchor. Pure: it reads no file and loads no model.

    D            mean of a(s) over the anchor - mean of a(s) over the windows, a(s) = ln(b_base / b_expert)
    difficulty   mean of ln b_base over the windows - mean of ln b_base over the anchor

Both sides of D have the same revision and the same base, so text that is harder for every model leaves D as it is. The
segments of all windows are pooled: their number decides how sure the figures are, not the number of windows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import Field

from moe_formats.format import Digest, Format
from moe_formats.job_config import DriftJob
from moe_formats.job_report import Accuracy, Change, DriftHeadline, Interval, Window
from moe_formats.resources.drift import MAX_WINDOWS
from moe_trainer.evaluation import scores
from moe_trainer.evaluation.matrix import Array
from moe_trainer.evaluation.nearest import nearest_domain
from moe_trainer.evaluation.scores import Absences, Absent, Scored
from moe_trainer.statistics.bootstrap import seed_of
from moe_trainer.statistics.clustered import Clustered

#: Error rate of the one-sided bounds.
ALPHA = 0.01

#: Number of windows that are needed: one alone may be an unusual delivery.
MIN_WINDOWS = 2


class WindowRow(Format):
    """A revision and its base on one holdout."""

    digest: Digest = Field(description="SHA-256 of the holdout's manifest.")
    clusters: int = Field(description="Number of clusters that neither model was trained on.")
    segments: int = Field(description="Number of segments in these clusters.")
    tainted_clusters: int = Field(
        description="Number of clusters that were left out because a model was trained on them."
    )
    gain: float = Field(description="Mean of ln(b_base / b_expert) over the segments; 0 if there are none.")


class DriftReport(Format):
    """Everything that a drift Job found. The same Job on the same machine gives the same bytes."""

    job: DriftJob
    scorer: str = Field(description="Version of segments and scoring; part of every cell's identity.")
    device: str
    rows: tuple[WindowRow, ...] = Field(description="The anchor, then the windows, the oldest first.")
    windows: tuple[Digest, ...]
    clusters: int
    drift: Change | None = None
    difficulty: Change | None = None
    gain: Interval | None = Field(
        default=None, description="Mean of ln(b_base / b_expert) over the windows' segments."
    )
    nearest_domain: str | None = None
    accuracies: tuple[Accuracy, ...] = ()
    absent: dict[str, str] = Field(
        default_factory=dict, description="The reason for each number that is absent, by its name."
    )

    def headline(self, digest: Digest) -> DriftHeadline:
        """Return the headline for the operator; ``digest`` is that of report.json."""
        return DriftHeadline(
            report=digest,
            windows=self.windows,
            clusters=self.clusters,
            drift=self.drift,
            difficulty=self.difficulty,
            gain=self.gain,
            nearest_domain=self.nearest_domain,
            accuracies=self.accuracies,
            absent={name: reason[:160] for name, reason in self.absent.items()},
        )


@dataclass(frozen=True)
class Pair:
    """One holdout with both models' scores on its clean segments, and the segments' texts."""

    digest: Digest
    model: Scored
    base: Scored
    tainted: int

    @property
    def gains_S(self) -> Array:
        """Return a(s) of each segment."""
        return scores.log_ratios(self.base, self.model)


def last_windows(listed: Sequence[Window], anchor: Digest, newest: Digest) -> list[Window]:
    """Return the last windows up to the newest, without the anchor, the oldest first; none if the newest is not listed."""
    digests = [window.digest for window in listed]
    until = digests.index(newest) + 1 if newest in digests else 0
    return [window for window in listed[:until] if window.digest != anchor][-MAX_WINDOWS:]


def too_few(windows: Sequence[Window]) -> str | None:
    """Return why drift cannot be measured on some windows, or None."""
    if len(windows) >= MIN_WINDOWS:
        return None
    return f"TooFewWindows: {len(windows)} held out since the anchor; {MIN_WINDOWS} are needed, one per delivery of new data"


def weigh(
    job: DriftJob,
    anchor: Pair,
    windows: Sequence[Pair],
    texts: "Texts",
    *,
    scorer: str,
    device: str,
) -> DriftReport:
    """Compute the numbers of the report; those that cannot be computed are absent, with the reason."""
    absent, pooled = Absences(), pool(windows)
    return DriftReport(
        job=job,
        scorer=scorer,
        device=device,
        rows=tuple(_row(pair) for pair in (anchor, *windows)),
        windows=tuple(pair.digest for pair in windows),
        clusters=len(set(pooled.model.clusters)),
        drift=absent.note("interval", lambda: drift(anchor, pooled)),
        difficulty=absent.note("difficulty", lambda: difficulty(anchor, pooled)),
        gain=absent.note("gain", lambda: scores.gain(pooled.base, pooled.model)),
        nearest_domain=absent.note("nearestDomain", lambda: texts.nearest(job.expert.domain)),
        absent=absent.reasons,
    )


@dataclass(frozen=True)
class Texts:
    """Held-out text by which the nearest domain is found: segments with their clusters.

    Attributes:
        windows: the segments of the windows.
        clusters: the cluster of each of them.
        domains: the segments of each domain's anchor, the Expert's own included.

    """

    windows: Sequence[bytes]
    clusters: Sequence[str]
    domains: dict[str, Sequence[bytes]]

    def nearest(self, own: str | None) -> str:
        """Return the domain that the windows' text resembles most; raises Absent if the Expert has no domain."""
        if own is None:
            raise Absent("Mixture: the Expert has no domain that its text could leave")
        if len(self.domains) < 2:
            raise Absent("NoOtherDomain: the suite has no other domain to compare with")
        return nearest_domain(self.windows, self.clusters, own, self.domains, alpha=ALPHA)


def pool(windows: Sequence[Pair]) -> Pair:
    """Return the windows as one holdout."""
    return Pair(
        digest="",
        model=_joined([pair.model for pair in windows]),
        base=_joined([pair.base for pair in windows]),
        tainted=sum(pair.tainted for pair in windows),
    )


def drift(anchor: Pair, windows: Pair) -> Change:
    """Return D with its bounds."""
    first = anchor.model.per_cluster(anchor.gains_S)
    last = windows.model.per_cluster(windows.gains_S)
    return scores.change(last, first, alpha=ALPHA, seed=_seed("drift", anchor, windows))


def difficulty(anchor: Pair, windows: Pair) -> Change:
    """Return by how much harder the windows are for the base."""
    return scores.change(
        _bits(anchor.base), _bits(windows.base), alpha=ALPHA, seed=_seed("difficulty", anchor, windows)
    )


def _bits(base: Scored) -> Clustered:
    """Return ln b of each segment."""
    nats_S = np.maximum(base.nats_S, 1e-6)  # as log_ratios: with 0 nats, the logarithm would be infinite
    return base.per_cluster(np.log(nats_S / (math.log(2) * base.sizes_S)))


def _joined(parts: Sequence[Scored]) -> Scored:
    return replace(
        parts[0],
        nats_S=np.concatenate([part.nats_S for part in parts]),
        sizes_S=np.concatenate([part.sizes_S for part in parts]),
        hits_S=np.concatenate([part.hits_S for part in parts]),
        clusters=[cluster for part in parts for cluster in part.clusters],
        label=" ".join(part.label for part in parts),
        unreadable=sum(part.unreadable for part in parts),
    )


def _row(pair: Pair) -> WindowRow:
    gains_S = pair.gains_S
    return WindowRow(
        digest=pair.digest,
        clusters=len(set(pair.model.clusters)),
        segments=len(gains_S),
        tainted_clusters=pair.tainted,
        gain=float(gains_S.mean()) if len(gains_S) else 0.0,
    )


def _seed(name: str, *pairs: Pair) -> int:
    return seed_of(name, *(label for pair in pairs for label in (pair.base.label, pair.model.label)))
