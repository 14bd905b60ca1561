"""How a revision of cause Drift is trained: from the current revision, on new text, with text from before mixed in.

    root     first revision in the current revision's line. Its snapshot is rehearsed: the anchor was held out from it.
    known    the last of the line's revisions that was trained before the text began to drift.
    new      text of the newest snapshot that is in neither of their snapshots.

The rest of the training spec holds as the Expert's spec has it. As every run it begins with an optimizer without moments and
a schedule of its own: the rate warms up again, to a lower peak, and decays over the run's steps. How long it trains follows
from the root's steps, whatever limits the spec has, so a change of these is still a change of the spec.
"""

from collections.abc import Collection, Mapping

from moe_formats.job_config import Rehearsal
from moe_formats.resources.expert_revision import ExpertRevision
from moe_operator.planner.lineage import line_of

#: Share of the Expert's own text in a batch that is rehearsed.
SHARE = 0.25

#: Of the steps of the root, at most this part.
STEPS_DIVISOR = 3

#: Most passes over the new text. Text that is read up to four times teaches about as much as new text does
#: (Muennighoff et al., "Scaling Data-Constrained Language Models", 2023), so a few new pages are not learnt by heart.
EPOCHS = 4.0

#: Peak of the learning rate, as a share of the spec's. At the full rate, rehearsal kept the anchor too little for the gate: it
#: became 2.4 to 3.2 % worse in three of three runs, and at this share 0.2 % better to 0.1 % worse (docs/training.md).
RATE_SHARE = 0.3


def rehearsal_of(
    current: ExpertRevision,
    revisions: Mapping[str, ExpertRevision],
    data: str,
    drifted: Collection[str],
) -> Rehearsal | None:
    """Return what a revision that specialises again rehearses, and how long it trains.

    ``data`` is the digest of the snapshot that it is trained on, and ``drifted`` has the digests of the windows on
    which drift was found. ``revisions`` are the Expert's, by name. None if no text of the snapshot can be told
    to be new: the line was trained on no other snapshot.
    """
    line = list(line_of(current, revisions))
    root = line[-1]
    others = [revision for revision in line if revision.spec.inputs.data.digest != data]
    if not others or root.status.artefact is None:
        return None
    before = (revision for revision in others if _window(revision) not in drifted)
    known = next(before, others[-1])
    return Rehearsal(
        share=SHARE,
        rehearsed=others[-1].spec.inputs.data,
        known=known.spec.inputs.data,
        max_steps=max(1, root.status.artefact.steps // STEPS_DIVISOR),
        max_epochs=EPOCHS,
        rate_share=RATE_SHARE,
    )


def _window(revision: ExpertRevision) -> str:
    """Return the digest of the holdout that was the newest when a revision was made."""
    return (revision.spec.newest or revision.spec.anchor).digest
