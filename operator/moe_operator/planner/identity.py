"""The identity of a revision: a digest of what its weights are made from, and of nothing else.

Identity is the parent artefact or the preset, the data, the training spec, the seed and spec.runID.
Images, hardware, kernels, intervals of validation and checkpoints, and the operator's version are not.

A field that has the value of the table LEFT_OUT is left out. A field added later joins the table with the
value under which weights come out as before it existed; a default of the API that changes later changes
nothing here. So neither gives a revision a new identity.
"""

from collections.abc import Mapping
from typing import Any

from moe_formats.format import canonical_json, digest_of
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_revision import HoldoutInput, Inputs, TrainingInput

#: How often training looks up from its work changes no weights, unless it may end there; nor does what it computes
#: twice to save memory.
_NOT_IDENTITY = {"validation_every", "checkpoint_every", "recompute"}

#: The value of each field that its absence from an identity stands for. Lines are added and never changed.
LEFT_OUT: Mapping[str, Any] = {
    "method": "Full",
    "learning_rate": 0.001,
    "lora": {"rank": 16, "alpha": 32, "rank_stabilised": False, "targets": []},
    "bank": {"experts": 4},
    "schedule": "Cosine",
    "warmup_fraction": 0.05,
    "gradient_clip": 1,
    "max_steps": None,
    "max_epochs": 1,
    "replay_share": 0,
    "batch_tokens": 4096,
    "micro_batch_tokens": None,
    "context_tokens": None,
    "across_documents": True,
    "weight_decay": 0.1,
    "load_balancing_loss_weight": 0.01,
    "auxiliary_loss_weight": 0.001,
    "specialization_loss_weight": 0,
    "regularization": 0,
    "early_stop": None,
    "balancing": {
        "scope": "GlobalBatch",
        "against": "Uniform",
        "bias": "None",
        "bias_rate": 0.001,
        "capacity_factor": None,
    },
}


def training_input(expert: Expert) -> TrainingInput:
    """Return the normalised training spec: every field that changes weights, with its value.

    What data.replay asks for is among them: the text comes from the base, and the data's digest does not know it.
    """
    replay = expert.spec.data.replay
    training = TrainingInput.model_validate(expert.spec.training.model_dump(exclude_none=True))
    in_order = training.lora.model_copy(update={"targets": sorted(training.lora.targets)})
    share = replay.share if replay is not None else 0
    return training.model_copy(update={"lora": in_order, "replay_share": share})


def normalised(training: TrainingInput) -> dict[str, object]:
    """Return the fields of a training spec that have another value than the one they are left out at."""
    fields = training.model_dump(exclude=_NOT_IDENTITY)
    if training.early_stop is not None:
        fields["validation_every"] = training.validation_every
    return _others(fields, LEFT_OUT)


def _others(fields: Mapping[str, Any], left_out: Mapping[str, Any]) -> dict[str, object]:
    """Return what differs from the table; of a nested model the differing fields, or nothing."""
    others: dict[str, object] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            value = _others(value, left_out.get(name) or {})
            if value:
                others[name] = value
        elif value != left_out.get(name):
            others[name] = value
    return others


def inputs_digest(inputs: Inputs) -> str:
    """Return the identity of a revision."""
    made_of: dict[str, object] = {
        "parent": inputs.parent.digest if inputs.parent else None,
        "preset": inputs.preset,
        "data": inputs.data.digest,
        "training": normalised(inputs.training),
        "seed": inputs.seed,
        "runID": inputs.run_id,
    }
    if inputs.merged_with:
        made_of["mergedWith"] = [parent.digest for parent in inputs.merged_with]
    return digest_of(canonical_json(made_of))


def suite_digest(suite: list[HoldoutInput]) -> str:
    """Return the digest of a frozen suite: its domains and the holdouts that stand for them."""
    return digest_of(canonical_json([[item.domain, item.expert, item.window.digest] for item in suite]))
