"""Models on holdouts of a pool's store: every byte that is read is verified, and the stale cells of the matrix are filled.

It is what the commands share that measure models: evaluate, drift and matrix. Imports torch only when a model is loaded.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from moe_formats.format import Digest
from moe_formats.job_config import ArtefactRef, HoldoutRef, TasksRef
from moe_formats.segment_size import SegmentBytes
from moe_trainer.environment import Environment
from moe_trainer.evaluation.matrix import Cell, Matrix
from moe_trainer.evaluation.segments import Segment, cut, tainted_clusters
from moe_trainer.evaluators.answers import Answers, Generate, answers_of
from moe_trainer.methods import adapter
from moe_trainer.snapshots.layout import read_documents
from moe_trainer.storage.committed import Committed, opened

#: Cells of one model, by the digest of the holdout.
Cells = dict[Digest, Cell]


class Measurement:
    """The models and holdouts of one Job over the folders of a store."""

    def __init__(self, pool_uid: str, segment_bytes: SegmentBytes, environment: Environment) -> None:
        self.root = environment.store
        self.segment_bytes = segment_bytes
        # Imports torch, which is not needed where the report exists already.
        self._scorer = import_module("moe_trainer.evaluation.scorer")
        self.matrix = Matrix(self.root, pool_uid, segment_bytes, self._scorer.use_device(environment.threads))
        #: The folders of holdouts and of snapshots that some model was trained on, by their paths in the store.
        self._texts: dict[str, Path] = {}
        self._ancestry: list[str] = []
        self._newest: tuple[Digest, tuple[Any, Any]] | None = None

    def open(
        self,
        folders: ExitStack,
        models: Sequence[ArtefactRef],
        holdouts: Sequence[HoldoutRef],
        tasks: Sequence[TasksRef] = (),
        trained_on: Sequence[str] = (),
    ) -> None:
        """Check every byte that will be read, before any model is loaded; texts stay open in ``folders``.

        ``trained_on`` are folders of snapshots that count as ancestry, in addition to those that the models name.
        Raises JobError (ArtefactCorrupt) if a model, holdout or snapshot is not what its digest says.
        """
        for model in models:
            adapter.verify(self.root, model.path, model.digest)
        for holdout in holdouts:
            opening = opened(self.root, holdout.path, holdout.digest)
            self._texts[holdout.path] = folders.enter_context(opening)
        ancestry = {snapshot.path for model in models for snapshot in model.ancestry}
        self._ancestry = sorted(ancestry.union(trained_on))
        for path in self._ancestry:
            self._texts[path] = folders.enter_context(opened(self.root, path))
        for items in tasks:
            with Committed(self.root, items.path, items.digest) as held:
                held.verify()

    def cells(self, model: ArtefactRef, holdouts: Sequence[HoldoutRef]) -> Cells:
        """Return a model's cells by holdout. The model is loaded only if a cell is missing, and then once."""
        cells, stale = {}, []
        for holdout in holdouts:
            cell = self.matrix.read(self.matrix.key(model, holdout))
            if cell is None:
                stale.append(holdout)
            else:
                cells[holdout.digest] = cell
        if stale:
            for cell in self.scored(model, stale):
                self.matrix.write(cell)
                cells[cell.key.holdout] = cell
        return cells

    def scored(self, model: ArtefactRef, holdouts: Sequence[HoldoutRef]) -> Iterator[Cell]:
        """Score a model on holdouts, whether or not their cells exist, and yield the cells."""
        loaded, tokenizer = self.load(model)
        for holdout in holdouts:
            started = time.process_time()
            key = self.matrix.key(model, holdout)
            cell: Cell = self._scorer.score(loaded, tokenizer, self.segments(holdout), key)
            print(
                f"scored {model.revision} on {holdout.expert}: {len(cell.nats)} segments, "
                f"{time.process_time() - started:.1f} CPU s",
                flush=True,
            )
            yield cell

    def answers(self, model: ArtefactRef, tasks: TasksRef) -> Answers:
        """Return a model's answers to an evaluator's items, from the store or by asking the model."""

        def load() -> Generate:
            print(f"{model.revision} is answering the items of evaluator {tasks.evaluator}", flush=True)
            return partial(import_module("moe_trainer.evaluators.generation").complete, *self.load(model))

        return answers_of(self.root, self.matrix.pool_uid, model, tasks, self.matrix.device, load)

    def load(self, model: ArtefactRef) -> tuple[Any, Any]:
        """Return a model and its tokenizer. Only the last one is kept, to save memory."""
        if self._newest is None or self._newest[0] != model.digest:
            self._newest = None
            load = import_module("moe_trainer.methods.artefacts").load
            self._newest = (model.digest, load(self.root, model.path, model.digest))
        return self._newest[1]

    def segments(self, holdout: HoldoutRef) -> list[Segment]:
        """Return the segments of a holdout that was opened."""
        return cut(read_documents(self._texts[holdout.path]), self.segment_bytes)

    def texts(self, snapshots: Iterable[str]) -> list[Path]:
        """Return the open folders of snapshots, given by their paths in the store."""
        return [self._texts[path] for path in snapshots]

    def tainted(self, holdout: HoldoutRef) -> frozenset[str]:
        """Return the clusters of a holdout that some model of the Job was trained on."""
        return tainted_clusters(self._texts[holdout.path], self.texts(self._ancestry))
