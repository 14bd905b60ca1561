"""Scoring segments of both sizes: against every byte's likelihood one by one, and in pieces against the whole."""

import itertools
import random
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3MoeConfig

from moe_formats.failure import JobError
from moe_formats.segment_size import SegmentBytes
from moe_trainer.evaluation import scorer
from moe_trainer.evaluation.matrix import Cell, CellKey
from moe_trainer.evaluation.segments import Segment, cut, scorer_version
from moe_trainer.hugging_face.decoder import Decoder
from moe_trainer.models.causal_model import CausalModel
from moe_trainer.models.preset_config import ModelConfig
from moe_trainer.models.preset_model import Model, initialise
from moe_trainer.snapshots.layout import Document
from moe_trainer.text.tokenizer import ByteTokenizer

DIGEST = "sha256:" + "0" * 64
SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "max_position_embeddings": 4096,
    "initializer_range": 0.2,
}


def decoder() -> Decoder:
    torch.manual_seed(0)
    config = Qwen3MoeConfig(**SIZES, intermediate_size=24, norm_topk_prob=True, tie_word_embeddings=False)
    return Decoder(AutoModelForCausalLM.from_config(config), {}, {}).eval()


def preset_like() -> Model:
    model = Model(ModelConfig(**SIZES, tie_word_embeddings=False)).eval()
    initialise(model, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():  # what starts at 0 is to count as well
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    return model


@pytest.fixture(scope="module", params=[decoder, preset_like], ids=["transformers", "preset"])
def model(request: pytest.FixtureRequest) -> CausalModel:
    torch.set_num_threads(1)
    made: CausalModel = request.param()
    return made


def documents(count: int, length: int) -> list[Document]:
    """Return documents of about a length: some longer, some much shorter."""
    draw = random.Random(0)
    lengths = [draw.choice((length, length + 700, length // 10)) for _ in range(count)]
    return [
        Document(cluster=f"{n:02}", text="".join(draw.choices("abc äö ", k=length)))
        for n, length in enumerate(lengths)
    ]


def score(model: CausalModel, segments: list[Segment], size: SegmentBytes) -> Cell:
    key = CellKey(artefact=DIGEST, holdout=DIGEST, scorer=scorer_version(size))
    return scorer.score(model, ByteTokenizer(), segments, key)


@torch.inference_mode()
def one_by_one(model: CausalModel, segment: Segment) -> tuple[float, float, int]:
    """Return nats of the segment and of its context, and bytes that were the likeliest: a segment alone, in doubles."""
    ids = torch.tensor([[ByteTokenizer().bos_id, *segment.context, *segment.text]])
    logits = model(ids[:, :-1])[0].double()
    nats = (-logits.log_softmax(-1)).gather(1, ids[0, 1:, None])[:, 0]
    hits = (logits.argmax(-1) == ids[0, 1:]).long()
    context = len(segment.context)
    return float(nats[context:].sum()), float(nats[:context].sum()), int(hits[context:].sum())


@pytest.mark.parametrize(("size", "length"), [(256, 900), (3968, 4200)])
def test_both_sizes_score_what_a_segment_alone_scores(
    model: CausalModel, size: SegmentBytes, length: int
) -> None:
    segments = cut(documents(7, length), size)
    assert max(len(segment.text) for segment in segments) >= size - 1
    cell = score(model, segments, size)
    assert cell.key.scorer == f"bytes-128+{size}-of-256-v2" and not cell.unreadable
    for number, segment in enumerate(segments):
        nats, before, hits = one_by_one(model, segment)
        assert cell.nats[number] == pytest.approx(nats, rel=1e-5)
        assert cell.context_nats[number] == pytest.approx(before, rel=1e-5)
        assert abs(cell.hits[number] - hits) <= 1  # two bytes may be as likely
    assert score(model, segments, size) == cell


def test_a_model_that_sees_too_little_scores_nothing(model: CausalModel) -> None:
    segments = [Segment("c", b"a" * 128, b"b" * 3969)]
    with pytest.raises(JobError, match=r"ContextTooShort: the model's context is 4096 tokens.*has 4097"):
        score(model, segments, 3968)


def test_what_is_made_in_pieces_is_what_is_made_at_once(
    model: CausalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments = cut(documents(9, 900), 256, limit=32)
    whole = score(model, segments, 256)
    lengths: list[int] = []
    pieces = model.logits_in_pieces

    def counted(ids_BT: torch.Tensor, length: int) -> Any:
        lengths.append(length)
        return pieces(ids_BT, length)

    monkeypatch.setattr(model, "logits_in_pieces", counted)
    for logits in (1, 32 * 300 * 50):
        monkeypatch.setattr(scorer, "PIECE_LOGITS", logits)
        in_pieces = score(model, segments, 256)
        assert in_pieces.hits == whole.hits
        assert in_pieces.nats == pytest.approx(whole.nats, rel=1e-7)
    assert lengths == [16, 48]


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [
        ([], []),
        ([384] * 70, [32, 32, 6]),  # as many as ever, whatever the tokenizer makes of 256 bytes
        ([512] * 33, [32, 1]),
        ([4096] * 9, [4, 4, 1]),
        ([4096] * 3 + [100] * 70, [4, 32, 32, 5]),
        ([4000, 2000, 2000, 2000, 1000] + [500] * 40, [4, 16, 25]),
        ([100_000, 3], [1, 1]),  # one is scored, however long
    ],
)
def test_batches_are_bounded_by_segments_and_by_tokens(sizes: list[int], batches: list[int]) -> None:
    found = list(scorer._batches(sizes))
    assert [len(batch) for batch in found] == batches
    flat = list(itertools.chain(*found))
    assert sorted(flat) == list(range(len(sizes)))
    assert [sizes[i] for i in flat] == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
    ("rows", "vocabulary", "length"),
    [
        (32, 259, 8096),  # presets: at once
        (32, 32_000, 64),
        (32, 151_936, 16),
        (4, 151_936, 96),
        (1, 151_936, 432),
        (32, 1_000_000, 16),
    ],
)
def test_a_piece_is_a_multiple_of_16_tokens_that_the_vocabulary_leaves_room_for(
    rows: int, vocabulary: int, length: int
) -> None:
    assert scorer._piece_length(rows, vocabulary) == length
    assert rows * vocabulary * length <= max(scorer.PIECE_LOGITS, rows * vocabulary * 16)
