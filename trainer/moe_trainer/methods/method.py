"""What a method is.

A method decides which parameters are trained: those that require a gradient after ``attach``
(optimization.trained_parameters). Optimizer, checkpoints and the reported number of parameters follow from that.
A method whose artefact holds less than the model is an AdapterMethod: its artefact is made a model again on top
of its base.
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
        """Freeze what is not trained and add what is, so that the model still answers as before.

        The model may be an outline, whose weights come later, by rows (parallel/filling.py).

        Raises JobError (InvalidConfig) if the spec asks for what the method or the model cannot do.
        """
        ...

    def initial(self, model: CausalModel, seed: int) -> Iterable[tuple[str, RowReader]]:
        """Return the tensors that ``attach`` has added to a model, by name, as they are before the first step."""
        ...

    def stored(
        self, folder: Path, model: CausalModel, training: TrainingSpec
    ) -> Iterable[tuple[str, RowReader]]:
        """Return the same from an artefact, to train on.

        Raises JobError: InvalidConfig if the artefact has another shape than was attached, ArtefactCorrupt if
        it cannot be read.
        """
        ...

    def begin(
        self,
        model: CausalModel,
        batches: Iterable[Tensor],
        base: Mapping[str, RowReader],
        processes: Processes = ALONE,
    ) -> None:
        """Set what ``attach`` has added by the run's first batches of ids, unless it goes on from an artefact.

        Each process has its share of the batches. ``base`` reads rows of the base's weights, by their names in
        the model, which may be spread by now.
        """
        ...

    def stream(self, model: CausalModel) -> TensorStream:
        """Return the tensors that will be in an artefact, each made of the model's when its turn comes."""
        ...

    def write(
        self,
        folder: Path,
        model: CausalModel,
        tokenizer: Tokenizer,
        training: TrainingSpec,
        tensors: TensorStream | None = None,
    ) -> None:
        """Write what was trained into an artefact's folder; ``tensors`` is what ``stream`` returns, the default."""
        ...


class AdapterMethod(Method, Protocol):
    """A method whose artefact holds only what was added to a frozen base."""

    def load(self, folder: Path, model: CausalModel) -> None:
        """Turn the base into the model that an artefact makes of it: an ordinary one, which Full can train.

        Raises JobError (ArtefactCorrupt) if the artefact cannot be read or does not fit the base.
        """
        ...
