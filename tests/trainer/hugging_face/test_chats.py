"""Training on conversations, and the prompts of a server, over tokenizers and templates: what transformers makes of them."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer

from moe_formats.failure import JobError
from moe_trainer.hugging_face import tokenizer_files
from moe_trainer.hugging_face.tokenizer import CheckpointTokenizer
from moe_trainer.text.content import Role
from moe_trainer.text.tokenizer import ConversationPiece

from .tokenizers_made_here import (
    answers,
    byte_level,
    byte_level_in_nfc,
    for_templates,
    metaspace,
    metaspace_once,
    taking_space,
    unigram,
    write,
)

Said = list[tuple[Role, str]]


class Chat(NamedTuple):
    """A template in the form of a published model's, and the token that ends an answer in it."""

    template: str
    end: str = "<|eos|>"
    system: bool = True  #: Whether it takes a system message.
    trims: bool = False  #: Whether it leaves out white space around words.


CHATS = {
    "llama 2": Chat(
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
        "{% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}"
        "{% else %}{% set loop_messages = messages %}{% set system = '' %}{% endif %}"
        "{% for message in loop_messages %}{% if message['role'] == 'user' %}"
        "{{ bos_token + '[INST] ' + ((system if loop.index0 == 0 else '') + message['content']).strip() + ' [/INST]' }}"
        "{% else %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
        trims=True,
    ),
    "mistral": Chat(
        "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
        "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ message['content'] + eos_token }}"
        "{% endif %}{% endfor %}",
        system=False,
    ),
    "chatml": Chat(
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
        end="<|im_end|>",
    ),
    "marked": Chat(
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}{% if message.role == 'assistant' %}"
        "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
        "{% else %}{{ message['content'] + '<|im_end|>\\n' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
        end="<|im_end|>",
    ),
    "llama 3": Chat(
        "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
        " + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
        "{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
        end="<|eot_id|>",
        trims=True,
    ),
    "gemma": Chat(
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
        "{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}",
        end="<end_of_turn>",
        system=False,
        trims=True,
    ),
    "glm": Chat(
        "[gMASK]<sop>{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>\n<think></think>\n{{ m.content.strip() }}"
        "{% else %}<|{{ m.role }}|>\n{{ m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n<think></think>\n{% endif %}",
        end="<|user|>",
        trims=True,
    ),
    "thoughts": Chat(
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}{% elif m.role == 'assistant' %}"
        "<|assistant|>{{ m.content.split('</think>')[-1] }}<|eos|>{% else %}{{ m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
    ),
}
TOKENIZERS = [byte_level, byte_level_in_nfc, metaspace, metaspace_once, unigram, taking_space]

SAID: Said = [
    ("system", "Be brief."),
    ("user", "What is it about?"),
    ("assistant", "About alpha."),
    ("user", "And then?"),
    ("assistant", "Beta,\n\nthen größer 漢字 🙂"),
]
Made = Callable[[], Tokenizer]


class Pair(NamedTuple):
    """A tokenizer here and in transformers."""

    ours: CheckpointTokenizer
    theirs: Any


def made(folder: Path, tokenizer: Made, chat: Chat) -> Pair:
    write(folder, for_templates(tokenizer()), chat.template)
    ours = CheckpointTokenizer(tokenizer_files.read(folder))
    theirs = AutoTokenizer.from_pretrained(folder)
    ours.end_ids = frozenset({ours.eos_id, theirs.convert_tokens_to_ids(chat.end)})
    return Pair(ours, theirs)


