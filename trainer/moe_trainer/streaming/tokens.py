"""Documents as tokens in mapped files, so that a run can train on more text than fits into memory.

    training-<n>.tokens      ids one after the other: int16, or int32 where the vocabulary needs it
    training-<n>.learnt      one byte per id: whether it is learnt; only if there are conversations
    training-<n>.starts      the place of the first token of each document, int64
    validation-<n>.*         the same for the clusters that are kept for validation, about 2 %
    streams.json             StreamsRecord: what each file holds

A folder of these is written once, by the first process of the first attempt, committed by a manifest, and mapped by
every process of every attempt. It is stored next to the checkpoints and is removed with them.

There is one training stream, or one per source if sources have weights, and one each for text that is rehearsed
and replayed. Text becomes
``bos text eos``. Conversations become what the server sends to the model (Tokenizer.conversation), and only the answers
are learnt: all other tokens are read but not predicted. A turn of which the chat template leaves words out is counted; if
that is so for most answers of a stream, it is an error.

The validation text is from the training side, never from the holdout.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import DTypeLike
from pydantic import Field
from torch import Tensor

from moe_formats.failure import JobError
from moe_formats.format import Format
from moe_trainer.snapshots.layout import Document
from moe_trainer.storage.committed import Committed, verify
from moe_trainer.storage.committing import is_committed, new_folder
from moe_trainer.storage.files import drop, write_file
from moe_trainer.streaming.rows import Encoded, Row, encoded
from moe_trainer.text.tokenizer import Tokenizer

VALIDATION_SHARE = 0.02
RECORD = "streams.json"
TRAINING, VALIDATION = "training", "validation"

#: Ids of vocabularies up to this size take two bytes.
_SMALL_VOCABULARY = 1 << 15
_MARKED_AT_ONCE = 1 << 20


class TokenStream(NamedTuple):
    """Tokens in the order in which they are read, and which of them are learnt (None: all).

    ``share`` is the stream's part of a batch, relative to the sum of all streams' shares.
    """

    tokens: Tensor
    learnt: Tensor | None = None
    share: float = 1.0
    replayed: bool = False  #: Text of the base's own training.
    starts: Tensor | None = (
        None  #: The places of documents' first tokens; None if earlier versions wrote the tokens.
    )
    rehearsed: bool = False  #: Text that the Expert learnt before, mixed in with what is new.

    @property
    def own(self) -> bool:
        """Whether the run is to learn this text, and not only to keep what is known of it."""
        return not (self.replayed or self.rehearsed)


class StreamRecord(Format):
    """One training stream."""

    name: str = Field(
        description="`data`, `source-<n>` with the source's number in the spec, `rehearsal` or `replay`."
    )
    file: str = Field(description="The name of its files, without the ending.")
    share: float = Field(description="The share of a batch that comes from this stream.")
    replayed: bool = False
    rehearsed: bool = False
    documents: int
    tokens: int
    learnt: int = Field(description="Tokens that are learnt; the others are read but not predicted.")
    left_out: dict[str, int] = Field(
        default_factory=dict,
        description="Number of turns of which the chat template leaves words out: `answer` for answers, which are not "
        "learnt for that reason, and `system`, `user` or `assistant` for turns before an answer that is learnt.",
    )

    @property
    def own(self) -> bool:
        """Whether the run is to learn this text, and not only to keep what is known of it."""
        return not (self.replayed or self.rehearsed)


class StreamsRecord(Format):
    """The content of ``streams.json``."""

    wide: bool = Field(description="Whether ids are int32; otherwise they are int16.")
    training: tuple[StreamRecord, ...]
    validation: tuple[str, ...] = Field(description="The names of the files with validation text.")
    excluded: dict[str, int] = Field(
        default_factory=dict, description="Number of documents that were not replayed, by reason."
    )


class Planned(NamedTuple):
    """A training stream that is to be written."""

    name: str
    share: float
    replayed: bool = False
    rehearsed: bool = False
    source: int | None = None  #: The number of the documents' source, where sources have weights.


class Streams(NamedTuple):
    """The streams of a run, mapped from disk."""

    record: StreamsRecord
    training: tuple[TokenStream, ...]
    validation: TokenStream
    #: The validation text of each training stream, by its place; of streams that have some.
    validation_of: Mapping[int, TokenStream]


def write_streams(
    root: Path,
    path: str,
    planned: Sequence[Planned],
    documents: Iterable[tuple[int, Document]],
    tokenizer: Tokenizer,
    *,
    excluded: Mapping[str, int] | None = None,
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Commit the tokens of documents, each given with the number of its stream, unless that folder is committed already.

    A damaged folder is written again. ``alive`` is called after each document and then after each file; ``excluded`` is
    read at the end. Raises JobError: DataEmpty if a stream has no token that is learnt, ChatTemplateUnsupported if the chat
    template leaves words out of most of its answers.
    """
    if is_committed(root, path) and _is_good(root, path):
        return
    wide = tokenizer.vocab_size > _SMALL_VOCABULARY
    dtype = np.int32 if wide else np.int16
    with new_folder(root, path, "tokens", alive) as working:
        with ExitStack() as open_files:
            training, validation = (
                [
                    open_files.enter_context(_Writer(working / f"{side}-{number}", dtype))
                    for number in range(len(planned))
                ]
                for side in (TRAINING, VALIDATION)
            )
            for number, document in documents:
                kept_apart = validates(document) and not planned[number].replayed
                (validation if kept_apart else training)[number].add(encoded(document, tokenizer))
                alive()
        for number, stream in enumerate(planned):
            if not training[number].learnt:  # all of its clusters were chosen for validation
                training[number], validation[number] = validation[number], training[number]
            _check_answers(stream, training[number], validation[number])
            if not training[number].learnt:
                raise _nothing_in(stream)
        record = StreamsRecord(
            wide=wide,
            training=tuple(
                StreamRecord(
                    name=stream.name,
                    share=stream.share,
                    replayed=stream.replayed,
                    rehearsed=stream.rehearsed,
                    file=writer.path.name,
                    **writer.counts(),
                )
                for stream, writer in zip(planned, training, strict=True)
            ),
            validation=tuple(writer.path.name for writer in validation if writer.tokens),
            excluded=dict(excluded or {}),
        )
        write_file(working / RECORD, record.to_json())


