"""Segments are defined by bytes, taken round-robin over clusters, and depend on no order."""

import random
from typing import get_args

import pytest

from moe_formats.segment_size import CONTEXT_BYTES, SegmentBytes, tokens_needed
from moe_trainer.evaluation.segments import MAX_SEGMENTS, cut, scorer_version, shortest_tail
from moe_trainer.snapshots.layout import Document

SIZES: tuple[SegmentBytes, ...] = get_args(SegmentBytes)
of_each_size = pytest.mark.parametrize("size", SIZES)


def test_there_are_two_sizes_and_each_has_its_tokens_and_its_version() -> None:
    assert [(size, tokens_needed(size), shortest_tail(size), scorer_version(size)) for size in SIZES] == [
        (256, 384, 64, "bytes-128+256-of-256-v2"),
        (3968, 4096, 992, "bytes-128+3968-of-256-v2"),
    ]


def document(cluster: str, length: int, seed: int = 0) -> Document:
    return Document(cluster=cluster, text="".join(random.Random(seed).choices("abcdefgh ", k=length)))


@of_each_size
def test_a_document_is_covered_once_after_its_first_context(size: SegmentBytes) -> None:
    length = CONTEXT_BYTES + 3 * size
    text = document("a", length).text.encode()
    segments = cut([document("a", length)], size)
    assert {segment.text for segment in segments} == {
        text[start : start + size] for start in range(CONTEXT_BYTES, length, size)
    }
    for segment in segments:
        assert len(segment.context) == CONTEXT_BYTES
        assert segment.context + segment.text in text


@of_each_size
def test_a_short_tail_is_left_out_and_a_longer_one_kept(size: SegmentBytes) -> None:
    whole, tail = CONTEXT_BYTES + size, shortest_tail(size)
    assert len(cut([document("a", whole + tail - 1)], size)) == 1
    assert len(cut([document("a", whole + tail)], size)) == 2


@of_each_size
def test_a_short_document_gives_one_segment_after_half_of_it(size: SegmentBytes) -> None:
    (segment,) = cut([document("a", 40)], size)
    assert (len(segment.context), len(segment.text)) == (20, 20)
    (segment,) = cut([document("a", 1)], size)
    assert (len(segment.context), len(segment.text)) == (0, 1)


@of_each_size
def test_sizes_are_utf8_bytes_and_no_character_is_cut(size: SegmentBytes) -> None:
    for text in ("é" * 5000, "a" + "é" * 5000, "→" * 3500, "a🙂" * 2000, "é"):
        segments = cut([Document(cluster="a", text=text)], size)
        assert all(len(segment.text) <= size for segment in segments)
        assert all(len(segment.context) <= CONTEXT_BYTES for segment in segments)
        for segment in segments:
            assert segment.context.decode() + segment.text.decode() in text
        left_out = CONTEXT_BYTES + shortest_tail(size)
        assert sum(len(segment.text) for segment in segments) > len(text.encode()) - left_out - 4


def test_clusters_take_turns_up_to_the_cap() -> None:
    large = [document("large", 60_000, seed) for seed in range(3)]
    small = [document(f"small-{i}", 600, seed=i) for i in range(50)]
    segments = cut([*large, *small], 256)
    assert len(segments) == MAX_SEGMENTS
    clusters = [segment.cluster for segment in segments]
    assert set(clusters[:51]) == {"large", *(f"small-{i}" for i in range(50))}
    assert all(clusters.count(f"small-{i}") == len(cut([small[i]], 256)) for i in range(50))


def test_the_order_of_documents_does_not_matter() -> None:
    documents = [document(f"c{i % 5}", 2000, seed=i) for i in range(20)]
    shuffled = random.Random(1).sample(documents, len(documents))
    assert cut(documents, 256) == cut(shuffled, 256)


def test_the_heads_of_documents_are_not_preferred() -> None:
    documents = [document("one", 8000, seed=i) for i in range(300)]
    heads = {d.text.encode()[CONTEXT_BYTES : CONTEXT_BYTES + 256] for d in documents}
    taken = [segment.text in heads for segment in cut(documents, 256)]
    assert 0 < sum(taken) < MAX_SEGMENTS / 10  # one in thirty-one is a head


def test_what_can_have_no_turn_is_not_kept_and_changes_nothing() -> None:
    """Compared with all segments of all clusters, for fewer clusters than the limit, as many, and more."""
    draw = random.Random(0)
    for clusters in (3, 8, 30):
        documents = [
            document(f"{draw.randrange(clusters):02}", draw.randrange(1500), seed=n) for n in range(60)
        ]
        everything = cut(documents, 256, limit=10**6)
        names = sorted({segment.cluster for segment in everything})
        turns = {name: [s for s in everything if s.cluster == name] for name in names}
        rounds = [turns[name][n] for n in range(100) for name in names if n < len(turns[name])]
        for limit in (1, 8, 20):
            shuffled = draw.sample(documents, len(documents))
            assert cut(shuffled, 256, limit) == rounds[:limit]