def messages(said: Sequence[tuple[Role, str]]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    thoughts = {}
    for role, words in said:
        if role == "thoughts":
            thoughts = {"reasoning_content": words}
        else:
            found.append({"role": role, "content": words, **thoughts})
            thoughts = {}
    return found


def usable(chat: Chat, said: Said) -> Said:
    return said if chat.system else [turn for turn in said if turn[0] != "system"]


def ids_of(row: Sequence[ConversationPiece]) -> list[int]:
    return [i for ids, _ in row for i in ids]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("name", CHATS)
def test_training_reads_the_ids_of_transformers_and_learns_the_answers_with_their_ends(
    tmp_path: Path, tokenizer: Made, name: str
) -> None:
    chat = CHATS[name]
    said = usable(chat, SAID)
    said = [*said, ("user", "Thanks.")]
    ours, theirs = made(tmp_path, tokenizer, chat)
    (row,) = ours.conversation(said, answers(said)).rows
    ids = ids_of(row)
    whole = theirs.apply_chat_template(messages(said), return_dict=False)
    assert ids in (whole, [ours.bos_id, *whole])
    text = theirs.apply_chat_template(messages(said), tokenize=False)
    offsets = theirs(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    expected = [False] * len(offsets)
    for number in answers(said):
        asked = {"conversation": messages(said[:number]), "add_generation_prompt": True}
        start = len(theirs.apply_chat_template(**asked, return_dict=False))
        words = text.index(said[number][1].strip(), len(theirs.apply_chat_template(**asked, tokenize=False)))
        end = text.index(chat.end, words) + len(chat.end)
        for at, (first, _) in enumerate(offsets):
            expected[at] |= start <= at and first < end
    assert [learnt for part, learnt in row for _ in part][len(ids) - len(whole) :] == expected


WORDS = [
    "alpha",
    " beta",
    "\n",
    "\n\n",
    ".",
    "  ",
    "größer",
    "漢字",
    "🙂",
    "x",
    "def f(x):\n    return",
    "e\u0301",
    "<",
]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("name", CHATS)
def test_every_prompt_is_the_beginning_of_what_training_learns_an_answer_and_its_end_after(
    tmp_path: Path, tokenizer: Made, name: str
) -> None:
    chat = CHATS[name]
    ours, theirs = made(tmp_path, tokenizer, chat)
    draw = random.Random(name)
    for _ in range(8):
        said = usable(chat, [("system", "Be brief.")] * draw.randint(0, 1))
        for turn in range(draw.randint(2, 7)):
            role: Role = "assistant" if turn % 2 else "user"
            said.append((role, "".join(draw.choices(WORDS, k=draw.randint(1, 6))) + f" {turn}"))
        rows = ours.conversation(said, answers(said)).rows
        learnt = 0
        for number in answers(said):
            prompt = ours.prompt(said[:number])
            asked = theirs.apply_chat_template(
                messages(said[:number]), add_generation_prompt=True, return_dict=False
            )
            assert prompt in (asked, [ours.bos_id, *asked])
            following = [answer for row in rows for before, answer in read(row) if before == prompt]
            assert len(following) == 1, (said, number)
            assert following[0][-1] in ours.end_ids
            assert not set(following[0][:-1]) & ours.end_ids
            words = theirs.decode(following[0][:-1], clean_up_tokenization_spaces=False)
            expected = theirs.backend_tokenizer.normalizer
            given = (
                said[number][1]
                if expected is None or "Prepend" in str(expected)
                else expected.normalize_str(said[number][1])
            )
            assert words.replace("</think>", "").strip() == given.strip()
            learnt += len(following[0])
        assert learnt == sum(len(ids) for row in rows for ids, is_learnt in row if is_learnt)


def read(row: Sequence[ConversationPiece]) -> list[tuple[list[int], list[int]]]:
    """Return each learnt piece with all ids before it."""
    return [(ids_of(row[:at]), ids) for at, (ids, learnt) in enumerate(row) if learnt]


def test_of_a_token_that_reaches_from_a_prompt_into_an_answer_the_model_learns_what_it_can_write(
    tmp_path: Path,
) -> None:
    ours, theirs = made(tmp_path, byte_level_in_nfc, CHATS["chatml"])
    said: Said = [("user", "alpha"), ("assistant", "\n\nbeta"), ("user", "gamma"), ("assistant", "order")]
    whole = theirs.apply_chat_template(messages(said), return_dict=False)
    assert theirs.convert_tokens_to_ids("ĊĊĊ") in whole  # the prompt's line break and two of the answer
    first, second = ours.conversation(said, answers(said)).rows
    [(prompt, answer)] = read(first)
    assert prompt == ours.prompt(said[:1])
    assert theirs.convert_ids_to_tokens(answer)[0] == "ĊĊ"
    assert theirs.decode(answer) == "\n\nbeta<|im_end|>"
    [(prompt, answer)] = read(second)  # after the token as a server sends it
    assert prompt == [ours.bos_id, *whole[: len(prompt) - 1]] == ours.prompt(said[:3])
    assert theirs.decode(answer) == "order<|im_end|>"


#: Templates that write nothing at which a server ends an answer.
ENDLESS = {
    "no token": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}",
    "another token": CHATS["chatml"].template,
    "another turn's token": CHATS["glm"].template,
}


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("name", ENDLESS)
def test_where_a_template_writes_no_end_the_tokenizers_is_learnt_and_no_word_is_cut(
    tmp_path: Path, tokenizer: Made, name: str
) -> None:
    ours, theirs = made(tmp_path, tokenizer, Chat(ENDLESS[name]))
    said: Said = [
        ("user", "alpha?"),
        ("assistant", "think"),
        ("user", "Sure?"),
        ("assistant", "So </think> x"),
    ]
    rows = ours.conversation(said, answers(said)).rows
    assert len(rows) == 2
    for row, number in zip(rows, answers(said), strict=True):
        [(prompt, answer)] = read(row)
        assert prompt == ours.prompt(said[:number])
        assert answer[-1] == ours.eos_id
        decoded = theirs.decode(answer[:-1]).removesuffix("<|im_end|>")
        assert decoded.split() == said[number][1].split()


def test_the_role_of_the_next_turn_ends_an_answer_where_the_server_stops_at_it(tmp_path: Path) -> None:
    ours, theirs = made(tmp_path, byte_level, CHATS["glm"])
    said: Said = [("user", "alpha?"), ("assistant", "So."), ("user", "Sure?"), ("assistant", "Yes.")]
    (row,) = ours.conversation(said, answers(said)).rows
    learnt = [theirs.decode(answer) for _, answer in read(row)]
    assert learnt == ["So.<|user|>", "Yes.<|eos|>"]
    assert ids_of(row)[:-1] == [ours.bos_id, *theirs.apply_chat_template(messages(said), return_dict=False)]


#: Only answers after the last question have their thoughts: Qwen3.
LAST_THOUGHTS = CHATS["chatml"].template.replace(
    "+ message['content'] +",
    "+ (message['content'] if loop.index0 == messages | length - 1 else message['content'].split('</think>')[-1]) +",
)


def test_where_only_the_last_answer_has_thoughts_each_is_learnt_with_its_own_after_its_prompt(
    tmp_path: Path,
) -> None:
    ours, theirs = made(tmp_path, byte_level_in_nfc, Chat(LAST_THOUGHTS, "<|im_end|>"))
    said: Said = [("user", "alpha?"), ("assistant", THOUGHT), ("user", "Sure?"), ("assistant", THOUGHT)]
    found = ours.conversation(said, answers(said))
    for row, number in zip(found.rows, answers(said), strict=True):
        [(prompt, answer)] = read(row)
        assert prompt == ours.prompt(said[:number])
        assert ids_of(row)[1:] == theirs.apply_chat_template(messages(said[: number + 1]), return_dict=False)
        assert theirs.decode(answer) == THOUGHT + "<|im_end|>"
    assert found.left_out == {"assistant": 1}  # the first answer's thoughts are not in the second prompt


def test_a_template_that_writes_the_turns_before_an_answer_differently_is_refused_with_both(
    tmp_path: Path,
) -> None:
    template = (
        "{% if add_generation_prompt %}{{ messages[-1].content }}?<|im_end|>"
        "{% else %}A talk about {{ messages[0].content }}: {{ messages[-1].content }}{% endif %}"
    )
    ours, _ = made(tmp_path, byte_level, Chat(template, "<|im_end|>"))
    with pytest.raises(
        JobError,
        match=r"goes on with 'alpha\?<\|im_end\|>' where the conversation has 'A talk about alpha: So.'",
    ):
        ours.conversation([("user", "alpha"), ("assistant", "So.")], [1])


THOUGHT = "<think>\nFirst alpha, then beta.\n</think>\n\nSo gamma."


def test_an_answer_whose_thoughts_a_template_leaves_out_is_not_learnt_but_counted(tmp_path: Path) -> None:
    ours, theirs = made(tmp_path, byte_level, CHATS["thoughts"])
    said: Said = [("user", "alpha?"), ("assistant", THOUGHT), ("user", "Sure?"), ("assistant", "Yes.")]
    assert "First" not in theirs.apply_chat_template(messages(said), tokenize=False)
    found = ours.conversation(said, answers(said))
    assert [theirs.decode(answer) for row in found.rows for _, answer in read(row)] == ["Yes.<|eos|>"]
    assert found.left_out == {"answer": 1, "assistant": 1}


def test_where_a_template_writes_thoughts_in_its_own_form_they_are_learnt(tmp_path: Path) -> None:
    template = (
        CHATS["glm"]
        .template.replace(
            "<think></think>\n{{ m.content.strip() }}",
            "<think>{{ m.content.split('</think>')[0].split('<think>')[-1].strip() }}</think>\n"
            "{{ m.content.split('</think>')[-1].strip() }}",
        )
        .replace("<|assistant|>\n<think></think>\n{% endif %}", "<|assistant|>\n{% endif %}")
    )
    ours, theirs = made(tmp_path, byte_level, Chat(template, "<|user|>"))
    said: Said = [("user", "alpha?"), ("assistant", THOUGHT)]
    found = ours.conversation(said, answers(said))
    [(_, answer)] = read(found.rows[0])
    assert theirs.decode(answer) == "<think>First alpha, then beta.</think>\nSo gamma.<|eos|>"
    assert not found.left_out


def test_turns_of_which_a_template_leaves_words_out_are_counted_by_role(tmp_path: Path) -> None:
    template = "{% for m in messages if m.role != 'system' %}" + CHATS["chatml"].template.removeprefix(
        "{% for message in messages %}"
    ).replace("message[", "m[")
    ours, _ = made(tmp_path, byte_level, Chat(template, "<|im_end|>"))
    found = ours.conversation(SAID, answers(SAID))
    assert found.left_out == {"system": 1} and len(found.rows) == 1


def test_answers_that_are_not_to_be_learnt_are_read(tmp_path: Path) -> None:
    ours, theirs = made(tmp_path, byte_level, CHATS["chatml"])
    (row,) = ours.conversation(SAID, [4]).rows
    assert ids_of(row)[1:] == theirs.apply_chat_template(messages(SAID), return_dict=False)
    assert [theirs.decode(answer) for _, answer in read(row)] == ["Beta,\n\nthen größer 漢字 🙂<|im_end|>"]
    assert ours.conversation(SAID, []).rows == []


_HEADED = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}<|im_end|>"
    "{% elif m.role == 'system' %}<|system|>{{ m.content }}<|im_end|>"
)
_ENDED = "{% endif %}{% endfor %}{% if add_generation_prompt %}"
_FIELD = "{% set t = (m.reasoning_content or '') | trim %}"


