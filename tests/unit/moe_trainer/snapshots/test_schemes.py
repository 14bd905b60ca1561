"""What differs between pools of scheme 1 and of scheme 2, and that a pool keeps the one that it began with."""

import ast
import json
import random
import re
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.moe_trainer.conftest import Place

from moe_formats import store
from moe_formats.failure import JobError
from moe_formats.job_config import Filter, SnapshotJob, Source
from moe_formats.job_report import SnapshotHeadline
from moe_trainer.snapshots.layout import read_documents, read_record

#: The same text as different programs write it.
FORMS: dict[str, Callable[[str], str]] = {
    "NFD": lambda text: unicodedata.normalize("NFD", text),
    "full width": lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "ligatures": lambda text: text.replace("fi", "ﬁ").replace("ff", "ﬀ"),
    "soft hyphens": lambda text: re.sub(r"(\w\w\w)(\w)", "\\1\u00ad\\2", text),
    "zero width": lambda text: re.sub(r"(\w\w)(\w)", "\\1\u200b\\2", text),
    "joiners and marks of direction": lambda text: "\u200f\ufeff" + text.replace("é", "é\u200d\u2060"),
    "variation selectors": lambda text: text.replace("é", "é\ufe0f"),
    "tags": lambda text: text.replace(" ", "\U000e0020 "),
    "capitals": lambda text: text.replace("ß", "ss").upper(),
}


def accented(count: int) -> list[str]:
    """Texts in which nearly every word differs between the forms."""
    draw = random.Random(7)
    words = [f"{a}é{b}ßffi" for a in "bcdfghklmnpqrstv" for b in "abcdefghijklmnop"]
    return [" ".join(f"{word}{number}" for word in draw.sample(words, 40)) for number in range(count)]


def begun(job: SnapshotJob, scheme: int = 2) -> SnapshotJob:
    return job.model_copy(update={"new_pool_scheme": scheme})


def texts(place: Place, path: str) -> list[str]:
    return [document.text for document in read_documents(place.store / path)]


def of_files(place: Place, files: dict[str, bytes], scheme: int, *filters: Filter) -> SnapshotHeadline:
    folder = place.sources / "corpora" / "code"
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    sources = (Source(root="corpora", path="code/*", format="text"),)
    return place.snapshot(begun(place.job("code", sources=sources, filters=filters), scheme))


@pytest.mark.parametrize("form", FORMS)
def test_the_forms_of_a_text_are_on_one_side(place: Place, form: str) -> None:
    pairs = {FORMS[form](text): text for text in accented(40)}
    assert not set(pairs) & set(pairs.values())
    place.text("prose", [*pairs.values(), *pairs])
    made = place.snapshot(begun(place.job("prose")))
    trained, held = texts(place, made.path), texts(place, made.anchor.path)
    assert len(trained) + len(held) == 80 and 5 < made.anchor.clusters < 25
    assert {pairs.get(text, text) for text in held}.isdisjoint(pairs.get(text, text) for text in trained)


@pytest.mark.parametrize("form", FORMS)
def test_of_the_forms_of_a_text_one_is_kept_if_near_duplicates_are_filtered(place: Place, form: str) -> None:
    place.text("prose", [*accented(20), *map(FORMS[form], accented(20))])
    made = place.snapshot(begun(place.job("prose", filters=(Filter(name="nearDuplicate"),))))
    assert made.dropped == {"nearDuplicate": 20}


def test_a_form_of_what_another_expert_holds_out_is_not_trained_on(place: Place) -> None:
    place.text("prose", accented(40))
    held = texts(place, place.snapshot(begun(place.job("prose"))).anchor.path)
    place.text("copies", map(FORMS["NFD"], accented(40)))
    general = place.snapshot(begun(place.job("copies", expert="general", fraction=0.01)))
    assert general.dropped["heldOutElsewhere"] == len(held)


def test_texts_are_kept_as_they_were_written(place: Place) -> None:
    written = [FORMS["NFD"](text) + "\u00ad" for text in accented(20)]
    place.text("prose", written)
    made = place.snapshot(begun(place.job("prose")))
    assert sorted(texts(place, made.path) + texts(place, made.anchor.path)) == sorted(written)


def test_a_pool_keeps_the_scheme_that_it_began_with(place: Place, prose: Callable[..., list[str]]) -> None:
    place.text("prose", prose(30))
    first = place.snapshot(place.job("prose"))
    assert place.snapshot(begun(place.job("prose"))) == first
    place.text("more", prose(30, "more"))
    second = place.snapshot(begun(place.job("more")))
    assert {read_record(place.store / made.path).scheme for made in (first, second)} == {1}
    assert not (place.store / store.scheme("pool-uid")).exists()
    other = {"pool_uid": "other-uid"}
    newer = place.snapshot(begun(place.job("prose").model_copy(update=other)))
    assert place.snapshot(place.job("prose").model_copy(update=other)) == newer
    assert newer.digest != first.digest and read_record(place.store / newer.path).scheme == 2
    assert texts(place, newer.path) == texts(place, first.path)  # the rule itself is the same


def test_a_pool_in_which_nothing_was_held_out_is_not_a_new_one(
    place: Place, prose: Callable[..., list[str]]
) -> None:
    place.text("prose", prose(3))
    first = place.snapshot(place.job("prose", fraction=0.001))
    assert first.anchor.clusters == 0
    place.text("prose", prose(4))
    second = place.snapshot(begun(place.job("prose", fraction=0.001)))
    assert read_record(place.store / second.path).scheme == 1


