"""Text that a tokenizer does not give back as it was, so that nothing can be measured on it."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.trainer.hugging_face import tokenizers_made_here
from tests.unit.moe_trainer.conftest import Place
from tokenizers import Tokenizer, normalizers

from moe_formats.job_config import ArtefactRef, ImportedBase, SnapshotJob
from moe_trainer.evaluation.round_trip import unreadable
from moe_trainer.evaluation.segments import Segment, cut
from moe_trainer.hugging_face.importing import digest_of_folder
from moe_trainer.hugging_face.tokenizer import CheckpointTokenizer
from moe_trainer.methods.adapter import AdapterRecord
from moe_trainer.snapshots.layout import read_documents
from moe_trainer.storage.committing import new_folder
from moe_trainer.storage.manifest import read_manifest
from moe_trainer.text.tokenizer import ByteTokenizer

#: The same text in two forms.
COMPOSED = "Größe, Ähnlichkeit und süße Öfen: déjà vu à Đà Nẵng. "
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)


def prose(number: int, text: str) -> str:
    """A document that shares no word with those of other numbers."""
    return " ".join(f"{word}{number}w{place}" for place, word in enumerate(text.split() * 6))


def tokenizer(folder: Path, normalizer: object = None) -> CheckpointTokenizer:
    made: Tokenizer = tokenizers_made_here.byte_level()
    if normalizer is not None:
        made.normalizer = normalizer  # type: ignore[assignment]
    tokenizers_made_here.write(folder, made)
    return CheckpointTokenizer.load(folder)


def _with_nfc() -> Tokenizer:
    made: Tokenizer = tokenizers_made_here.byte_level()
    made.normalizer = normalizers.NFC()  # type: ignore[assignment]
    return made


def segments(*texts: str) -> list[Segment]:
    return [Segment(f"{n:016x}", b"", text.encode()) for n, text in enumerate(texts)]


def with_base(place: Place, job: SnapshotJob, normalizer: object) -> SnapshotJob:
    folder = place.sources / "hub" / "small"
    tokenizer(folder, normalizer)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"\2" + b"\0" * 7 + b"{}")
    base = ImportedBase(root="hub", path="small", digest=digest_of_folder(folder))
    return job.model_copy(update={"base": base})


def test_the_snapshot_says_how_many_held_out_segments_the_bases_tokenizer_changes(place: Place) -> None:
    texts = [prose(n, DECOMPOSED if n % 3 else COMPOSED) for n in range(60)]
    place.text("prose", texts)
    made = place.snapshot(with_base(place, place.job("prose"), normalizers.NFC()))
    held = [segment.text.decode() for segment in cut(read_documents(place.store / made.anchor.path), 256)]
    changed = sum(unicodedata.normalize("NFC", text) != text for text in held)
    assert 0 < changed < len(held)
    assert made.unreadable is not None
    assert (made.unreadable.segments, made.unreadable.of) == (changed, len(held))
    assert made.unreadable.why == "it puts text into Unicode's form NFC"
    again = place.snapshot(with_base(place, place.job("prose"), normalizers.NFC()))
    assert again == made


def test_the_snapshot_tries_the_tokenizer_of_the_checkpoint_that_the_base_expert_descends_from(
    place: Place,
) -> None:
    texts = [prose(n, DECOMPOSED if n % 3 else COMPOSED) for n in range(60)]
    place.text("prose", texts)
    job = with_base(place, place.job("prose"), normalizers.NFC())
    made = place.snapshot(job.model_copy(update={"base": None, "root_base": job.base}))
    held = [segment.text.decode() for segment in cut(read_documents(place.store / made.anchor.path), 256)]
    changed = sum(unicodedata.normalize("NFC", text) != text for text in held)
    assert made.unreadable is not None
    assert (made.unreadable.segments, made.unreadable.of) == (changed, len(held))
    assert made.unreadable.why == "it puts text into Unicode's form NFC"


@pytest.mark.parametrize("method", ["Full", "LoRA"])
def test_the_snapshot_tries_the_tokenizer_of_the_revision_that_training_will_start_from(
    place: Place, method: str
) -> None:
    place.text("prose", [prose(n, DECOMPOSED if n % 3 else COMPOSED) for n in range(60)])
    job = place.job("prose")
    with new_folder(place.store, "checkpoint", "artefact") as folder:
        tokenizers_made_here.write(folder, _with_nfc())
    base = ArtefactRef(
        revision="general-1", path="checkpoint", digest=read_manifest(place.store, "checkpoint")[1]
    )
    if method == "LoRA":
        with new_folder(place.store, "adapter", "artefact") as folder:
            (folder / "adapter.json").write_text(AdapterRecord(method="LoRA", base=base).to_json())
        digest = read_manifest(place.store, "adapter")[1]
        base = ArtefactRef(revision="general-2", path="adapter", digest=digest)
    made = place.snapshot(job.model_copy(update={"base_artefact": base}))
    held = [segment.text.decode() for segment in cut(read_documents(place.store / made.anchor.path), 256)]
    changed = sum(unicodedata.normalize("NFC", text) != text for text in held)
    assert made.unreadable is not None
    assert (made.unreadable.segments, made.unreadable.of) == (changed, len(held))


def test_a_base_that_is_gone_from_the_store_only_leaves_its_tokenizer_untried(place: Place) -> None:
    place.text("prose", [prose(n, DECOMPOSED) for n in range(60)])
    gone = ArtefactRef(revision="general-1", path="gone", digest="sha256:" + "0" * 64)
    made = place.snapshot(place.job("prose").model_copy(update={"base_artefact": gone}))
    assert made.unreadable is not None and (made.unreadable.segments, made.unreadable.of > 0) == (0, True)


def test_a_checkpoint_of_another_expert_that_cannot_be_imported_only_leaves_its_tokenizer_untried(
    place: Place,
) -> None:
    place.text("prose", [prose(n, DECOMPOSED) for n in range(60)])
    job = place.job("prose")
    root = ImportedBase(root="hub", path="nowhere", digest="sha256:" + "0" * 64)
    (place.sources / "hub").mkdir()
    made = place.snapshot(job.model_copy(update={"root_base": root}))
    assert made.unreadable is not None and (made.unreadable.segments, made.unreadable.of > 0) == (0, True)
    assert made.unreadable.why.startswith("hub/nowhere holds no checkpoint that can be a base")


@pytest.mark.parametrize("given", ["no base", "no normalizer", "composed text"])
def test_it_says_nothing_where_all_can_be_measured(place: Place, given: str) -> None:
    text = COMPOSED if given == "composed text" else DECOMPOSED
    place.text("prose", [prose(n, text) for n in range(30)])
    job = place.job("prose")
    if given != "no base":
        job = with_base(place, job, normalizers.NFC() if given == "composed text" else None)
    assert place.snapshot(job).unreadable is None


@pytest.mark.parametrize(
    ("normalizer", "texts", "why"),
    [
        (normalizers.NFC, [DECOMPOSED], "it puts text into Unicode's form NFC"),
        (normalizers.NFD, [COMPOSED], "it puts text into Unicode's form NFD"),
        (normalizers.NFKC, ["ｗｉｄｅ"], "it puts text into Unicode's form NFKC"),
        (normalizers.Lowercase, ["Capitals"], "it puts text into lower case"),
        (
            lambda: normalizers.Strip(),
            ["  indented", "at the end \n"],
            "it takes spaces away at the ends of a text",
        ),
        (lambda: normalizers.Replace("``", '"'), ["``quoted"], "it returns '\"quoted' for '``quoted'"),
    ],
)
def test_the_reason_is_said(
    tmp_path: Path,
    normalizer: Callable[[], object],
    texts: list[str],
    why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("moe_trainer.hugging_face.tokenizer._PROBE", "plain")
    monkeypatch.setattr("moe_trainer.hugging_face.tokenizer.try_out", lambda *_: None)
    found = unreadable(tokenizer(tmp_path, normalizer()), segments("plain", *texts))
    assert found is not None
    assert (found.segments, found.of, found.why) == (len(texts), len(texts) + 1, why)


def test_bytes_are_always_given_back() -> None:
    assert unreadable(ByteTokenizer(), segments(COMPOSED, DECOMPOSED, "\x01")) is None