class Thinking(NamedTuple):
    """A template whose prompt is not always the beginning of the finished conversation, and what is learnt after it."""

    template: str
    plain: str  #: Of the answer `So.`.
    field: str  #: Of that answer with the thoughts `First.` in a field of their own.
    within: str | None  #: Of `<think>\nFirst.\n</think>\n\nSo.`; None if its thoughts are left out.


THINKING = {
    "QwQ": Thinking(
        _HEADED + "{% else %}<|assistant|>"
        "{{ m.content if loop.last else m.content.split('</think>')[-1].lstrip('\\n') }}<|im_end|>"
        + _ENDED
        + "<|assistant|><think>\n{% endif %}",
        "\n</think>\n\nSo.",
        "First.\n</think>\n\nSo.",
        "First.\n</think>\n\nSo.",
    ),
    "DeepSeek-R1": Thinking(
        _HEADED
        + "{% else %}<|assistant|>{{ m.content.split('</think>')[-1] }}<|im_end|>"
        + _ENDED
        + "<|assistant|><think>\n{% endif %}",
        "\n</think>\n\nSo.",
        "First.\n</think>\n\nSo.",
        "First.\n</think>\n\nSo.",
    ),
    "GLM-4.7": Thinking(
        _HEADED + "{% else %}" + _FIELD + "{% if not t and '</think>' in m.content %}"
        "{% set t = m.content.split('</think>')[0].split('<think>')[-1] | trim %}{% endif %}"
        "<|assistant|>{{ '<think>' + t if t else '' }}</think>{{ m.content.split('</think>')[-1] | trim }}<|im_end|>"
        + _ENDED
        + "<|assistant|><think>{% endif %}",
        "</think>So.",
        "First.</think>So.",
        "First.</think>So.",
    ),
    "Cohere2": Thinking(
        _HEADED + "{% else %}" + _FIELD + "<|assistant|>{{ '[THINK]' + t + '[/THINK]' if t else '' }}"
        "[TEXT]{{ m.content }}<|im_end|>" + _ENDED + "<|assistant|>[THINK]{% endif %}",
        "[/THINK][TEXT]So.",
        "First.[/THINK][TEXT]So.",
        "First.[/THINK][TEXT]So.",
    ),
    "Apriel": Thinking(
        _HEADED + "{% else %}" + _FIELD + "<|assistant|>{{ t + '\\n[ANSWER]\\n' if t else '' }}"
        "{{ m.content }}<|im_end|>" + _ENDED + "<|assistant|>My steps:\n{% endif %}",
        "\n[ANSWER]\nSo.",
        "First.\n[ANSWER]\nSo.",
        "First.\n[ANSWER]\nSo.",
    ),
    "Gemma 4": Thinking(
        _HEADED
        + "{% else %}<|assistant|>{{ m.content }}<|im_end|>"
        + _ENDED
        + "<|assistant|><|channel>thought\n<channel|>{% endif %}",
        "So.",
        "So.",
        "<think>\nFirst.\n</think>\n\nSo.",
    ),
    "DeepSeek-V3.2": Thinking(
        _HEADED
        + "{% else %}<|assistant|></think>{{ m.content.split('</think>')[-1] }}<|im_end|>"
        + _ENDED
        + "<|assistant|><think></think>{% endif %}",
        "So.",
        "So.",
        None,
    ),
    "Laguna": Thinking(
        _HEADED + "{% else %}" + _FIELD + "{% if not t and '</think>' in m.content %}"
        "{% set t = m.content.split('</think>')[0].split('<think>')[-1] | trim %}{% endif %}"
        "<|assistant|>{{ '<think>' + t if t else '' }}</think>{{ m.content.split('</think>')[-1] | trim }}<|im_end|>"
        + _ENDED
        + "<|assistant|></think>{% endif %}",
        "So.",
        "So.",
        None,
    ),
    "Mistral": Thinking(
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|user|>"
        "{{ 'Be brief.\\n\\n' if loop.last else '' }}{{ m.content }}<|assistant|>"
        "{% elif m.role == 'assistant' %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}",
        "So.",
        "So.",
        "<think>\nFirst.\n</think>\n\nSo.",
    ),
}
#: Written in some of these templates as one token, as published tokenizers have them.
MARKS = ["<|channel>", "<channel|>", "[THINK]", "[/THINK]", "[TEXT]"]


