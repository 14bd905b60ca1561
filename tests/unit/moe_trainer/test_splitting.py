import random

from moe_trainer.data.content import Content
from moe_trainer.data.minhash import signature
from moe_trainer.data.splitting import (
    Fingerprinted,
    Member,
    assign,
    is_held_out,
    without_near_duplicates,
)
from moe_trainer.job_config import HoldoutRule

RULE = HoldoutRule(fraction=0.3, salt="salt")


def document(text: str) -> Fingerprinted:
    return Fingerprinted(Content(text=text).name(), signature(text))


def texts(count: int) -> list[str]:
    return [" ".join(f"t{number}w{word}" for word in range(50)) for number in range(count)]


def edited(text: str) -> str:
    return text + " and three words more"


def test_the_split_depends_on_the_set_and_not_on_its_order() -> None:
    documents = [document(t) for text in texts(40) for t in (text, edited(text))]
    shuffled = random.Random(0).sample(documents, len(documents))
    assert assign(documents, {}, RULE) == assign(shuffled, {}, RULE)


def test_near_duplicates_are_on_one_side() -> None:
    pairs = [(document(text), document(edited(text))) for text in texts(40)]
    places = assign([d for pair in pairs for d in pair], {}, RULE)
    assert all(places[left.document] == places[right.document] for left, right in pairs)
    assert len({member.cluster for member in places.values()}) == 40


def test_the_share_held_out_is_the_fraction() -> None:
    held = sum(is_held_out(RULE, f"{number:016x}") for number in range(10_000))
    assert abs(held / 10_000 - RULE.fraction) < 0.02


def test_another_salt_holds_out_other_clusters() -> None:
    other = HoldoutRule(fraction=0.3, salt="pepper")
    sides = [(is_held_out(RULE, str(n)), is_held_out(other, str(n))) for n in range(200)]
    assert any(a != b for a, b in sides)


def test_a_known_cluster_keeps_its_side_when_the_rule_would_say_otherwise() -> None:
    old, new = document(texts(1)[0]), document(edited(texts(1)[0]))
    for held_out in (True, False):
        known = {old.document: (Member("c" * 16, held_out), old.signature)}
        assert assign([new], known, RULE)[new.document] == Member("c" * 16, held_out)


def test_a_document_that_resembles_a_held_out_and_a_trained_cluster_is_held_out() -> None:
    text = texts(1)[0]
    trained, held, new = document(text), document("before it all " + text), document(edited(text))
    known = {
        trained.document: (Member("a" * 16, False), trained.signature),
        held.document: (Member("b" * 16, True), held.signature),
    }
    assert assign([new], known, RULE)[new.document] == Member("b" * 16, True)


def test_one_document_of_near_duplicates_is_kept() -> None:
    documents = [document(t) for text in texts(10) for t in (text, edited(text))]
    kept = without_near_duplicates(documents, 0.8)
    assert len(kept) == 10
    assert kept == without_near_duplicates(reversed(documents), 0.8)
