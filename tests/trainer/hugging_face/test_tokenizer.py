"""Tokenizers of checkpoints, in the two families that there are."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, normalizers
from transformers import AutoTokenizer

from moe_formats.failure import JobError
from moe_trainer.hugging_face.tokenizer import CheckpointTokenizer
from moe_trainer.streaming.batches import DocumentEnds
from moe_trainer.text.content import Role
from moe_trainer.text.tokenizer import ConversationPiece

from .tokenizers_made_here import CHAT, answers, byte_level, metaspace, write

TEXTS = ["The order is", " then  beta\n\n\tgamma ", "漢字 🙂 größer", "", "<|eos|> is spelt out"]
SAID: list[tuple[Role, str]] = [
    ("user", "How far?"),
    ("assistant", "Very far."),
    ("user", "Sure?"),
    ("assistant", "Yes."),
]


def pieces_of(tokenizer: CheckpointTokenizer) -> list[ConversationPiece]:
    return [piece for row in tokenizer.conversation(SAID, answers(SAID)).rows for piece in row]


@pytest.fixture(params=[byte_level, metaspace])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> CheckpointTokenizer:
    write(tmp_path / "made", request.param())
    return CheckpointTokenizer.load(tmp_path / "made")


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_comes_back_and_holds_no_special_token(tokenizer: CheckpointTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids).lstrip(b" ") == text.encode().lstrip(b" ")
    assert not {tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id} & set(ids)
    assert sum(tokenizer.sizes()[i] for i in ids) == len(tokenizer.decode_bytes(ids))


def test_ids_are_those_of_transformers(tokenizer: CheckpointTokenizer, tmp_path: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(tmp_path / "made")
    for text in TEXTS[:3]:
        assert tokenizer.encode(text) == theirs.encode(text, add_special_tokens=False)
    assert tokenizer.prompt(SAID[:1])[1:] == theirs.apply_chat_template(
        [{"role": "user", "content": "How far?"}], add_generation_prompt=True, return_dict=False
    )


def test_special_tokens_have_no_bytes(tokenizer: CheckpointTokenizer) -> None:
    assert tokenizer.decode_bytes([tokenizer.bos_id, tokenizer.eos_id]) == b""
    assert tokenizer.sizes()[tokenizer.pad_id] == 0
    assert len(tokenizer.sizes()) == tokenizer.vocab_size


def test_only_the_assistants_words_are_learnt_with_what_ends_them(tokenizer: CheckpointTokenizer) -> None:
    pieces = pieces_of(tokenizer)
    assert [tokenizer.decode(ids) for ids, learnt in pieces if learnt] == ["Very far.", "Yes."]
    assert all(ids[-1] == tokenizer.eos_id for ids, learnt in pieces if learnt)
    assert [i for ids, _ in pieces for i in ids].count(tokenizer.eos_id) == 4
    assert pieces[0] == ([tokenizer.bos_id], False)  # a document begins, whatever the template writes


def test_the_prompt_is_what_came_before_the_answer_in_training(tokenizer: CheckpointTokenizer) -> None:
    pieces = pieces_of(tokenizer)
    answers = [number for number, (_, learnt) in enumerate(pieces) if learnt]
    assert tokenizer.prompt(SAID[:1]) == [i for ids, _ in pieces[: answers[0]] for i in ids]


def test_without_a_template_turns_are_words_with_blank_lines_between(tmp_path: Path) -> None:
    write(tmp_path, byte_level(), chat=None)
    tokenizer = CheckpointTokenizer.load(tmp_path)
    pieces = pieces_of(tokenizer)
    assert "".join(tokenizer.decode(ids) for ids, _ in pieces) == "How far?\n\nVery far.\n\nSure?\n\nYes."
    assert pieces[0][0][0] == tokenizer.bos_id
    assert [tokenizer.decode(ids) for ids, learnt in pieces if learnt] == ["Very far.", "Yes."]


#: Only the last answer has its thoughts, as with Qwen3's.
THOUGHTS = CHAT.replace(
    "{{ message['content'] }}",
    "{% if loop.last and message.role == 'assistant' %}<think>{% endif %}{{ message['content'] }}",
)


def test_where_earlier_answers_are_written_otherwise_each_is_learnt_as_it_is_asked_for(
    tmp_path: Path,
) -> None:
    write(tmp_path, byte_level(), THOUGHTS)
    tokenizer = CheckpointTokenizer.load(tmp_path)
    pieces = pieces_of(tokenizer)
    assert [tokenizer.decode(ids) for ids, learnt in pieces if learnt] == ["<think>Very far.", "<think>Yes."]
    begins = [at for at, (ids, _) in enumerate(pieces) if ids == [tokenizer.bos_id]]
    ids = [
        i for ids, _ in pieces[begins[1] : -2] for i in ids
    ]  # before the second answer and what follows it
    assert len(begins) == 2 and ids == tokenizer.prompt(SAID[:3])


def test_a_conversation_ends_in_the_token_that_also_begins_the_next(tmp_path: Path) -> None:
    write(tmp_path, byte_level())
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(
            {"bos_token": "<|eos|>", "eos_token": "<|eos|>", "chat_template": CHAT.replace("eos", "pad")}
        )
    )
    tokenizer = CheckpointTokenizer.load(tmp_path)
    ids = torch.tensor([[i for ids, _ in pieces_of(tokenizer) * 2 for i in ids]])
    positions = DocumentEnds(tokenizer.bos_id, tokenizer.eos_id).positions(ids)[0]
    assert (positions == 0).sum() == 2


@pytest.mark.parametrize(
    ("template", "what"),
    [
        ("{{ raise_exception('only one turn') }}", "only one turn"),
        (
            "{% for m in messages %}{{ m.role }}{% endfor %}{{ messages | length }}",
            "written|writes the turns",
        ),
        ("{% if %}", "it fails"),
    ],
)
def test_a_template_that_cannot_be_used_says_why(tmp_path: Path, template: str, what: str) -> None:
    write(tmp_path, byte_level(), template)
    with pytest.raises(JobError, match=f"ChatTemplateUnsupported.*({what})"):
        pieces_of(CheckpointTokenizer.load(tmp_path))


@pytest.mark.parametrize("template", [b"\xff\xfe", b'[{"nam": "default"}]'])
def test_a_template_that_cannot_be_read_says_so(tmp_path: Path, template: bytes) -> None:
    write(tmp_path, byte_level(), chat=None)
    if template.startswith(b"["):
        config = {"eos_token": "<|eos|>", "chat_template": json.loads(template)}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    else:
        (tmp_path / "chat_template.jinja").write_bytes(template)
    with pytest.raises(JobError, match="TokenizerUnsupported: the chat template cannot be read"):
        CheckpointTokenizer.load(tmp_path)


def test_files_are_written_again_as_they_were(tokenizer: CheckpointTokenizer, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    tokenizer.save(tmp_path / "again")
    for file in (tmp_path / "made").iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()
    assert CheckpointTokenizer.load(tmp_path / "again").digest == tokenizer.digest


def test_a_document_begins_with_endoftext_or_its_end_where_no_token_is_named(tmp_path: Path) -> None:
    write(tmp_path, byte_level())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|eos|>"}))
    tokenizer = CheckpointTokenizer.load(tmp_path)
    assert tokenizer.bos_id == tokenizer.eos_id == tokenizer.pad_id


def lower_case() -> Tokenizer:
    made = byte_level()
    made.normalizer = normalizers.Lowercase()
    return made


def test_a_tokenizer_that_changes_text_is_refused(tmp_path: Path) -> None:
    write(tmp_path, lower_case())
    with pytest.raises(JobError, match=r"TokenizerUnsupported.*does not reproduce a text exactly"):
        CheckpointTokenizer.load(tmp_path)


def test_a_missing_or_broken_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"TokenizerUnsupported.*has no tokenizer\.json"):
        CheckpointTokenizer.load(tmp_path)
    write(tmp_path, byte_level(), CHAT)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(JobError, match=r"tokenizer_config\.json names no eos_token"):
        CheckpointTokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(JobError, match=r"tokenizer\.json cannot be read"):
        CheckpointTokenizer.load(tmp_path)
