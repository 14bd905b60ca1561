"""What a method is.

A method determines which parameters are trained: those that require a gradient after ``attach``
(optimization.trained_parameters). Optimizer, checkpoints and the reported number of parameters follow from that.
A method whose artefact holds less than the whole model is an AdapterMethod: to become a model again, its artefact needs
the base.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor

from moe_formats.training_spec import TrainingSpec
from moe_trainer.models.causal_model import CausalModel
from moe_trainer.parallel.processes import ALONE, Processes
from moe_trainer.text.tokenizer import Tokenizer
from moe_trainer.weights.reading import RowReader
from moe_trainer.weights.writing import TensorStream


class Method(Protocol):
    """How a revision's weights are made from its parent's."""

    def attach(self, model: CausalModel, training: TrainingSpec, seed: int) -> None:
        """Freeze what is not trained and add what is trained, so that the model still answers as before.

        The model may be an outline, whose weights are filled in later, by rows (parallel/filling.py).

        Raises JobError (InvalidConfig) if the spec asks for something that the method or the model cannot do.
        """
        ...

    def initial(self, model: CausalModel, seed: int) -> Iterable[tuple[str, RowReader]]:
        """Return the tensors that ``attach`` added to a model, by name, with their values before the first step."""
        ...

    def stored(
        self, folder: Path, model: CausalModel, training: TrainingSpec
    ) -> Iterable[tuple[str, RowReader]]:
        """Return the same with the values in an artefact, to train it further.

        Raises JobError: InvalidConfig if the artefact's shape differs from what was attached, ArtefactCorrupt if it
        cannot be read.
        """
        ...

    def begin(
        self,
        model: CausalModel,
        batches: Iterable[Tensor],
        base: Mapping[str, RowReader],
        processes: Processes = ALONE,
    ) -> None:
        """Initialise what ``attach`` added from the run's first batches, unless it was read from an artefact.

        Each process passes its share of the batches of ids. ``base`` reads rows of the base's weights, by their
        names in the model, which may be spread over processes by now.
        """
        ...

    def stream(self, model: CausalModel) -> TensorStream:
        """Return the tensors for an artefact, each made from the model's tensors when its turn comes."""
        ...

    def write(
        self,
        folder: Path,
        model: CausalModel,
        tokenizer: Tokenizer,
        training: TrainingSpec,
        tensors: TensorStream | None = None,
    ) -> None:
        """Write what was trained into an artefact's folder; ``tensors`` defaults to what ``stream`` returns."""
        ...


class AdapterMethod(Method, Protocol):
    """A method whose artefact holds only what was added to a frozen base."""

    def load(self, folder: Path, model: CausalModel) -> None:
        """Apply an artefact to its base; the result is an ordinary model, which Full can train.

        Raises JobError (ArtefactCorrupt) if the artefact cannot be read or does not fit the base.
        """
        ...