@pytest.mark.parametrize("written", ['{"scheme":4}', '{"scheme":"x"}', ""])
def test_a_scheme_that_this_version_does_not_know_is_refused(place: Place, written: str) -> None:
    place.text("prose", accented(10))
    path = place.store / store.scheme("pool-uid")
    path.parent.mkdir(parents=True)
    path.write_text(written)
    with pytest.raises(JobError, match=r"SchemeUnsupported: .*scheme.json"):
        place.snapshot(begun(place.job("prose")))


def test_documents_that_another_scheme_placed_are_refused(
    place: Place, prose: Callable[..., list[str]]
) -> None:
    place.text("prose", prose(20))
    made = place.snapshot(begun(place.job("prose")))
    (place.store / store.scheme("pool-uid")).unlink()
    shutil.rmtree(place.store / made.path)
    with pytest.raises(JobError, match=r"SchemeUnsupported: clusters.jsonl has scheme 2"):
        place.snapshot(place.job("prose"))


def modules(count: int, end: str) -> str:
    """A long Python module whose functions are the paragraphs."""
    functions = [f"def f{n}(x):{end}    return x + {n}{end}{end}" for n in range(count)]
    return "".join(functions)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_long_texts_are_cut_at_blank_lines_whatever_ends_their_lines(place: Place, end: str) -> None:
    whole = modules(6000, end)
    made = of_files(place, {"a.py": whole.encode()}, 2, Filter(name="codeParses"))
    pieces = texts(place, made.path) + texts(place, made.anchor.path)
    assert made.dropped == {} and len(pieces) == 4
    assert sorted("".join(pieces)) == sorted(whole)
    for piece in pieces:
        ast.parse(piece)
        assert piece.startswith("def f") and piece.endswith(2 * end)


def test_scheme_1_cuts_where_it_always_did(place: Place) -> None:
    whole = modules(6000, "\r\n")
    made = of_files(place, {"a.py": whole.encode()}, 1)
    pieces = texts(place, made.path) + texts(place, made.anchor.path)
    assert {len(piece) for piece in pieces} >= {65536}


def test_a_byte_order_mark_is_no_part_of_a_files_text(place: Place) -> None:
    written = {f"{n}.py": f"x{n} = {n}\r\n".encode("utf-8-sig") for n in range(40)}
    made = of_files(place, written, 2, Filter(name="codeParses"))
    found = texts(place, made.path) + texts(place, made.anchor.path)
    assert sorted(found) == sorted(data.decode("utf-8-sig") for data in written.values())


def test_in_pools_of_scheme_1_it_is_and_the_file_is_python_all_the_same(place: Place) -> None:
    written = {f"{n}.py": f"x{n} = {n}\n".encode("utf-8-sig") for n in range(40)}
    made = of_files(place, written, 1, Filter(name="codeParses"))
    assert made.dropped == {}
    assert all(text.startswith("\ufeff") for text in texts(place, made.path))


@pytest.mark.parametrize("scheme", [1, 2])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_a_file_in_utf_16_is_named_with_what_to_do(place: Place, encoding: str, scheme: int) -> None:
    text = "Über die Dächer\n" * 3
    data = ("\ufeff" + text if encoding.endswith("be") else text).encode(encoding)
    files = {"a.txt": text.encode(), "b.txt": (text + "!").encode(), "c.txt": data}
    made = of_files(place, files, scheme)
    assert made.dropped == {"notUtf8": 1}
    report = json.loads((place.store / made.path / "report.json").read_text())
    (example,) = report["sources"][0]["examples"].values()
    assert example == "corpora/code/c.txt: it begins like UTF-16 or UTF-32: convert it to UTF-8"


def test_an_empty_file_with_a_byte_order_mark_holds_no_text(place: Place) -> None:
    good = {f"{n}.txt": f"text {n}".encode() for n in range(8)}
    made = of_files(place, good | {"a.txt": b"\xef\xbb\xbf", "b.txt": b"\xef\xbb\xbf \r\n"}, 2)
    assert made.dropped == {"empty": 2}


def test_the_store_has_the_scheme_before_any_document_is_placed(place: Place, tmp_path: Path) -> None:
    place.text("prose", accented(10))
    place.snapshot(begun(place.job("prose")))
    assert (place.store / store.scheme("pool-uid")).read_text() == '{"scheme":2}'


@pytest.mark.parametrize(("scheme", "read"), [(1, False), (2, False), (3, True)])
def test_thoughts_of_messages_are_read_from_scheme_3_on(place: Place, scheme: int, read: bool) -> None:
    lines = [
        {
            "messages": [
                {"role": "user", "content": f"Question {n}?"},
                {"role": "assistant", "content": f"Answer {n}.", "reasoning_content": f"Thought {n}."},
            ]
        }
        for n in range(20)
    ]
    place.jsonl("chats", lines)
    source = Source(root="corpora", path="chats/*.jsonl", format="messages")
    made = place.snapshot(begun(place.job("chats", sources=(source,)), scheme))
    report = json.loads((place.store / made.path / "report.json").read_text())
    assert report["sources"][0]["fieldsPassedOver"] == ({} if read else {"reasoning_content": 20})
    held = next(iter(read_documents(place.store / made.anchor.path)))
    assert [role for role, _ in held.said()] == ["user", *(["thoughts"] if read else []), "assistant"]
