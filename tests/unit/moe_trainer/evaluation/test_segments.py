"""Segments are defined by bytes, taken round-robin over clusters, and depend on no order."""

import random

from moe_trainer.data.snapshot_layout import Document
from moe_trainer.evaluation.segments import CONTEXT_BYTES, MAX_SEGMENTS, MIN_SEGMENT_BYTES, SEGMENT_BYTES, cut


def document(cluster: str, length: int, seed: int = 0) -> Document:
    return Document(cluster=cluster, text="".join(random.Random(seed).choices("abcdefgh ", k=length)))


def test_a_document_is_covered_once_after_its_first_context() -> None:
    length = CONTEXT_BYTES + 3 * SEGMENT_BYTES
    text = document("a", length).text.encode()
    segments = cut([document("a", length)])
    assert {segment.text for segment in segments} == {
        text[start : start + SEGMENT_BYTES] for start in range(CONTEXT_BYTES, length, SEGMENT_BYTES)
    }
    for segment in segments:
        assert len(segment.context) == CONTEXT_BYTES
        assert segment.context + segment.text in text


def test_a_short_tail_is_left_out_and_a_longer_one_kept() -> None:
    whole = CONTEXT_BYTES + SEGMENT_BYTES
    assert len(cut([document("a", whole + MIN_SEGMENT_BYTES - 1)])) == 1
    assert len(cut([document("a", whole + MIN_SEGMENT_BYTES)])) == 2


def test_a_short_document_gives_one_segment_after_half_of_it() -> None:
    (segment,) = cut([document("a", 40)])
    assert (len(segment.context), len(segment.text)) == (20, 20)
    (segment,) = cut([document("a", 1)])
    assert (len(segment.context), len(segment.text)) == (0, 1)


def test_sizes_are_utf8_bytes_and_no_character_is_cut() -> None:
    for text in ("é" * 1000, "a" + "é" * 1000, "→" * 700, "a🙂" * 400, "é"):
        segments = cut([Document(cluster="a", text=text)])
        assert all(len(segment.text) <= SEGMENT_BYTES for segment in segments)
        assert all(len(segment.context) <= CONTEXT_BYTES for segment in segments)
        for segment in segments:
            assert segment.context.decode() + segment.text.decode() in text
        left_out = CONTEXT_BYTES + MIN_SEGMENT_BYTES
        assert sum(len(segment.text) for segment in segments) > len(text.encode()) - left_out - 4


def test_clusters_take_turns_up_to_the_cap() -> None:
    large = [document("large", 60_000, seed) for seed in range(3)]
    small = [document(f"small-{i}", 600, seed=i) for i in range(50)]
    segments = cut([*large, *small])
    assert len(segments) == MAX_SEGMENTS
    clusters = [segment.cluster for segment in segments]
    assert set(clusters[:51]) == {"large", *(f"small-{i}" for i in range(50))}
    assert all(clusters.count(f"small-{i}") == len(cut([small[i]])) for i in range(50))


def test_the_order_of_documents_does_not_matter() -> None:
    documents = [document(f"c{i % 5}", 2000, seed=i) for i in range(20)]
    shuffled = random.Random(1).sample(documents, len(documents))
    assert cut(documents) == cut(shuffled)


def test_the_heads_of_documents_are_not_preferred() -> None:
    documents = [document("one", 8000, seed=i) for i in range(300)]
    heads = {d.text.encode()[CONTEXT_BYTES : CONTEXT_BYTES + SEGMENT_BYTES] for d in documents}
    taken = [segment.text in heads for segment in cut(documents)]
    assert 0 < sum(taken) < MAX_SEGMENTS / 10  # one in thirty-one is a head


def test_what_can_have_no_turn_is_not_kept_and_changes_nothing() -> None:
    """Compared with all segments of all clusters, for fewer clusters than the limit, as many, and more."""
    draw = random.Random(0)
    for clusters in (3, 8, 30):
        documents = [
            document(f"{draw.randrange(clusters):02}", draw.randrange(1500), seed=n) for n in range(60)
        ]
        everything = cut(documents, limit=10**6)
        names = sorted({segment.cluster for segment in everything})
        turns = {name: [s for s in everything if s.cluster == name] for name in names}
        rounds = [turns[name][n] for n in range(100) for name in names if n < len(turns[name])]
        for limit in (1, 8, 20):
            shuffled = draw.sample(documents, len(documents))
            assert cut(shuffled, limit) == rounds[:limit]