def open_streams(root: Path, path: str) -> Streams:
    """Map the streams of a committed folder; the process that committed it has verified it."""
    with Committed(root, path) as held:
        return _mapped_streams(held.show())


def _mapped_streams(folder: Path) -> Streams:
    record = StreamsRecord.model_validate_json((folder / RECORD).read_text())
    dtype = torch.int32 if record.wide else torch.int16
    training = tuple(
        TokenStream(
            _mapped(folder / f"{stream.file}.tokens", dtype),
            _mapped(folder / f"{stream.file}.learnt", torch.bool) if stream.learnt < stream.tokens else None,
            stream.share,
            stream.replayed,
            _starts(folder / f"{stream.file}.starts"),
            stream.rehearsed,
        )
        for stream in record.training
    )
    parts = [_mapped(folder / f"{file}.tokens", dtype) for file in record.validation]
    starts = [_starts(folder / f"{file}.starts") for file in record.validation]
    whole = TokenStream(_joined(parts, dtype), starts=_joined_starts(starts, parts))
    apart = {
        int(file.rpartition("-")[2]): TokenStream(ids, starts=first)
        for file, ids, first in zip(record.validation, parts, starts, strict=True)
    }
    return Streams(record, training, whole, apart)


def _joined(parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat([torch.empty(0, dtype=dtype), *parts])


def _joined_starts(starts: Sequence[Tensor | None], parts: Sequence[Tensor]) -> Tensor | None:
    before = accumulate(map(len, parts), initial=0)
    known = [own + first for own, first in zip(starts, before, strict=False) if own is not None]
    return _joined(known, torch.int64) if len(known) == len(starts) else None


def _starts(path: Path) -> Tensor | None:
    return _mapped(path, torch.int64) if path.exists() else None


class _Writer:
    """Appends documents to a stream's files."""

    def __init__(self, path: Path, dtype: DTypeLike) -> None:
        self.path = path
        self.tokens = self.answers = self.learnt = self._documents = 0
        self.left_out: Counter[str] = Counter()
        self._dtype = dtype
        self._ids = path.with_suffix(".tokens").open("xb")
        self._starts = path.with_suffix(".starts").open("xb")
        self._marks: BinaryIO | None = None

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *error: object) -> None:
        self._ids.close()
        self._starts.close()
        if self._marks is not None:
            self._marks.close()
        if not self.tokens:
            self.path.with_suffix(".tokens").unlink()
            self.path.with_suffix(".starts").unlink()

    def add(self, document: Encoded) -> None:
        """Append a document."""
        for row in document.rows:
            self._append(row)
        self.left_out.update(document.left_out)
        self.answers += document.answers
        self._documents += bool(document.rows)

    def _append(self, row: Row) -> None:
        if row.learnt is not None and self._marks is None:
            self._marks = self.path.with_suffix(".learnt").open("xb")
            for start in range(0, self.tokens, _MARKED_AT_ONCE):
                self._marks.write(b"\1" * min(_MARKED_AT_ONCE, self.tokens - start))
        marks = bytes(row.learnt) if row.learnt is not None else b"\1" * len(row.ids)
        self._starts.write(np.int64(self.tokens).tobytes())
        self._ids.write(np.array(row.ids, dtype=self._dtype).tobytes())
        if self._marks is not None:
            self._marks.write(marks)
        self.tokens += len(row.ids)
        self.learnt += sum(marks)

    def counts(self) -> dict[str, Any]:
        """Return the figures of a StreamRecord so far."""
        return {
            "documents": self._documents,
            "tokens": self.tokens,
            "learnt": self.learnt,
            "left_out": dict(sorted(self.left_out.items())),
        }


