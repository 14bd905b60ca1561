from collections import Counter

import pytest
import torch

from moe_trainer.streaming import batches as batches_module
from moe_trainer.streaming.batches import (
    IGNORED,
    VALIDATION_BLOCKS,
    Batches,
    DocumentEnds,
    validation_blocks,
)
from moe_trainer.streaming.tokens import TokenStream


def stream(length: int) -> TokenStream:
    return TokenStream(torch.arange(length, dtype=torch.int16))


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


def test_validation_blocks_are_spread_over_the_text_and_bounded() -> None:
    blocks = validation_blocks(stream(30_000).tokens, context=16)
    assert blocks is not None
    assert blocks.shape == (VALIDATION_BLOCKS, 17)
    assert int(blocks[-1, 0]) > 28_000
    assert validation_blocks(stream(10).tokens, context=16) is None


def test_targets_are_the_next_tokens_and_pass_over_those_that_are_not_learnt() -> None:
    tokens = torch.arange(300, dtype=torch.int16)
    batches = Batches(TokenStream(tokens, tokens % 3 == 0), context=16, batch_tokens=64, seed=3)
    for step in range(5):
        ids, targets = batches.batch(step)[:, 1:], batches.targets(step)
        assert torch.equal(targets, torch.where(ids % 3 == 0, ids, IGNORED))
    whole = Batches(TokenStream(tokens), context=16, batch_tokens=64, seed=3)
    assert torch.equal(whole.targets(4), whole.batch(4)[:, 1:])


def test_processes_that_read_their_own_rows_read_the_batch_together() -> None:
    tokens = torch.arange(300, dtype=torch.int16)
    batches = Batches(TokenStream(tokens, tokens % 3 == 0), context=16, batch_tokens=96, seed=3)
    for read in (batches.batch, batches.targets):
        parts = [read(7, rows) for rows in (range(2), range(2, 5), range(5, 6))]
        assert [len(part) for part in parts] == [2, 3, 1]
        assert torch.equal(torch.cat(parts), read(7))


def test_what_a_step_reads_never_changes() -> None:
    """A run that is gone on from by a newer version reads on where it was."""
    batches = Batches(stream(1000), context=8, batch_tokens=32, seed=1)
    assert [batches.batch(step)[:, 0].tolist() for step in (0, 31)] == [
        [491, 979, 971, 219],
        [990, 102, 334, 838],
    ]


def mixed(*shares: float, length: int = 4000, replayed: int | None = None) -> list[TokenStream]:
    return [
        TokenStream(torch.arange(length) + 10_000 * n, share=share, replayed=n == replayed)
        for n, share in enumerate(shares)
    ]


def test_streams_are_mixed_by_their_shares_in_every_stretch() -> None:
    batches = Batches(*mixed(0.5, 0.3, 0.2), context=10, batch_tokens=100, seed=0)
    for step in range(50):
        counts = Counter((batches.batch(step)[:, 0] // 10_000).tolist())
        assert counts == {0: 5, 1: 3, 2: 2}


def test_each_stream_has_epochs_of_its_own() -> None:
    small, large = (
        TokenStream(torch.arange(1001), share=0.5),
        TokenStream(10_000 + torch.arange(4001), share=0.5),
    )
    batches = Batches(small, large, context=10, batch_tokens=40, seed=0)
    assert batches.blocks == 500
    read = torch.cat([batches.batch(step) for step in range(100)])[:, 1:].flatten().tolist()
    seen = Counter(read)
    assert all(seen[token] == 2 for token in range(2, 990))
    assert len([token for token in seen if token >= 10_000]) == 2000
    assert batches.passes(100) == [2.0, 0.5]


@pytest.mark.parametrize(
    ("length", "context", "steps", "expected"),
    [(608, 384, 1, 384 / 607), (608, 384, 3, 3 * 384 / 607), (770, 384, 2, 768 / 769), (100, 384, 1, 3.84)],
)
def test_passes_are_the_tokens_that_were_read_of_those_that_there_are(
    length: int, context: int, steps: int, expected: float
) -> None:
    batches = Batches(stream(length), context=context, batch_tokens=context, seed=0)
    read = sum(batches.targets(step).numel() for step in range(steps))
    assert read == steps * context
    assert batches.passes(steps) == [pytest.approx(expected)]


def test_replayed_rows_are_known_and_lengthen_an_epoch() -> None:
    batches = Batches(*mixed(0.75, 0.25, length=4001, replayed=1), context=10, batch_tokens=80, seed=0)
    assert batches.blocks == round(400 / 0.75)
    for step in (0, 7):
        assert torch.equal(batches.replayed(step), batches.batch(step)[:, 0] >= 10_000)
        assert int(batches.replayed(step).sum()) == 2
        assert torch.equal(batches.replayed(step, range(3, 6)), batches.replayed(step)[3:6])


def test_an_epoch_too_long_to_list_still_reads_every_block_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches_module, "LISTED_BLOCKS", 50)
    batches = Batches(stream(1001), context=10, batch_tokens=40, seed=0)
    for first in (0, 25):
        read = torch.cat([batches.batch(step) for step in range(first, first + 25)])[:, 1:]
        assert len(set(read.flatten().tolist())) == 1000


def test_positions_begin_again_with_each_document() -> None:
    ids = torch.tensor([[5, 6, 257, 256, 7, 8, 257, 256, 9], [256, 5, 6, 7, 8, 9, 5, 6, 7]])
    assert DocumentEnds(256, 257).positions(ids).tolist() == [[0, 1, 2, 0, 1, 2, 3, 0, 1], list(range(9))]


def test_one_token_for_both_ends_begins_a_document_where_it_stands_twice() -> None:
    ids = torch.tensor([[0, 5, 6, 0, 7, 8, 0, 0, 9]])
    assert DocumentEnds(0, 0).positions(ids).tolist() == [[0, 1, 2, 3, 4, 5, 6, 0, 1]]
