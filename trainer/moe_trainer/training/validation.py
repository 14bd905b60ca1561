"""What a run measures every ``validationEvery`` steps, on training-side text that is not trained on."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from moe_trainer.models.causal_model import CausalModel
from moe_trainer.moe.balance import LayerLoad, StepCounts
from moe_trainer.moe.router import LogitsNotFinite
from moe_trainer.training.curriculum import Curriculum, Measured
from moe_trainer.training.load_record import thinned
from moe_trainer.training.not_finite import check_weights, loss_not_finite, origin, router_not_finite
from moe_trainer.training.run import Run


def validate(
    model: CausalModel,
    blocks_BT: Tensor,
    sizes_V: Tensor,
    rows: int,
    positions_BT: Tensor | None = None,
) -> tuple[float, list[LayerLoad]]:
    """Return the bits per byte of some blocks, and each layer's load on them; ``rows`` blocks are computed at a time.

    ``sizes_V`` has the number of bytes of each token. Tokens without bytes (the ends of documents) are predicted but
    not counted. ``positions_BT`` are the places of all tokens but the last of each block in their documents, where training
    keeps those apart. The model is left in training mode.
    """
    model.eval()
    nats, counts = torch.zeros((), dtype=torch.float64), StepCounts()
    with torch.no_grad():  # inference_mode would leave gathered weights that cannot be trained
        for part in range(0, len(blocks_BT), rows):
            ids_BT = blocks_BT[part : part + rows]
            places_BT = None if positions_BT is None else positions_BT[part : part + rows]
            logits_BTV, routings = model.with_routing(ids_BT[:, :-1], places_BT)
            nats_N = F.cross_entropy(logits_BTV.flatten(0, 1), ids_BT[:, 1:].flatten(), reduction="none")
            nats += nats_N[sizes_V[ids_BT[:, 1:]].flatten() > 0].double().sum()
            if routings:
                counts.add(routings)
    model.train()
    count = int(sizes_V[blocks_BT[:, 1:]].sum())
    return float(nats) / (math.log(2) * count), counts.loads()


def end_interval(run: Run) -> None:
    """Check the weights and add to the curve what an interval's steps and the validation text tell.

    Without validation text, only the steps' loads are added. Raises JobError (LossNotFinite) if a weight, a
    router or the validation is no longer finite.
    """
    check_weights(run)
    curve, record, loads = run.curve, run.balancer.record, None
    if run.validation is not None:
        curve.validations[run.step], loads = _validated(run, run.validation)
    curve.loads = thinned(curve.loads | {run.step: record.summary(loads)})
    if run.curriculum is not None and curve.curriculum is not None:
        run.curriculum.measured = measured_slices(run, run.curriculum)
        curve.curriculum = run.curriculum.moved(curve.curriculum, run.batches, run.step)
    if run.best is not None and run.kept_step == run.step:
        run.best.take()
    if not run.over:  # the report needs the last interval's shares
        record.clear()


def measured_slices(run: Run, curriculum: Curriculum) -> list[Measured]:
    """Return the losses of the curriculum's slices, the same in all processes; raises JobError (LossNotFinite)."""
    try:
        found = curriculum.measure(run.model, run.sizes_V, run.rows)
    except LogitsNotFinite as error:
        raise router_not_finite(run, error.layer, after=True) from None
    found = run.processes.from_first(found)
    if not all(math.isfinite(slice.bits_per_byte) for slice in found):
        raise loss_not_finite(run, "the validation text of a source has no finite loss", after=True)
    return found


def _validated(run: Run, blocks_BT: Tensor) -> tuple[float, list[LayerLoad]]:
    try:
        bits, loads = validate(run.model, blocks_BT, run.sizes_V, run.rows, run.validation_positions)
    except LogitsNotFinite as error:
        raise router_not_finite(run, error.layer, after=True) from None
    if not math.isfinite(bits):
        where = origin(run.model, torch.split(blocks_BT[:, :-1], run.rows), alone=run.processes.alone)
        raise loss_not_finite(run, f"the validation text has {bits} bits per byte: {where}", after=True)
    return bits, loads
