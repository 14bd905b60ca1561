"""Documents become tokens in files: once, whole, and mapped."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from tests.trainer.training.conftest import Pool

from moe_formats.failure import JobError
from moe_trainer.snapshots.layout import Document, read_documents
from moe_trainer.storage.committed import verify
from moe_trainer.storage.manifest import MANIFEST
from moe_trainer.streaming import tokens
from moe_trainer.streaming.batches import (
    Batches,
    DocumentEnds,
    validation_blocks,
    validation_positions,
)
from moe_trainer.streaming.tokens import Planned, Streams, TokenStream, open_streams, write_streams
from moe_trainer.text.content import Content, Role
from moe_trainer.text.tokenizer import BOS, EOS, ByteTokenizer, Conversation

ONE = (Planned("data", 1.0),)


def written(folder: Path, *contents: Content | Document, planned: tuple[Planned, ...] = ONE) -> Streams:
    documents = [
        (0, c) if isinstance(c, Document) else (0, Document(cluster="0" * 16, text=c.text, turns=c.turns))
        for c in contents
    ]
    write_streams(folder.parent, folder.name, planned, documents, ByteTokenizer())
    return open_streams(folder.parent, folder.name)


def learnt_text(stream: TokenStream) -> str:
    assert stream.learnt is not None
    return "".join("$" if i == EOS else chr(i) for i in stream.tokens[stream.learnt].tolist())


def test_documents_become_bos_bytes_eos_and_every_byte_is_on_one_side(pool: Pool, tmp_path: Path) -> None:
    documents = list(read_documents(pool.store / pool.data.path))
    streams = written(tmp_path / "tokens", *documents)
    (training,) = streams.training
    assert training.learnt is None and training.tokens.dtype == torch.int16
    assert len(streams.validation.tokens) > 0
    both = torch.cat((training.tokens, streams.validation.tokens)).tolist()
    counts = Counter(both)
    assert counts[BOS] == counts[EOS] == pool.data.documents
    assert len(both) == pool.data.train_bytes + 2 * pool.data.documents
    assert both[0] == BOS and both[-1] == EOS
    record = streams.record.training[0]
    assert (record.tokens, record.learnt) == (len(training.tokens), len(training.tokens))


def test_of_a_conversation_only_the_answers_and_their_ends_are_learnt(tmp_path: Path) -> None:
    said: list[tuple[Role, str]] = [("system", "Be brief."), ("user", "Why?"), ("assistant", "So.")]
    more: list[tuple[Role, str]] = [("user", "How?"), ("assistant", "Thus."), ("user", "Thanks")]
    (training,) = written(tmp_path / "tokens", Content.of_turns([*said, *more])).training
    words = ByteTokenizer().decode([i for i in training.tokens.tolist() if i < 256])
    assert words == "Be brief.\n\nWhy?\n\nSo.\n\nHow?\n\nThus.\n\nThanks"
    assert learnt_text(training) == "So.$Thus.$"
    assert training.tokens[0] == BOS and training.tokens[-1] == EOS


@pytest.mark.parametrize("at_once", [3, 1 << 20])
def test_text_beside_conversations_is_learnt_whole(
    tmp_path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_MARKED_AT_ONCE", at_once)
    said: list[tuple[Role, str]] = [("user", "Why?"), ("assistant", "So.")]
    contents = Content(text="text"), Content.of_turns(said), Content(text="more")
    streams = written(tmp_path / "tokens", *contents)
    assert learnt_text(streams.training[0]) == f"{chr(BOS)}text$So.${chr(BOS)}more$"
    assert streams.training[0].tokens.tolist().count(EOS) == 3
    assert streams.record.training[0].learnt == 16


def test_where_every_cluster_falls_to_validation_it_is_trained_on(tmp_path: Path) -> None:
    cluster = next(c for n in range(10**4) if _falls_to_validation(c := f"{n:016x}"))
    streams = written(tmp_path / "tokens", Document(cluster=cluster, text="all"))
    assert len(streams.training[0].tokens) == 5
    assert len(streams.validation.tokens) == 0


def _falls_to_validation(cluster: str) -> bool:
    return tokens.validates(Document(cluster=cluster, text=""))


def test_a_large_vocabulary_takes_four_bytes_an_id(tmp_path: Path) -> None:
    class Large(ByteTokenizer):
        vocab_size = 100_000

        def encode(self, text: str | bytes) -> list[int]:
            return [70_000 + i for i in super().encode(text)]

    write_streams(tmp_path, "tokens", ONE, [(0, Document(cluster="0" * 16, text="ab"))], Large())
    (training,) = open_streams(tmp_path, "tokens").training
    assert training.tokens.tolist() == [BOS, 70_097, 70_098, EOS]


def test_tokens_are_made_once_and_again_where_they_are_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "tokens"
    written(folder, Content(text="first"))
    assert written(folder, Content(text="other")).training[0].tokens.tolist()[1] == ord("f")
    (folder / "training-0.tokens").write_bytes(b"damaged")
    assert written(folder, Content(text="other")).training[0].tokens.tolist()[1] == ord("o")
    verify(folder.parent, folder.name)


@pytest.mark.parametrize(
    ("planned", "said"),
    [
        ((Planned("data", 0.5), Planned("source-1", 0.5)), r"DataEmpty.*source-1 has weight 0.5"),
        ((Planned("data", 0.9), Planned("replay", 0.1, replayed=True)), r"DataEmpty.*data.replay"),
    ],
)
def test_a_stream_without_text_is_refused(tmp_path: Path, planned: tuple[Planned, ...], said: str) -> None:
    with pytest.raises(JobError, match=said):
        written(tmp_path / "tokens", Content(text="text"), planned=planned)
    assert not (tmp_path / "tokens").exists()


_KILLED = """
import os, sys
from pathlib import Path
from moe_trainer.snapshots.layout import Document
from moe_trainer.streaming.tokens import Planned, write_streams
from moe_trainer.text.tokenizer import ByteTokenizer

