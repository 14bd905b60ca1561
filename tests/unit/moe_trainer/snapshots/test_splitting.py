import random
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest

from moe_formats.job_config import HoldoutRule
from moe_trainer.deduplication import near_duplicates, sorting
from moe_trainer.deduplication.catalogue import Catalogue, Rows, digits_of, names_of
from moe_trainer.deduplication.fingerprints import Placement
from moe_trainer.deduplication.minhash import BINS, signature, signatures
from moe_trainer.deduplication.near_duplicates import Components, Resembling, search
from moe_trainer.snapshots.splitting import assign, is_held_out, without_near_duplicates
from moe_trainer.text.content import Content

from ..deduplication import naive

RULE = HoldoutRule(fraction=0.3, salt="salt")


@pytest.fixture
def catalogue() -> Iterator[Catalogue]:
    with Catalogue() as made:
        yield made


def added(catalogue: Catalogue, documents: Sequence[naive.Document]) -> Rows:
    names = names_of([name for name, _ in documents])
    signed = b"".join(signature for _, signature in documents)
    return catalogue.append(names, np.frombuffer(signed, dtype="<u4").reshape(-1, BINS))


def assigned(
    catalogue: Catalogue,
    fresh: Sequence[naive.Document],
    known: Mapping[str, tuple[naive.Place, bytes]] | None = None,
) -> dict[str, naive.Place]:
    known = known or {}
    known_rows = added(catalogue, [(name, signed) for name, (_, signed) in known.items()])
    rows = added(catalogue, fresh)
    clusters = bytes.fromhex("".join(place[0] for place, _ in known.values()))
    sides = np.array([place[1] for place, _ in known.values()], dtype=np.bool_)
    places = assign(catalogue, rows, known_rows, Placement(np.frombuffer(clusters, dtype="S8"), sides), RULE)
    found = zip(digits_of(places.clusters), places.held_out.tolist(), strict=True)
    return dict(zip([name for name, _ in fresh], found, strict=True))


def document(text: str) -> naive.Document:
    return Content(text=text).name(), signature(text)


def texts(count: int) -> list[str]:
    return [" ".join(f"t{number}w{word}" for word in range(50)) for number in range(count)]


def edited(text: str) -> str:
    return text + " and three words more"


def test_the_split_depends_on_the_set_and_not_on_its_order(catalogue: Catalogue) -> None:
    documents = [document(t) for text in texts(40) for t in (text, edited(text))]
    shuffled = random.Random(0).sample(documents, len(documents))
    assert assigned(catalogue, documents) == assigned(catalogue, shuffled)


def test_near_duplicates_are_on_one_side(catalogue: Catalogue) -> None:
    pairs = [(document(text), document(edited(text))) for text in texts(40)]
    places = assigned(catalogue, [d for pair in pairs for d in pair])
    assert all(places[left[0]] == places[right[0]] for left, right in pairs)
    assert len({cluster for cluster, _ in places.values()}) == 40


def test_the_share_held_out_is_the_fraction() -> None:
    held = sum(is_held_out(RULE, f"{number:016x}") for number in range(10_000))
    assert abs(held / 10_000 - RULE.fraction) < 0.02


def test_another_salt_holds_out_other_clusters() -> None:
    other = HoldoutRule(fraction=0.3, salt="pepper")
    sides = [(is_held_out(RULE, str(n)), is_held_out(other, str(n))) for n in range(200)]
    assert any(a != b for a, b in sides)


@pytest.mark.parametrize("held_out", [True, False])
def test_a_known_cluster_keeps_its_side_when_the_rule_would_say_otherwise(
    catalogue: Catalogue, held_out: bool
) -> None:
    old, new = document(texts(1)[0]), document(edited(texts(1)[0]))
    known = {old[0]: (("c" * 16, held_out), old[1])}
    assert assigned(catalogue, [new], known)[new[0]] == ("c" * 16, held_out)


