"""Computes the identity of a revision: a digest of what its weights are made from, and of nothing else.

The identity covers the parent artefact or the preset, the data, the training spec, the seed and spec.runID. It does not
cover images, hardware, kernels and the version of the operator. Fields of the training spec that have their value in
`moe_formats.left_out.OF_REVISIONS` are left out, so that neither a new field nor a new default changes the identity of
an existing revision.
"""

from moe_formats.format import canonical_json, digest_of
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_revision import HoldoutInput, Inputs
from moe_formats.training_spec import TrainingSpec


def training_input(expert: Expert) -> TrainingSpec:
    """Return the training spec of a revision that is made of an Expert now, with a value for every field.

    It includes the share of spec.data.replay: replayed text comes from the base, so the digest of the data does not
    cover it.
    """
    replay = expert.spec.data.replay
    return expert.spec.training.spec(replay_share=replay.share if replay is not None else 0.0)


def inputs_digest(inputs: Inputs) -> str:
    """Return the digest by which revisions with the same inputs are the same."""
    made_of: dict[str, object] = {
        "parent": inputs.parent.digest if inputs.parent else None,
        "preset": inputs.preset,
        "data": inputs.data.digest,
        "training": inputs.training.revision_identity(),
        "seed": inputs.seed,
        "runID": inputs.run_id,
    }
    if inputs.rehearsal is not None:
        made_of["rehearsal"] = inputs.rehearsal.identity()
    if inputs.merged_with:
        made_of["mergedWith"] = [parent.digest for parent in inputs.merged_with]
    return digest_of(canonical_json(made_of))


def suite_digest(suite: list[HoldoutInput]) -> str:
    """Return the digest of a suite: of its domains, their Experts and their holdouts."""
    return digest_of(canonical_json([[item.domain, item.expert, item.window.digest] for item in suite]))