def _check_answers(stream: Planned, *writers: _Writer) -> None:
    """Raise JobError (ChatTemplateUnsupported) if the chat template leaves words out of most answers of a stream."""
    cut, learnt = sum(w.left_out["answer"] for w in writers), sum(w.answers for w in writers)
    if cut > learnt:
        raise JobError(
            "ChatTemplateUnsupported",
            f"the base's chat template leaves out words of {cut} of the {cut + learnt} answers in {stream.name}, such as "
            "thoughts before </think>, or its prompt ends thoughts that the answers have, so that they cannot be learnt. Remove "
            "these words from the data, or take a base whose template writes them.",
        )


def validates(document: Document) -> bool:
    """Return whether a document is kept apart for validation, in every run that reads it."""
    return number_of(f"validation {document.cluster}") < VALIDATION_SHARE * 2**63


def number_of(text: str) -> int:
    """Return a number of 63 bits that a text determines."""
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") >> 1


def _mapped(path: Path, dtype: torch.dtype) -> Tensor:
    size = path.stat().st_size // dtype.itemsize
    return torch.from_file(str(path), shared=False, size=size, dtype=dtype, device="cpu")


def _is_good(root: Path, path: str) -> bool:
    try:
        verify(root, path)
    except JobError as error:
        print(
            f"the tokens that an earlier attempt left cannot be used and are made again: {error}", flush=True
        )
        drop(root, path)
        return False
    return True


def _nothing_in(stream: Planned) -> JobError:
    if stream.replayed:
        return JobError(
            "DataEmpty",
            "data.replay: the pool has held out all text of the base's snapshots, so none is left to replay; "
            "remove data.replay.",
        )
    if stream.rehearsed:
        return JobError(
            "DataEmpty",
            "rehearsal: no document of the Expert's first snapshot is left to rehearse. It was altered; restore the store from "
            "a backup, or set a new spec.runID, which trains on the newest snapshot from the base.",
        )
    return JobError(
        "DataEmpty",
        f"data.sources: {stream.name} has weight {stream.share:.3g} of a batch, but no document of it is left to "
        "train on. Give it weight 0 or remove it.",
    )