def documents():
    for n in range(100):
        if n == 50:
            os._exit(137)
        yield 0, Document(cluster="0" * 16, text=f"text {n} " * 1000)

write_streams(Path(sys.argv[1]), "tokens", (Planned("data", 1.0),), documents(), ByteTokenizer())
"""


def test_killed_on_the_way_nothing_counts_and_nothing_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "tokens"
    code = subprocess.run([sys.executable, "-c", _KILLED, tmp_path], env=dict(os.environ)).returncode
    assert code == 137 and not folder.exists()
    written(folder, Content(text="text"))
    assert (folder / MANIFEST).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokens"]


def test_documents_are_read_one_at_a_time(tmp_path: Path) -> None:
    """None is kept: each is gone when the next but one is made."""
    alive = 0

    class Counted(Document):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def documents() -> Iterator[tuple[int, Document]]:
        nonlocal alive
        for number in range(50):
            alive += 1
            assert alive <= 3
            yield 0, Counted(cluster="0" * 16, text=f"text {number}")

    write_streams(tmp_path, "tokens", ONE, documents(), ByteTokenizer())


class Leaving(ByteTokenizer):
    """A tokenizer whose template leaves out words of answers with thoughts."""

    def conversation(self, said: Sequence[tuple[Role, str]], answers: Sequence[int]) -> Conversation:
        cut = [number for number in answers if "</think>" in said[number][1]]
        made = super().conversation(said, [number for number in answers if number not in cut])
        return made._replace(left_out={"answer": len(cut)} if cut else {})


def conversations(answers: list[str]) -> list[tuple[int, Document]]:
    contents = (Content.of_turns([("user", "Why?"), ("assistant", answer)]) for answer in answers)
    return [(0, Document(cluster="0" * 16, text=c.text, turns=c.turns)) for c in contents]


def test_answers_of_which_a_template_leaves_words_out_are_counted_in_the_record(tmp_path: Path) -> None:
    write_streams(tmp_path, "tokens", ONE, conversations(["<think>1</think>2", "So.", "Thus."]), Leaving())
    streams = open_streams(tmp_path, "tokens")
    assert learnt_text(streams.training[0]) == "So.$Thus.$"
    assert streams.record.training[0].left_out == {"answer": 1}


def test_where_a_template_leaves_words_out_of_most_answers_training_does_not_begin(tmp_path: Path) -> None:
    said = r"ChatTemplateUnsupported.*leaves out words of 2 of the 3 answers in data"
    with pytest.raises(JobError, match=said) as error:
        write_streams(tmp_path, "tokens", ONE, conversations(["1</think>2", "So.", "1</think>3"]), Leaving())
    assert not error.value.retryable and not (tmp_path / "tokens").exists()


class Beginning(ByteTokenizer):
    """A tokenizer whose template begins each turn with the token that begins documents, as Llama 2's."""

    def conversation(self, said: Sequence[tuple[Role, str]], answers: Sequence[int]) -> Conversation:
        turns = ([self.bos_id, *self.encode(words), self.eos_id] for _, words in said)
        return Conversation([[(ids, number in answers) for number, ids in enumerate(turns)]])