def thinking(folder: Path, tokenizer: Made, template: str) -> Pair:
    def with_marks() -> Tokenizer:
        made = tokenizer()
        made.add_special_tokens([AddedToken(token, normalized=False) for token in MARKS])
        return made

    return made(folder, with_marks, Chat(template, "<|im_end|>"))


@pytest.mark.parametrize("name", THINKING)
def test_an_answer_goes_on_from_a_prompt_that_begins_or_ends_thoughts(tmp_path: Path, name: str) -> None:
    chat = THINKING[name]
    ours, theirs = thinking(tmp_path, byte_level, chat.template)
    asked = theirs.apply_chat_template(
        messages([("user", "alpha?")]), add_generation_prompt=True, return_dict=False
    )
    within = "<think>\nFirst.\n</think>\n\nSo."
    turns: list[tuple[Said, str | None]] = [
        ([("assistant", "So.")], chat.plain),
        ([("thoughts", "First."), ("assistant", "So.")], chat.field),
        ([("assistant", within)], chat.within),
    ]
    for turn, learnt in turns:
        said: Said = [("user", "alpha?"), *turn]
        found = ours.conversation(said, answers(said))
        if learnt is None:
            assert not found.rows and found.left_out == {"answer": 1}
            continue
        [(prompt, answer)] = read(found.rows[0])
        assert prompt in (asked, [ours.bos_id, *asked]) and prompt == ours.prompt(said[:1])
        assert theirs.decode(answer) == learnt + "<|im_end|>"
        assert found.left_out == ({"thoughts": 1} if len(turn) > 1 and "First." not in learnt else {})


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("name", THINKING)
def test_of_thinking_templates_every_prompt_is_the_beginning_of_what_training_reads(
    tmp_path: Path, tokenizer: Made, name: str
) -> None:
    ours, theirs = thinking(tmp_path, tokenizer, THINKING[name].template)
    draw = random.Random(name)
    for _ in range(4):
        said: Said = []
        for turn in range(draw.randint(1, 3)):
            said.append(("user", f"{''.join(draw.choices(WORDS, k=3))} {turn}?"))
            thoughts = f"{''.join(draw.choices(WORDS, k=3))} thought {turn}"
            form = draw.choice(["plain", "field", "within"])
            if form == "field":
                said.append(("thoughts", thoughts))
            words = f"{''.join(draw.choices(WORDS, k=3))} answer {turn}"
            said.append(
                ("assistant", f"<think>\n{thoughts}\n</think>\n\n{words}" if form == "within" else words)
            )
        found = ours.conversation(said, answers(said))
        learnt = [pair for row in found.rows for pair in read(row)]
        assert len(learnt) == len(answers(said)) - found.left_out.get("answer", 0)
        for prompt, answer in learnt:
            number = next(n for n in answers(said) if f"answer {said[n][1][-1]}" in theirs.decode(answer))
            before = said[: number - (said[number - 1][0] == "thoughts")]
            asked = theirs.apply_chat_template(
                messages(before), add_generation_prompt=True, return_dict=False
            )
            assert prompt in (asked, [ours.bos_id, *asked]) and prompt == ours.prompt(before)
            assert answer[-1] in ours.end_ids and not set(answer[:-1]) & ours.end_ids


