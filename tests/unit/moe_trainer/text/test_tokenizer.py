import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as TheirTokenizer

from moe_trainer.text.content import Role
from moe_trainer.text.tokenizer import BOS, EOS, PAD, ByteTokenizer


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> TheirTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    ByteTokenizer().save(folder)
    return TheirTokenizer.from_file(str(folder / "tokenizer.json"))


@given(st.text())
def test_any_text_comes_back_and_costs_one_token_a_byte(text: str) -> None:
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert ids == list(text.encode())


def test_hugging_faces_tokenizers_reads_the_file_and_agrees(theirs: TheirTokenizer) -> None:
    draw = random.Random(0)
    texts = ["".join(map(chr, draw.choices(range(1, 0xD7FF), k=50))) for _ in range(50)]
    for text in [*texts, "plain text", " \t\n\r ", "🙂\u200d🙂", "\x00\x7f"]:
        encoded = theirs.encode(text, add_special_tokens=False)
        assert encoded.ids == ByteTokenizer().encode(text)
        assert theirs.decode(encoded.ids) == text


def test_special_tokens_are_known_to_both(theirs: TheirTokenizer) -> None:
    assert theirs.get_vocab_size() == ByteTokenizer.vocab_size
    assert [theirs.id_to_token(i) for i in (BOS, EOS, PAD)] == ["<|bos|>", "<|eos|>", "<|pad|>"]
    assert ByteTokenizer().decode_bytes([BOS, 104, 105, EOS, PAD]) == b"hi"


def test_bytes_that_are_no_text_are_kept_as_bytes() -> None:
    data = bytes(range(256))
    assert ByteTokenizer().decode_bytes(ByteTokenizer().encode(data)) == data
    assert ByteTokenizer().decode([0xC3]) == "\ufffd"


def test_a_saved_tokenizer_is_loaded(tmp_path: Path) -> None:
    ByteTokenizer().save(tmp_path)
    assert ByteTokenizer.load(tmp_path).encode("ab") == [97, 98]


def test_every_prompt_is_the_beginning_of_the_conversation_that_training_reads() -> None:
    said: list[tuple[Role, str]] = [
        ("user", "Why?"),
        ("assistant", "So."),
        ("user", "How?"),
        ("assistant", "Thus."),
    ]
    tokenizer = ByteTokenizer()
    (row,) = tokenizer.conversation(said, [1, 3]).rows
    ids = [i for piece, _ in row for i in piece]
    for number in (1, 3):
        prompt = tokenizer.prompt(said[:number])
        assert ids[: len(prompt)] == prompt
    assert [piece for piece, learnt in row if learnt] == [[*b"So.", EOS], [*b"Thus.", EOS]]


def test_an_answer_that_is_not_to_be_learnt_is_read_with_its_end() -> None:
    said: list[tuple[Role, str]] = [
        ("user", "Why?"),
        ("assistant", "So."),
        ("user", "How?"),
        ("assistant", "Thus."),
    ]
    (row,) = ByteTokenizer().conversation(said, [3]).rows
    assert [piece for piece, learnt in row if learnt] == [[*b"Thus.", EOS]]
    assert [*b"So.", EOS] in [piece for piece, learnt in row if not learnt]


def test_thoughts_are_learnt_with_their_answer_and_a_prompt_has_them_as_training_had() -> None:
    tokenizer = ByteTokenizer()
    said: list[tuple[Role, str]] = [("user", "a?"), ("thoughts", "b"), ("assistant", "c")]
    (row,) = tokenizer.conversation(said, [2]).rows
    assert row == [
        ([BOS], False),
        (list(b"a?"), False),
        (list(b"\n\n"), False),
        ([*b"b\n\nc", EOS], True),
    ]
    assert tokenizer.prompt(said) == [BOS, *b"a?\n\nb\n\nc", EOS, *b"\n\n"]
    whole = [
        i
        for ids, _ in tokenizer.conversation([*said, ("user", "d?"), ("assistant", "e")], [4]).rows[0]
        for i in ids
    ]
    assert whole[: len(tokenizer.prompt([*said, ("user", "d?")]))] == tokenizer.prompt(
        [*said, ("user", "d?")]
    )
