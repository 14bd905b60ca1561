"""The identity of a revision: a digest of what its weights are made from, and of nothing else.

Identity is the parent artefact or the preset, the data, the training spec, the seed and spec.runID. Images, hardware,
kernels and the operator's version are not part of it. Of the training spec, fields that have the value of
`moe_formats.left_out.OF_REVISIONS` are left out, so that neither a new field nor a new default gives an existing
revision another identity.
"""

from moe_formats.format import canonical_json, digest_of
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_revision import HoldoutInput, Inputs
from moe_formats.training_spec import TrainingSpec


def training_input(expert: Expert) -> TrainingSpec:
    """Return how a revision of an Expert is trained now, with a value for every field.

    The share of data.replay is part of it: replayed text comes from the base, and the data's digest does not cover it.
    """
    replay = expert.spec.data.replay
    return expert.spec.training.spec(replay_share=replay.share if replay is not None else 0.0)


def inputs_digest(inputs: Inputs) -> str:
    """Return the identity of a revision."""
    made_of: dict[str, object] = {
        "parent": inputs.parent.digest if inputs.parent else None,
        "preset": inputs.preset,
        "data": inputs.data.digest,
        "training": inputs.training.revision_identity(),
        "seed": inputs.seed,
        "runID": inputs.run_id,
    }
    if inputs.merged_with:
        made_of["mergedWith"] = [parent.digest for parent in inputs.merged_with]
    return digest_of(canonical_json(made_of))


def suite_digest(suite: list[HoldoutInput]) -> str:
    """Return the digest of a frozen suite: its domains and the holdouts that stand for them."""
    return digest_of(canonical_json([[item.domain, item.expert, item.window.digest] for item in suite]))