def test_a_document_that_resembles_a_held_out_and_a_trained_cluster_is_held_out(catalogue: Catalogue) -> None:
    text = texts(1)[0]
    trained, held, new = document(text), document("before it all " + text), document(edited(text))
    known = {trained[0]: (("a" * 16, False), trained[1]), held[0]: (("b" * 16, True), held[1])}
    assert assigned(catalogue, [new], known)[new[0]] == ("b" * 16, True)


def test_one_document_of_near_duplicates_is_kept(catalogue: Catalogue) -> None:
    documents = [document(t) for text in texts(10) for t in (text, edited(text))]
    rows = added(catalogue, documents)
    kept = without_near_duplicates(catalogue, rows, 0.8)
    assert set(digits_of(catalogue.names[kept])) == naive.without_near_duplicates(documents, 0.8)
    assert len(kept) == 10


def test_nothing_has_no_near_duplicates(catalogue: Catalogue) -> None:
    nothing = added(catalogue, [])
    assert len(without_near_duplicates(catalogue, nothing, 0.8)) == 0
    assert assigned(catalogue, []) == {}


def family_of_texts(seed: int, count: int = 160) -> list[str]:
    """Texts of which many are near-duplicates of others, some only through a third."""
    draw = random.Random(seed)
    words = [f"w{n}" for n in range(300)]
    ancestors = [draw.choices(words, k=draw.randint(2, 60)) for _ in range(count // 4)]
    made = set()
    for _ in range(count):
        text = list(draw.choice(ancestors))
        for _ in range(draw.choice([0, 0, 1, 2, 4, 8])):
            text[draw.randrange(len(text))] = draw.choice(words)
        made.add(" ".join(text + (draw.choice(ancestors) if draw.random() < 0.2 else [])))
    return draw.sample(sorted(made), len(made))


@pytest.mark.parametrize("short_run", [1, 3, 16])
@pytest.mark.parametrize("seed", range(3))
def test_the_search_finds_what_plain_loops_find(
    catalogue: Catalogue, seed: int, short_run: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether runs are compared by distance or row by row, and however few keys and pairs fit in memory."""
    monkeypatch.setattr(near_duplicates, "_SHORT_RUN", short_run)
    monkeypatch.setattr(near_duplicates, "KEY_MEMORY", 4096)
    monkeypatch.setattr(near_duplicates, "PAIRS_COMPARED", 7)
    monkeypatch.setattr(near_duplicates, "PAIRS_SEEN", 50)
    monkeypatch.setattr(sorting, "ROWS_SORTED", 16)
    documents = [document(text) for text in family_of_texts(seed)]
    first, second, fresh = documents[:30], documents[30:60], documents[60:]
    known: dict[str, tuple[naive.Place, bytes]] = {}
    for part in (first, second):
        found = naive.assign(part, known, RULE)
        known |= {name: (found[name], signed) for name, signed in part}
    assert assigned(catalogue, fresh, known) == naive.assign(fresh, known, RULE)
    rows = added(catalogue, documents)
    for threshold in (0.5, 0.8, 1.0):
        kept = without_near_duplicates(catalogue, rows, threshold)
        assert set(digits_of(catalogue.names[kept])) == naive.without_near_duplicates(documents, threshold)
    given = np.arange(len(rows)) < 40
    resembling = Resembling(given)
    search(catalogue, rows, 0.5, resembling)
    for number, (_, signed) in enumerate(documents[40:], 40):
        like_one = any(naive.alike(signed, other, 0.5) for _, other in documents[:40])
        assert resembling.found[number] == like_one


def test_a_thousand_copies_cost_about_a_thousand_comparisons(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = 0
    real = near_duplicates.similar

    def counted(left: np.ndarray, right: np.ndarray, threshold: float) -> np.ndarray:
        nonlocal compared
        compared += len(left)
        return real(left, right, threshold)

    monkeypatch.setattr(near_duplicates, "similar", counted)
    signed = signatures([texts(1)[0]] * 1000)
    rows = catalogue.append(names_of([f"{n:032x}" for n in range(1000)]), signed)
    linked = Components(1000)
    search(catalogue, rows, 0.5, linked)
    assert (linked.roots() == 0).all()
    assert compared < 3000
