"""A trial: the steps to the next validation, taken twice from one state of the run, and the better outcome is kept.

First with the weights that the spec gives the sources, then with those of the curriculum: the same steps, the same number
of bytes. What is thrown away costs time and nothing else. No checkpoint is written on the way; a run that is
interrupted begins the trial again from the checkpoint before, with the same bits.

Trials come after the first, second, fourth, eighth validation and so on: early, when losses move, and more and more rarely.
"""

from collections.abc import Callable

import torch

from moe_formats.failure import TransientError
from moe_trainer.parallel.spread import local
from moe_trainer.training.checkpoint import Curve, Trained
from moe_trainer.training.run import Run
from moe_trainer.training.step import take_step
from moe_trainer.training.validation import end_interval


def is_due(run: Run) -> bool:
    """Return whether a trial begins at the run's step."""
    every = run.job.training.validation_every
    intervals, rest = divmod(run.step, every)
    if run.curriculum is None or run.curve.curriculum is None or rest or not intervals:
        return False
    held = any(trial.step == run.step for trial in run.curve.curriculum.trials)
    return intervals & (intervals - 1) == 0 and run.step + every <= run.steps and not held


def hold_trial(run: Run, stopping: Callable[[], bool]) -> None:
    """Take the steps to the next validation with both kinds of weights, and keep the better outcome.

    Raises JobError: LossNotFinite as a step does, Interrupted as soon as ``stopping`` returns True.
    """
    curriculum, state = run.curriculum, run.curve.curriculum
    assert curriculum is not None and state is not None
    step, before = run.step, Moment(run)
    _take_steps(run, curriculum.stratified, stopping)
    stratified = curriculum.measured
    worst = curriculum.worst(state, stratified)
    trial = curriculum.too_few(step, worst)
    if trial is None:
        kept = Moment(run)
        before.put_back(run)
        _take_steps(run, state.weights, stopping)
        trial = run.processes.from_first(curriculum.compared(step, worst, stratified, curriculum.measured))
        if not trial.used:
            kept.put_back(run)
    found = run.curve.curriculum
    assert found is not None
    found = found.model_copy(update={"used": trial.used, "trials": (*state.trials, trial)})
    run.curve.curriculum = curriculum.settled(found, run.batches, run.step)


def _take_steps(run: Run, weights: tuple[float, ...], stopping: Callable[[], bool]) -> None:
    """Take the steps to the next validation with some weights of the sources, and validate."""
    assert run.curriculum is not None
    run.curriculum.enter(weights, run.batches, run.step)
    for _ in range(run.job.training.validation_every):
        if stopping():
            raise TransientError(
                "Interrupted",
                f"asked to stop at step {run.step}, in a trial of the curriculum; the next attempt begins it again.",
            )
        run.curve.losses.append(take_step(run))
    end_interval(run)


class Moment:
    """All that the steps of a run change, as it is now: what a checkpoint has, in memory."""

    def __init__(self, run: Run) -> None:
        self._tensors = {
            name: local(t).detach().clone() for name, t in _trained(run).spread_tensors().items()
        }
        self._balancing = {name: tensor.clone() for name, tensor in run.balancer.tensors().items()}
        self._steps_done, self._phase = run.optimizer.steps_done, run.batches.phase
        self._curve = _copied(run.curve)

    def put_back(self, run: Run) -> None:
        """Have the run continue from this moment."""
        with torch.no_grad():
            for name, tensor in _trained(run).spread_tensors().items():
                local(tensor).copy_(self._tensors[name])
        run.balancer.load_tensors(self._balancing)
        run.optimizer.steps_done = self._steps_done
        run.batches.enter(self._phase)
        run.curve = _copied(self._curve)


def _trained(run: Run) -> Trained:
    return Trained(run.model, run.optimizer, run.balancer, run.processes, run.best)


def _copied(curve: Curve) -> Curve:
    return Curve(list(curve.losses), dict(curve.validations), dict(curve.loads), curve.curriculum)
