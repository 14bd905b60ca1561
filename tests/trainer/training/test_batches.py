from collections import Counter
from pathlib import Path

import torch

from moe_trainer.data.batches import (
    IGNORED,
    VALIDATION_BLOCKS,
    Batches,
    Stream,
    read_streams,
    validation_blocks,
)
from moe_trainer.data.content import Content, Role
from moe_trainer.data.snapshot_layout import DOCUMENTS, Document
from moe_trainer.tokenizer import BOS, EOS, ByteTokenizer

from .conftest import Pool


def stream(length: int) -> Stream:
    return Stream(torch.arange(length, dtype=torch.int16))


def test_an_epoch_reads_every_block_once_and_the_next_in_another_order() -> None:
    batches = Batches(stream(1005), context=10, batch_tokens=40, seed=0)
    assert (batches.rows, batches.blocks, batches.steps(1), batches.steps(2.5)) == (4, 100, 25, 63)
    epochs = [[batches.batch(step) for step in range(first, first + 25)] for first in (0, 25)]
    targets = [torch.cat(epoch)[:, 1:].flatten().tolist() for epoch in epochs]
    for seen in targets:
        assert len(set(seen)) == 1000
        assert max(seen) - min(seen) == 999
    assert targets[0] != targets[1]


def test_the_tokens_of_a_block_follow_each_other() -> None:
    batches = Batches(stream(300), context=16, batch_tokens=64, seed=3)
    for step in range(10):
        assert (batches.batch(step).diff(dim=1) == 1).all()


def test_a_step_reads_the_same_whatever_was_read_before() -> None:
    one, other = (Batches(stream(500), context=8, batch_tokens=24, seed=5) for _ in range(2))
    expected = [one.batch(step) for step in range(60)]
    for step in (59, 3, 30, 0, 21, 20):
        assert torch.equal(other.batch(step), expected[step])
    reseeded = Batches(stream(500), context=8, batch_tokens=24, seed=6)
    assert not torch.equal(reseeded.batch(0), expected[0])


def test_text_shorter_than_a_block_is_repeated() -> None:
    batches = Batches(stream(5), context=16, batch_tokens=16, seed=0)
    assert batches.batch(0).shape == (1, 17)
    assert set(batches.batch(0).flatten().tolist()) == set(range(5))


def test_documents_become_bos_bytes_eos_and_every_byte_is_on_one_side(pool: Pool) -> None:
    training, validation = read_streams(pool.store / pool.data.path, ByteTokenizer())
    assert training.learnt is None and validation.learnt is None
    both = torch.cat((training.tokens, validation.tokens)).tolist()
    counts = Counter(both)
    assert counts[BOS] == counts[EOS] == pool.data.documents
    assert len(both) == pool.data.train_bytes + 2 * pool.data.documents
    assert both[0] == BOS and both[-1] == EOS


def test_validation_blocks_are_spread_over_the_text_and_bounded() -> None:
    blocks = validation_blocks(stream(30_000), context=16)
    assert blocks is not None
    assert blocks.shape == (VALIDATION_BLOCKS, 17)
    assert int(blocks[-1, 0]) > 28_000
    assert validation_blocks(stream(10), context=16) is None


def snapshot(folder: Path, *contents: Content) -> Path:
    documents = (Document(cluster="0" * 16, text=content.text, turns=content.turns) for content in contents)
    (folder / DOCUMENTS).write_text("".join(document.to_json() + "\n" for document in documents))
    return folder


def learnt_text(stream: Stream) -> str:
    assert stream.learnt is not None
    return "".join("$" if i == EOS else chr(i) for i in stream.tokens[stream.learnt].tolist())


def test_of_a_conversation_only_the_answers_and_their_ends_are_learnt(tmp_path: Path) -> None:
    said: list[tuple[Role, str]] = [("system", "Be brief."), ("user", "Why?"), ("assistant", "So.")]
    more: list[tuple[Role, str]] = [("user", "How?"), ("assistant", "Thus."), ("user", "Thanks")]
    training, _ = read_streams(snapshot(tmp_path, Content.of_turns([*said, *more])), ByteTokenizer())
    words = ByteTokenizer().decode([i for i in training.tokens.tolist() if i < 256])
    assert words == "Be brief.\n\nWhy?\n\nSo.\n\nHow?\n\nThus.\n\nThanks"
    assert learnt_text(training) == "So.$Thus.$"
    assert training.tokens[0] == BOS and training.tokens[-1] == EOS


def test_text_beside_conversations_is_learnt_whole(tmp_path: Path) -> None:
    said: list[tuple[Role, str]] = [("user", "Why?"), ("assistant", "So.")]
    training, _ = read_streams(
        snapshot(tmp_path, Content(text="text"), Content.of_turns(said)), ByteTokenizer()
    )
    assert learnt_text(training) == f"{chr(BOS)}text$So.$"
    assert training.tokens.tolist().count(EOS) == 2


def test_targets_are_the_next_tokens_and_pass_over_those_that_are_not_learnt() -> None:
    tokens = torch.arange(300, dtype=torch.int16)
    batches = Batches(Stream(tokens, tokens % 3 == 0), context=16, batch_tokens=64, seed=3)
    for step in range(5):
        ids, targets = batches.batch(step)[:, 1:], batches.targets(step)
        assert torch.equal(targets, torch.where(ids % 3 == 0, ids, IGNORED))
    whole = Batches(Stream(tokens), context=16, batch_tokens=64, seed=3)
    assert torch.equal(whole.targets(4), whole.batch(4)[:, 1:])


def test_processes_that_read_their_own_rows_read_the_batch_together() -> None:
    tokens = torch.arange(300, dtype=torch.int16)
    batches = Batches(Stream(tokens, tokens % 3 == 0), context=16, batch_tokens=96, seed=3)
    for read in (batches.batch, batches.targets):
        parts = [read(7, rows) for rows in (range(2), range(2, 5), range(5, 6))]
        assert [len(part) for part in parts] == [2, 3, 1]
        assert torch.equal(torch.cat(parts), read(7))
