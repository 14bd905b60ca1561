"""What identities leave out of a training spec: frozen tables of values, and a set of fields that never count.

A revision and a checkpoint are each identified by a digest of the training fields that change their weights. A field
with the value in its table is left out of the digest. So a new field, or a new default for users, leaves every
digest as it was, and nothing is trained again.

The tables follow one rule: **lines are added and never changed.** A new field joins OF_REVISIONS, and with it
OF_CHECKPOINTS, with the value under which weights come out as they did before the field existed. A new field of a nested
model (`lora`, `bank`, `balancing`) is added inside of its line.
"""

from collections.abc import Mapping
from typing import Any

#: Fields that change no weights: how often training pauses to validate or to save, and what it computes twice to save
#: memory. The identity of a revision leaves them out whatever their value, except that `validation_every` counts where
#: training may stop early, or change its data, at a validation.
NO_WEIGHTS_CHANGE = frozenset({"validation_every", "checkpoint_every", "recompute"})

#: The identity of a revision: the values that are left out. They are also what a stored revision, or the text of a
#: Job, means where it lacks the field: it was written before the field existed.
OF_REVISIONS: Mapping[str, Any] = {
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
    "curriculum": None,
    "balancing": {
        "scope": "GlobalBatch",
        "against": "Uniform",
        "bias": "None",
        "bias_rate": 0.001,
        "capacity_factor": None,
    },
}

#: The identity of a checkpoint: the values that are left out. Checkpoints have a table of their own because the
#: trainer once had other defaults than the API, and checkpoints of that time must still be found.
OF_CHECKPOINTS: Mapping[str, Any] = {
    **OF_REVISIONS,
    "learning_rate": 0.0003,
    "load_balancing_loss_weight": 0.2,
    "recompute": False,
    "validation_every": 200,
    "checkpoint_every": 100,
}

#: The same for the fields of `early_stop` where a checkpoint's training spec has one. (Revisions leave out none of its
#: fields, so a field that is added to it needs a table for them too.)
OF_EARLY_STOP_OF_CHECKPOINTS: Mapping[str, Any] = {"patience": 3, "min_delta": 0}


def differing(fields: Mapping[str, Any], left_out: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields whose value differs from the table; of a nested model, its differing fields."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            inner = differing(value, left_out.get(name) or {})
            if inner:
                found[name] = inner
        elif value != left_out.get(name):
            found[name] = value
    return found
