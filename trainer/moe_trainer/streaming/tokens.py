"""From documents to tokens in mapped files, so that a corpus larger than memory is trained on.

    training-<n>.tokens      ids one after the other: int16, or int32 where the vocabulary needs it
    training-<n>.learnt      a byte an id: whether it is learnt; only if there are conversations
    validation-<n>.tokens    the same of the clusters that are kept apart, about 2 %
    streams.json             StreamsRecord: what each file holds

A folder of these is made once by the first process of the first attempt, committed by a manifest, and mapped
by every process of every attempt. It lies beside the checkpoints and goes with them.

There is one training stream, or one for each source where sources have weights, and one for replayed text.
Text becomes ``bos text eos``. Conversations become what the server sends the model (Tokenizer.conversation), and
only the answers are learnt: every other token is read and not predicted.

The text to validate on is training-side text, never the holdout.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import DTypeLike
from pydantic import Field
from torch import Tensor

from moe_formats.failure import JobError
from moe_formats.format import Format
from moe_trainer.snapshots.layout import Document
from moe_trainer.storage.manifest import is_committed, new_folder, verify
from moe_trainer.text.tokenizer import Tokenizer

VALIDATION_SHARE = 0.02
RECORD = "streams.json"
TRAINING, VALIDATION = "training", "validation"

#: Largest vocabulary whose ids are two bytes.
_SMALL_VOCABULARY = 1 << 15
_MARKED_AT_ONCE = 1 << 20


class TokenStream(NamedTuple):
    """Tokens in the order in which they are read, and which of them are learnt (None: all).

    ``share`` is the part of a batch that comes from it, of all streams' shares together.
    """

    tokens: Tensor
    learnt: Tensor | None = None
    share: float = 1.0
    replayed: bool = False  #: Text of the base's own training.


class StreamRecord(Format):
    """One training stream."""

    name: str = Field(description="`data`, `source-<n>` by its number in the spec, or `replay`.")
    file: str = Field(description="Its files' name, without the ending.")
    share: float = Field(description="Of a batch.")
    replayed: bool = False
    documents: int
    tokens: int
    learnt: int = Field(description="Tokens that are learnt; the rest is read and not predicted.")


class StreamsRecord(Format):
    """What ``streams.json`` says."""

    wide: bool = Field(description="Ids are int32; else int16.")
    training: tuple[StreamRecord, ...]
    validation: tuple[str, ...] = Field(description="Names of the files of what is kept apart.")
    excluded: dict[str, int] = Field(default_factory=dict, description="Replayed text left out, by reason.")


class Planned(NamedTuple):
    """A training stream that is to be made."""

    name: str
    share: float
    replayed: bool = False
    source: int | None = None  #: The documents' source, where sources have weights.


class Streams(NamedTuple):
    """The streams of a run, mapped from disk."""

    record: StreamsRecord
    training: tuple[TokenStream, ...]
    validation: Tensor


def write_streams(
    folder: Path,
    planned: Sequence[Planned],
    documents: Iterable[tuple[int, Document]],
    tokenizer: Tokenizer,
    *,
    excluded: Mapping[str, int] | None = None,
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Commit the tokens of documents, each given with the number of its stream; keep a committed folder.

    A damaged folder is made anew. ``alive`` is called once a document, and then once a file; ``excluded``
    is read at the end. Raises JobError (DataEmpty) for a stream without a token.
    """
    if is_committed(folder) and _is_good(folder):
        return
    wide = tokenizer.vocab_size > _SMALL_VOCABULARY
    dtype = np.int32 if wide else np.int16
    with new_folder(folder, "tokens", alive) as working:
        with ExitStack() as open_files:
            training, validation = (
                [
                    open_files.enter_context(_Writer(working / f"{side}-{number}", dtype))
                    for number in range(len(planned))
                ]
                for side in (TRAINING, VALIDATION)
            )
            for number, document in documents:
                kept_apart = _validates(document) and not planned[number].replayed
                (validation if kept_apart else training)[number].add(*_render(document, tokenizer))
                alive()
        for number, stream in enumerate(planned):
            if not training[number].tokens:  # all of its clusters fell to validation
                training[number], validation[number] = validation[number], training[number]
            if not training[number].tokens:
                raise _nothing_in(stream)
        record = StreamsRecord(
            wide=wide,
            training=tuple(
                StreamRecord(
                    name=stream.name,
                    share=stream.share,
                    replayed=stream.replayed,
                    file=writer.path.name,
                    **writer.counts(),
                )
                for stream, writer in zip(planned, training, strict=True)
            ),
            validation=tuple(writer.path.name for writer in validation if writer.tokens),
            excluded=dict(excluded or {}),
        )
        (working / RECORD).write_text(record.to_json())


