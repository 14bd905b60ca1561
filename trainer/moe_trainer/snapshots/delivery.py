"""Judges a delivery, which is everything that the sources hold now, before anything of it is stored.

It is compared with what the Expert has read before (``clusters.jsonl``), with its newest snapshot and with its anchor. A
delivery that exceeds a limit of ``spec.data.gates`` is refused: no registry, window or snapshot has heard of it, so the next
one is judged as if it had never been.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from heapq import nsmallest
from pathlib import Path

import numpy as np

from moe_formats import store
from moe_formats.failure import JobError
from moe_formats.gates import Gates
from moe_formats.job_config import SnapshotJob
from moe_trainer.deduplication.catalogue import Rows
from moe_trainer.deduplication.fingerprints import names_in, read_fingerprints, read_known_documents
from moe_trainer.snapshots.filters import LOOKED_AT, language_of
from moe_trainer.snapshots.holdouts import read_windows
from moe_trainer.snapshots.intake import Intake, text_of
from moe_trainer.snapshots.layout import FINGERPRINTS, read_documents
from moe_trainer.sources.documents import NOT_READ
from moe_trainer.storage.committed import opened

#: Most documents of each side whose language is looked at, those with the smallest names (which are hashes), and fewest by
#: which anything is decided.
_LOOKED_AT = 1000
_FEWEST = 20


def check_delivery(job: SnapshotJob, intake: Intake, root: Path) -> None:
    """Raise JobError (DeliveryRefused) with every number that exceeds a limit; nothing is checked without limits."""
    if job.gates is None:
        return
    known = names_in(read_known_documents(root, store.clusters(job.pool_uid, job.expert.uid), intake.scheme))
    new = intake.kept[~np.isin(intake.names, known)]
    exceeded = [
        *_dropped(job.gates, intake),
        *_lost(job, intake, root),
        *_new_bytes(job.gates, int(intake.sizes[new].sum())),
        *_language_shift(job, intake, new, root),
    ]
    if exceeded:
        raise JobError("DeliveryRefused", f"the delivery was refused: {'; '.join(exceeded)}.")


def _dropped(gates: Gates, intake: Intake) -> Iterator[str]:
    counts = Counter({reason: number for reason, number in intake.dropped.items() if reason != NOT_READ})
    unusable = sum((count.dropped for count in intake.counts), Counter[str]())
    read = sum(count.documents for count in intake.counts) + unusable.total() - unusable[NOT_READ]
    counts["total"] = counts.total()
    for reason, limit in sorted((gates.max_dropped or {}).items()):
        if counts[reason] > limit * read:
            what = "dropped" if reason == "total" else f"dropped as {reason}"
            yield (
                f"{counts[reason]} of {read} records are {what} ({counts[reason] / read:.2%}), and "
                f"spec.data.gates.maxDropped.{reason} allows {limit:.2%}"
            )


def _lost(job: SnapshotJob, intake: Intake, root: Path) -> Iterator[str]:
    limit = job.gates.max_lost if job.gates is not None else None
    if limit is None or job.previous is None:
        return
    with opened(root, job.previous.path) as folder:
        had = names_in(read_fingerprints(folder, FINGERPRINTS))
    gone = int((~np.isin(had, intake.names)).sum())
    if gone > limit * len(had):
        yield (
            f"{gone} of the {len(had)} documents of the newest snapshot are gone ({gone / len(had):.2%}), and "
            f"spec.data.gates.maxLost allows {limit:.2%}"
        )


def _new_bytes(gates: Gates, size: int) -> Iterator[str]:
    if gates.min_new_bytes is not None and 0 < size < gates.min_new_bytes:
        yield f"{size} bytes of its text are new, and spec.data.gates.minNewBytes asks for {gates.min_new_bytes}"
    if gates.max_new_bytes is not None and size > gates.max_new_bytes:
        yield f"{size} bytes of its text are new, and spec.data.gates.maxNewBytes allows {gates.max_new_bytes}"


def _language_shift(job: SnapshotJob, intake: Intake, new: Rows, root: Path) -> Iterator[str]:
    limit = job.gates.max_language_shift if job.gates is not None else None
    anchor = next(iter(read_windows(root, store.windows(job.pool_uid, job.expert.uid))), None)
    if limit is None or anchor is None or len(new) < _FEWEST:
        return
    with opened(root, anchor.path, anchor.digest) as folder:
        held_out = nsmallest(
            _LOOKED_AT,
            ((document.name(), document.text[:LOOKED_AT]) for document in read_documents(folder)),
        )
    if len(held_out) < _FEWEST:
        return
    before = _languages(text for _, text in held_out)
    drawn = new[np.argsort(intake.catalogue.names[new])[:_LOOKED_AT]]
    now = _languages(text_of(line).decode() for line in intake.lines_of(np.sort(drawn)))
    shift = sum(max(share - before.get(language, 0.0), 0.0) for language, share in now.items())
    if shift > limit:
        yield (
            f"the languages of its new text ({_in_words(now)}) differ by {shift:.2%} from those of the first holdout "
            f"({_in_words(before)}), and spec.data.gates.maxLanguageShift allows {limit:.2%}"
        )


def _languages(texts: Iterable[str]) -> dict[str, float]:
    """Return the share of each language among texts."""
    counts = Counter(language_of(text)[0] for text in texts)
    return {language: number / counts.total() for language, number in counts.items()}


def _in_words(shares: dict[str, float]) -> str:
    largest = sorted(shares.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{language} {share:.0%}" for language, share in largest)
