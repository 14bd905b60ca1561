from collections import Counter

import torch

from moe_trainer.data.batches import VALIDATION_BLOCKS, Batches, read_streams, validation_blocks
from moe_trainer.tokenizer import BOS, EOS, Tokenizer

from .conftest import Pool


def stream(length: int) -> torch.Tensor:
    return torch.arange(length, dtype=torch.int16)


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
    training, validation = read_streams(pool.store / pool.data.path, Tokenizer())
    both = torch.cat((training, validation)).tolist()
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
