"""The identity of a revision: a digest of what its weights are made from, and of nothing else.

Identity is the parent artefact or the preset, the data, the training spec, the seed and spec.runID.
Images, hardware, kernels, intervals of validation and checkpoints, and the operator's version are not.
A field that equals its default is left out, so that a field added later (with a default that keeps the
old behaviour) gives no revision a new identity.
"""

from moe_operator.api.expert import Expert, Training
from moe_operator.api.expert_revision import HoldoutInput, Inputs, TrainingInput
from moe_trainer.formats import canonical_json, digest_of

#: How often training looks up from its work changes no weights.
_NOT_IDENTITY = {"validation_every", "checkpoint_every"}


def training_input(expert: Expert) -> TrainingInput:
    """Return the normalised training spec: every field that changes weights, with its value."""
    return TrainingInput.model_validate(expert.spec.training.model_dump())


def normalised(training: TrainingInput) -> dict[str, object]:
    """Return the fields of a training spec that differ from their defaults."""
    defaults = Training().model_dump()
    return {
        name: value
        for name, value in training.model_dump().items()
        if name not in _NOT_IDENTITY and value != defaults.get(name)
    }


def inputs_digest(inputs: Inputs) -> str:
    """Return the identity of a revision."""
    return digest_of(
        canonical_json(
            {
                "parent": inputs.parent.digest if inputs.parent else None,
                "preset": inputs.preset,
                "data": inputs.data.digest,
                "training": normalised(inputs.training),
                "seed": inputs.seed,
                "runID": inputs.run_id,
            }
        )
    )


def suite_digest(suite: list[HoldoutInput]) -> str:
    """Return the digest of a frozen suite: its domains and the holdouts that stand for them."""
    return digest_of(canonical_json([[item.domain, item.expert, item.window.digest] for item in suite]))