def test_thoughts_of_a_field_that_a_template_does_not_write_are_counted_and_the_answer_is_learnt(
    tmp_path: Path,
) -> None:
    ours, theirs = made(tmp_path, byte_level, CHATS["chatml"])
    said: Said = [("user", "alpha?"), ("thoughts", "First."), ("assistant", "So.")]
    found = ours.conversation(said, answers(said))
    assert ids_of(found.rows[0])[1:] == theirs.apply_chat_template(messages(said), return_dict=False)
    assert [theirs.decode(answer) for _, answer in read(found.rows[0])] == ["So.<|im_end|>"]
    assert found.left_out == {"thoughts": 1}


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_thoughts_of_a_field_are_given_to_the_template_as_by_transformers(
    tmp_path: Path, tokenizer: Made
) -> None:
    template = (
        CHATS["chatml"]
        .template.replace("message['content'] +", "((message.thinking or '') + '|' + message['content']) +")
        .replace(
            "<|im_start|>' + message['role']",
            "<|im_start|>' + message['role'] + (message.reasoning_content or '')",
        )
    )
    ours, theirs = made(tmp_path, tokenizer, Chat(template, "<|im_end|>"))
    said: Said = [("user", "alpha?"), ("thoughts", "First."), ("assistant", "So.")]
    text = theirs.apply_chat_template(messages(said), tokenize=False)
    assert ours._render(said, ask=False) == text and text.count("First.") == 2


def test_where_a_finished_conversation_leaves_out_earlier_thoughts_that_its_prompt_has_the_answer_follows_the_prompt(
    tmp_path: Path,
) -> None:
    """LFM2.5: only the last answer so far has its thoughts, also in a prompt."""
    template = (
        "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'assistant' %}"
        "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    ) + CHATS["chatml"].template.replace(
        "message['content'] +",
        "(message['content'] if loop.index0 == ns.last else message['content'].split('</think>')[-1] | trim) +",
    )
    ours, theirs = made(tmp_path, byte_level, Chat(template, "<|im_end|>"))
    said: Said = [("user", "alpha?"), ("assistant", THOUGHT), ("user", "Sure?"), ("assistant", THOUGHT)]
    found = ours.conversation(said, answers(said))
    learnt = [pair for row in found.rows for pair in read(row)]
    assert [theirs.decode(answer) for _, answer in learnt] == [THOUGHT + "<|im_end|>"] * 2
    asked = theirs.apply_chat_template(messages(said[:3]), add_generation_prompt=True, return_dict=False)
    assert learnt[1][0] == [ours.bos_id, *asked] == ours.prompt(said[:3])
