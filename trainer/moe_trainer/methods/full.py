"""Full: every weight is trained, and the artefact is a checkpoint that needs no base."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from moe_formats.training_spec import TrainingSpec
from moe_trainer.methods import checkpoint_format
from moe_trainer.models.causal_model import CausalModel
from moe_trainer.parallel.processes import ALONE, Processes
from moe_trainer.text.tokenizer import Tokenizer
from moe_trainer.weights.reading import RowReader
from moe_trainer.weights.writing import TensorStream


class Full:
    """All weights are trained."""

    def attach(self, model: CausalModel, training: TrainingSpec, seed: int) -> None:
        """Leave the model as it is."""

    def initial(self, model: CausalModel, seed: int) -> Iterable[tuple[str, RowReader]]:
        """Return nothing, since nothing was added."""
        return ()

    def stored(
        self, folder: Path, model: CausalModel, training: TrainingSpec
    ) -> Iterable[tuple[str, RowReader]]:
        """Return nothing."""
        return ()

    def begin(
        self,
        model: CausalModel,
        batches: Iterable[Tensor],
        base: Mapping[str, RowReader],
        processes: Processes = ALONE,
    ) -> None:
        """Do nothing."""

    def stream(self, model: CausalModel) -> TensorStream:
        """Return all tensors of the checkpoint."""
        return checkpoint_format.stream(model)

    def write(
        self,
        folder: Path,
        model: CausalModel,
        tokenizer: Tokenizer,
        training: TrainingSpec,
        tensors: TensorStream | None = None,
    ) -> None:
        """Write the whole checkpoint."""
        checkpoint_format.write_files(folder, model, tokenizer, tensors)