def open_streams(folder: Path) -> Streams:
    """Map the streams of a committed folder, which the one who committed it has verified."""
    record = StreamsRecord.model_validate_json((folder / RECORD).read_text())
    dtype = torch.int32 if record.wide else torch.int16
    training = tuple(
        TokenStream(
            _mapped(folder / f"{stream.file}.tokens", dtype),
            _mapped(folder / f"{stream.file}.learnt", torch.bool) if stream.learnt < stream.tokens else None,
            stream.share,
            stream.replayed,
        )
        for stream in record.training
    )
    parts = [_mapped(folder / f"{file}.tokens", dtype) for file in record.validation]
    validation = parts[0] if len(parts) == 1 else torch.cat([torch.empty(0, dtype=dtype), *parts])
    return Streams(record, training, validation)


class _Writer:
    """Appends documents to a stream's files."""

    def __init__(self, path: Path, dtype: DTypeLike) -> None:
        self.path = path
        self.tokens = self._documents = self._learnt = 0
        self._dtype = dtype
        self._ids = path.with_suffix(".tokens").open("wb")
        self._marks: BinaryIO | None = None

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *error: object) -> None:
        self._ids.close()
        if self._marks is not None:
            self._marks.close()
        if not self.tokens:
            self.path.with_suffix(".tokens").unlink()

    def add(self, ids: Sequence[int], learnt: Sequence[bool] | None) -> None:
        """Append a document; ``learnt`` is None where all of it is."""
        if learnt is not None and self._marks is None:
            self._marks = self.path.with_suffix(".learnt").open("wb")
            for start in range(0, self.tokens, _MARKED_AT_ONCE):
                self._marks.write(b"\1" * min(_MARKED_AT_ONCE, self.tokens - start))
        marks = bytes(learnt) if learnt is not None else b"\1" * len(ids)
        self._ids.write(np.array(ids, dtype=self._dtype).tobytes())
        if self._marks is not None:
            self._marks.write(marks)
        self.tokens += len(ids)
        self._learnt += sum(marks)
        self._documents += 1

    def counts(self) -> dict[str, int]:
        """Return what was appended."""
        return {"documents": self._documents, "tokens": self.tokens, "learnt": self._learnt}


def _render(document: Document, tokenizer: Tokenizer) -> tuple[list[int], list[bool] | None]:
    """Return a document's ids, and which are learnt; None where all are."""
    if document.turns is None:
        return [tokenizer.bos_id, *tokenizer.encode(document.text), tokenizer.eos_id], None
    pieces = tokenizer.conversation(list(document.said()))
    return [i for ids, _ in pieces for i in ids], [learnt for ids, learnt in pieces for _ in ids]


def _validates(document: Document) -> bool:
    return number_of(f"validation {document.cluster}") < VALIDATION_SHARE * 2**63


def number_of(text: str) -> int:
    """Return 63 bits that are drawn from a text."""
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") >> 1


def _mapped(path: Path, dtype: torch.dtype) -> Tensor:
    size = path.stat().st_size // dtype.itemsize
    return torch.from_file(str(path), shared=False, size=size, dtype=dtype, device="cpu")


def _is_good(folder: Path) -> bool:
    try:
        verify(folder)
    except JobError as error:
        print(f"tokens that an earlier attempt left are made anew: {error}", flush=True)
        shutil.rmtree(folder)
        return False
    return True


def _nothing_in(stream: Planned) -> JobError:
    if stream.replayed:
        return JobError(
            "DataEmpty",
            "data.replay: no text of the base's snapshots is left to replay that the pool has not held out; "
            "remove data.replay.",
        )
    return JobError(
        "DataEmpty",
        f"data.sources: {stream.name} has weight {stream.share:.3g} of a batch, but no document of it is left to "
        "train on. Give it weight 0 or remove it.",
    )