class SameEnds(Beginning):
    """One token begins and ends documents, as with GPT-2, and a template writes it twice between turns."""

    bos_id = EOS


@pytest.mark.parametrize("tokenizer", [Beginning(), SameEnds()])
def test_a_token_that_begins_documents_within_a_conversation_is_not_where_one_begins(
    tmp_path: Path, tokenizer: ByteTokenizer
) -> None:
    said: list[list[tuple[Role, str]]] = [
        [("user", "Why?"), ("assistant", "So."), ("user", "How?"), ("assistant", "Thus.")],
        [("user", "Who?"), ("assistant", "Me.")],
    ]
    contents = [Content.of_turns(turns) for turns in said]
    documents = [(0, Document(cluster="0" * 16, text=c.text, turns=c.turns)) for c in contents] * 20
    lengths = [sum(len(words) + 2 for _, words in turns) for turns in said] * 20
    write_streams(tmp_path, "tokens", ONE, documents, tokenizer)
    (stream,) = open_streams(tmp_path, "tokens").training
    places = [place for length in lengths for place in range(length)]
    ends = DocumentEnds(tokenizer.bos_id, tokenizer.eos_id)
    batches = Batches(stream, context=len(stream.tokens) - 1, batch_tokens=1, seed=0, ends=ends)
    (part,) = batches.in_parts(0, range(1), 1)
    assert part.positions_BT is not None
    assert part.positions_BT.tolist() == [places[:-1]]
    for step in range(
        10
    ):  # in a short block, a document that began before it counts from the block's first token
        batches = Batches(stream, context=16, batch_tokens=64, seed=step, ends=ends)
        for number, row in enumerate(batches.positions(0, range(2)).tolist()):  # type: ignore[union-attr]
            assert row in [beginning_with_0(places[at : at + 16]) for at in range(len(places) - 16)], number


def beginning_with_0(places: list[int]) -> list[int]:
    """Count the document that a block begins with from its first token in the block."""
    until = places.index(0) if 0 in places else len(places)
    return [*range(until), *places[until:]]


def test_a_short_stream_that_is_repeated_begins_its_documents_again(tmp_path: Path) -> None:
    (stream,) = written(tmp_path / "tokens", Content(text="ab"), Content(text="c")).training
    batches = Batches(stream, context=13, batch_tokens=1, seed=0, ends=DocumentEnds(BOS, EOS))
    assert batches.positions(0) is not None
    places = [0, 1, 2, 3, 0, 1, 2] * 2
    assert batches.positions(0).tolist() == [places[:13]]  # type: ignore[union-attr]


def test_validation_knows_where_documents_begin(tmp_path: Path) -> None:
    cluster = next(c for n in range(10**4) if _falls_to_validation(c := f"{n:016x}"))
    documents = [(n % 2, Document(cluster=cluster, text="ab" * n)) for n in range(1, 9)]
    documents += [(n, Document(cluster="0" * 16, text="trained")) for n in range(2)]
    planned = (Planned("source-0", 0.5, source=0), Planned("source-1", 0.5, source=1))
    write_streams(tmp_path, "tokens", planned, documents, ByteTokenizer())
    streams = open_streams(tmp_path, "tokens")
    found = validation_positions(streams.validation, 10, DocumentEnds(BOS, EOS))
    blocks = validation_blocks(streams.validation.tokens, 10)
    assert found is not None and blocks is not None
    assert found.tolist() == DocumentEnds(BOS, EOS).positions(blocks[:, :-1]).tolist()


def test_tokens_of_an_earlier_version_keep_documents_apart_by_their_ends(tmp_path: Path) -> None:
    (stream,) = written(tmp_path / "tokens", Content(text="ab"), Content(text="cde")).training
    batches = Batches(
        stream._replace(starts=None), context=8, batch_tokens=1, seed=0, ends=DocumentEnds(BOS, EOS)
    )
    assert batches.positions(0) is not None
    assert batches.positions(0).tolist() == [[0, 1, 2, 3, 0, 1, 2, 3]]  # type: ignore[union-attr]


def test_an_answer_of_weight_0_is_read_and_not_learnt(tmp_path: Path) -> None:
    said: list[tuple[Role, str]] = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    (stream,) = written(tmp_path / "tokens", Content.of_turns(said, {1})).training
    (all_learnt,) = written(tmp_path / "all", Content.of_turns(said)).training
    assert stream.tokens.tolist() == all_learnt.tokens.tolist()
    assert (learnt_text(stream), learnt_text(all_learnt)) == ("d$", "b$d$")
