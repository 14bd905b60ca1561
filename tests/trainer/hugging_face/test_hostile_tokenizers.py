"""Tokenizers and chat templates that were made to take time, memory or the process: each is an error that says why."""

import json
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from moe_formats.failure import JobError
from moe_trainer import limits
from moe_trainer.hugging_face import tokenizer_process
from moe_trainer.hugging_face.chat_template import ChatTemplate
from moe_trainer.hugging_face.tokenizer import CheckpointTokenizer

from .tokenizers_made_here import CHAT, byte_level, write

SAID = [("user", "How far?"), ("assistant", "Very far."), ("user", "Sure?")]


def refusal(folder: Path, template: str) -> str:
    """Return why a template is refused when it renders in this process, without the one that tries it out."""
    write(folder, byte_level(), template)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    started = time.process_time()
    with pytest.raises(JobError) as error:
        CheckpointTokenizer(files).prompt(SAID)
    assert time.process_time() - started < limits.TEMPLATE_SECONDS + 5
    assert error.value.reason == "ChatTemplateUnsupported" and not error.value.retryable
    assert "tokenizer_config.json" in error.value.message
    return error.value.message


def doubling(step: str) -> str:
    """Return a template that doubles a text sixty times."""
    return (
        "{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}{% set ns = namespace(x='ab') %}"
        "{% for i in range(60) %}" + step + "{% endfor %}"
    )


def laughs(written: str) -> str:
    """Return a template that writes a list of ten lists of ten lists … out."""
    return "{% set a = ['a'] %}" + "{% set a = [a,a,a,a,a,a,a,a,a,a] %}" * 9 + written


STEPS = "(more than 200,000 steps|longer than 10 s)"
CHARACTERS = "more than 134,217,728 characters"
TEMPLATES = {
    "nested ranges": (
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        STEPS,
    ),
    "recursive loops": (
        "{% for i in range(2) recursive %}{% if loop.depth0 < 2 %}{{ loop(range(99999)) }}{% endif %}{% endfor %}",
        STEPS,
    ),
    "multiplied text": ("{{ 'a' * 5000000000 }}", CHARACTERS),
    "multiplied list": ("{{ [1] * 5000000000 }}", CHARACTERS),
    "doubled by ~": (doubling("{% set ns.x = ns.x ~ ns.x %}"), CHARACTERS),
    "doubled by +": (doubling("{% set ns.x = ns.x + ns.x %}"), CHARACTERS),
    "doubled by a block": (
        doubling("{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}"),
        CHARACTERS,
    ),
    "doubled by a macro": (doubling("{% set ns.x = twice(ns.x) %}"), CHARACTERS),
    "copied by slices": (
        "{% set s = 'a' * 9000000 %}{% set ns = namespace(x=[]) %}"
        "{% for i in range(999) %}{% set ns.x = ns.x + [s[1:]] %}{% endfor %}",
        CHARACTERS,
    ),
    "wide filter": ("{{ 'a' | center(5000000000) }}", r"passes 5e\+09 to a filter or a function"),
    "wide method": ("{{ 'a'.ljust(5000000000) }}", r"passes 5e\+09"),
    "wide number": ("{{ (5).to_bytes(5000000000, 'big') }}", r"passes 5e\+09"),
    "wide fields": ("{{ '%999999999d' % 1 }}", "has a width of more than 4 digits"),
    "wide format": ("{{ '{:>{}}'.format(1, 99999) }}", "or one that is an argument"),
    "wide format filter": ("{{ '%*d' | format(99999, 1) }}", "or one that is an argument"),
    "replaced": ("{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}", CHARACTERS),
    "replaced by a filter": ("{{ ('a' * 1000000) | replace('a', 'b' * 1000000) }}", CHARACTERS),
    "joined": ("{{ range(99999) | join('b' * 1000000) }}", CHARACTERS),
    "indented": ("{{ ('a\n' * 100000) | indent(99999) }}", CHARACTERS),
    "expanded": ("{{ ('\t' * 100000).expandtabs(99999) }}", CHARACTERS),
    "translated": ("{{ ('a' * 100000).translate({97: 'b' * 100000}) }}", CHARACTERS),
    "wrapped": ("{{ ('a' * 100000) | wordwrap(1, wrapstring='b' * 100000) }}", CHARACTERS),
    "squared": (doubling("{% set ns.x = (ns.x | int(base=16)) ** 2 %}"), "a number of .* bits"),
    "lists in lists": (laughs("{{ a }}"), STEPS),
    "lists in lists as JSON": (laughs("{{ a | tojson }}"), STEPS),
    "lists in lists joined": (laughs("{{ 'a' ~ a }}"), STEPS),
    "lists in lists formatted": (laughs("{{ '%s' % a }}"), STEPS),
    "lists added up": (
        "{{ ([range(9999) | list] * 9999) | sum(start=[]) }}",
        "adds up lists",
    ),
    "recursion": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "it fails: maximum recursion depth"),
    "nested expression": ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "it fails"),
    "nothing": ("{% set x = messages %} ", "it writes nothing"),
    "nothing of what is said": ("a chat{{ eos_token }}", "it writes the turns without the user's words"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", TEMPLATES)
def test_a_template_that_does_too_much_is_refused(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TEMPLATE_STEPS", 200_000)  # a fifth of the limit, and of the time
    template, message = TEMPLATES[case]
    (tmp_path / "made").mkdir()
    assert re.search(message, refusal(tmp_path / "made", template))


def test_a_template_that_exceeds_a_limit_is_found_before_it_is_used(tmp_path: Path) -> None:
    write(tmp_path, byte_level(), TEMPLATES["nested ranges"][0])
    with pytest.raises(JobError, match=r"ChatTemplateUnsupported.*more than 1,000,000 steps"):
        CheckpointTokenizer.load(tmp_path)


def test_a_conversation_of_which_a_template_writes_nothing_is_refused(tmp_path: Path) -> None:
    write(tmp_path, byte_level(), "{% if messages | length > 70 %}{% else %}" + CHAT + "{% endif %}")
    tokenizer = CheckpointTokenizer.load(tmp_path)
    with pytest.raises(JobError, match=r"ChatTemplateUnsupported.*writes nothing"):
        tokenizer.conversation(SAID * 30, [1])


def test_a_template_that_is_too_large_is_refused(tmp_path: Path) -> None:
    write(tmp_path, byte_level(), chat="a" * (limits.TEMPLATE_BYTES + 1))
    with pytest.raises(JobError, match=r"the chat template in tokenizer_config.json has 1,048,577 bytes"):
        CheckpointTokenizer.load(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("a" * (limits.TEMPLATE_BYTES + 1))
    with pytest.raises(JobError, match=r"chat_template.jinja: it has more than 1,048,576 bytes"):
        CheckpointTokenizer.load(tmp_path)


#: As of models that are in use: what is said last decides how earlier turns are written, macros, slices, filters.
USUAL = {
    "thoughts": """{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and not(message.content.startswith('<tool>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "assistant" and '</think>' in content %}
        {%- set thoughts = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- if loop.index0 > ns.last_query_index %}{{- '<think>' + thoughts + '</think>' }}{%- endif %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}""",
    "headers": """{{- bos_token }}{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content']|trim %}
{%- set messages = messages[1:] %}{%- else %}{%- set system = "" %}{%- endif %}
{{- "Today: " + date_string + "\\n\\n" + system + "<|eot_id|>" }}
{%- for message in messages %}{{- '<|' + message['role'] + '|>\\n\\n' + message['content'] | trim + eos_token }}{%- endfor %}""",
    "everything": """{% macro show(m, deep=2) %}{{ m | tojson(indent=deep) }}{% endmacro %}
{% macro twice(n) %}{{ caller(n) }}{{ caller(n) }}{% endmacro %}
{% for m in messages if m.role != 'system' recursive %}{{ loop.index }}/{{ loop.length }} {{ loop.last }}
{{ loop.cycle('a', 'b') }} {{ loop.previtem.role if not loop.first }} {{ show(m) }} {{ m.items() | list }} {{ m | dictsort }}
{% generation %}{{ m.content ~ 1 ~ none }}{% endgeneration %}{% else %}nobody{% endfor %}
{% set x %}{{ messages | map(attribute='content') | join(', ') }}{% endset %}{{ x | upper | replace('A', 'bb') | indent(3) }}
{{ x[2:5] }}{{ x[-1] }} {{ range(3) | list }} {{ 7 // 2 }} {{ 2 ** 10 }} {{ 7 % 4 }} {{ '%s-%d' % ('a', 3) }}
{{ '%5s' | format('q') }} {{ '{:>5}'.format('w') }} {{ {'a': [1, {'b': 'é'}]} | tojson }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }}
{{ ['b', 'a'] | sort | first }} {{ 'ab' * 3 }} {{ [1] * 2 + [3] }} {{ missing | default('none') }} {{ 'x' if false }}
{{ x | center(400) }} {{ dict(a=1).items() | list }} {{ namespace(a=1).a }} {% filter upper %}filtered {{ 1 }}{% endfilter %}
{% call(z) twice(3) %}{{ z }}{% endcall %} {{ 'a'.join(['x', 'y']) }} {{ 'tab\t'.expandtabs(4) }} {{ 'abc'.translate({97: 'z'}) }}
{% for k, v in {'p': 1}.items() %}{{ k }}{{ v }}{% break %}{% endfor %}{% autoescape true %}{{ '<b>' ~ 'c' }}{% endautoescape %}
{{ 1.25 | round(1) }} {{ [1, 2, 3] | sum }} {{ (1, 2) | join('-') }}
{{ 'a\nb' | indent(width='> ', first=true) }} {{ [1] | batch(2, 0) | list }}""",
    "namespaces": """{%- set ns = namespace(last='', inner=namespace(roles=[])) %}
{%- for message in messages %}{{- dict(state=ns, m=message)['m'].content ~ ns.last ~ (ns | string) }}
{%- set ns.last = message.role %}{%- set ns.last = ns.last ~ (ns.inner.roles | length) %}{%- endfor %}{{ ns }}""",
}


@pytest.mark.parametrize("ask", [True, False])
@pytest.mark.parametrize("name", USUAL)
def test_templates_write_what_they_write_in_transformers(name: str, ask: bool) -> None:
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<p>"}
    for said in (
        SAID,
        [("system", " Brief. "), ("user", "Hi"), ("assistant", "<think>\nhm\n</think>\n\nHo")],
    ):
        theirs = render_jinja_template(
            [[{"role": role, "content": words} for role, words in said]],
            chat_template=USUAL[name],
            add_generation_prompt=ask,
            **tokens,
        )[0]
        assert [ChatTemplate(USUAL[name]).render(said, ask=ask, tokens=tokens)] == theirs


def test_a_conversation_of_a_megabyte_is_rendered() -> None:
    said = [(role, "Very far. " * 100) for role in ("user", "assistant")] * 500
    assert len(ChatTemplate(USUAL["thoughts"]).render(said, ask=True, tokens={})) > 1_000_000


Change = Callable[[dict[str, Any]], Any]


def replacements(count: int, content: str, text: str = "a") -> dict[str, Any]:
    step = {"type": "Replace", "pattern": {"String": text}, "content": content}
    return {"type": "Sequence", "normalizers": [step] * count}


def regex(pattern: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [split, bytes_]}


TOKENIZERS: dict[str, tuple[Change, str]] = {
    "an id of 2**31": (
        lambda t: t["model"]["vocab"].update(zz=1 << 31),
        "model.vocab holds the id 2147483648",
    ),
    "an added id of 2**31": (
        lambda t: t["added_tokens"][0].update(id=1 << 31),
        "added_tokens holds the id 2147483648",
    ),
    "a negative id": (lambda t: t["model"]["vocab"].update(zz=-1), "model.vocab holds the id -1"),
    "an id twice": (lambda t: t["model"]["vocab"].update(zz=5), "gives the same id to several tokens"),
    "ids that are truth values": (lambda t: t["model"]["vocab"].update(zz=True), "holds the id True"),
    "very many added tokens": (
        lambda t: t["added_tokens"].extend(t["added_tokens"][:1] * 200_000),
        "(added_tokens is not a list of at most 100,000|the limit is 4,000,000)",
    ),
    "a huge token": (
        lambda t: t["added_tokens"][0].update(content="a" * 100_000),
        "added_tokens holds the token 'aaaaaaaaaaaaaaaaaaaa'… of 100,000 characters; the limit is 4,096",
    ),
    "a chain of replacements": (
        lambda t: t.update(normalizer=replacements(40, "aa")),
        "normalizer can make a text 1,099,511,627,776 times as long; the limit is 64",
    ),
    "a replacement that only running it shows": (
        lambda t: t.update(normalizer=replacements(1, "b" * 60, "q")),
        "ids of a text of .* bytes; the limit is 4 per byte",
    ),
    "very many steps": (
        lambda t: t.update(normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}] * 99_999}),
        "normalizer has 100,000 steps; the limit is 64",
    ),
    "dropout": (lambda t: t["model"].update(dropout=0.5), "model.dropout is 0.5"),
    "a regular expression that explodes": (
        lambda t: t.update(pre_tokenizer=regex("(a+)+$")),
        "PanicException",
    ),
    "a panic while it is read": (
        lambda t: t["model"].update(continuing_subword_prefix="##"),
        "tokenizer.json cannot be read: PanicException",
    ),
    "a panic while it encodes": (
        lambda t: t.update(pre_tokenizer={"type": "FixedLength", "length": 0}),
        "tokenizer.json cannot encode a text of .* characters: PanicException",
    ),
    "a panic while it decodes": (
        lambda t: t.update(decoder={"type": "Strip", "content": "a", "start": 10**9, "stop": 10**9}),
        "tokenizer.json cannot decode ids: PanicException",
    ),
    "no vocabulary": (lambda t: t["model"].update(vocab=3), "model.vocab is neither"),
}


def changed(folder: Path, change: Change) -> Path:
    """Write a tokenizer with a change in its ``tokenizer.json``."""
    write(folder, byte_level())
    description = json.loads((folder / "tokenizer.json").read_text())
    change(description)
    (folder / "tokenizer.json").write_text(json.dumps(description))
    return folder


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", TOKENIZERS)
def test_a_tokenizer_that_cannot_be_is_refused(case: str, tmp_path: Path) -> None:
    change, message = TOKENIZERS[case]
    with pytest.raises(JobError, match=f"TokenizerUnsupported.*{message}") as error:
        CheckpointTokenizer.load(changed(tmp_path, change))
    assert not error.value.retryable


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "tokenizer.json: it is nested too deeply"),
        ("[" + "1," * limits.JSON_VALUES + "1]", "tokenizer.json: it holds 4,000,002 values"),
        ('{"model": {"vocab": [["a", NaN]]}}', "tokenizer.json: it is not JSON: NaN is not a finite number"),
        (
            '{"model": {"vocab": [["a", 1e999]]}}',
            "tokenizer.json: it is not JSON: 1e999 is not a finite number",
        ),
    ],
)
def test_a_description_that_is_too_large_or_too_deep_is_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    write(tmp_path, byte_level())
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(JobError, match=f"TokenizerUnsupported.*{message}"):
        CheckpointTokenizer.load(tmp_path)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, byte_level())
    with (tmp_path / "merges.txt").open("wb") as file:
        file.truncate(limits.TOKENIZER_BYTES + 1)
    with pytest.raises(JobError, match=r"merges.txt: it has more than 268,435,456 bytes, which is the limit"):
        CheckpointTokenizer.load(tmp_path)


def test_a_tokenizer_that_takes_too_long_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SAMPLE_SECONDS", 0.5)
    slow = regex("|".join(f"(?=(?:a|{other})*[0-9])a" for other in "bcdefghij"))
    with pytest.raises(JobError, match=r"TokenizerUnsupported.*encoding a text .* took longer than 0.5 s"):
        CheckpointTokenizer.load(changed(tmp_path, lambda t: t.update(pre_tokenizer=slow)))


def test_a_tokenizer_that_takes_too_much_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TOKENIZER_MEMORY_BYTES", 100 << 20)
    many = {f"token number {number}": number for number in range(300, 150_000)}
    folder = changed(tmp_path, lambda t: t["model"]["vocab"].update(many))
    with pytest.raises(JobError, match=r"TokenizerUnsupported.*needs? more than 104,857,600 bytes of memory"):
        CheckpointTokenizer.load(folder)


def test_a_tokenizer_is_tried_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    class Counted(tokenizer_process.TokenizerProcess):
        def __init__(self, files: Mapping[str, bytes]) -> None:
            started.append(files["tokenizer.json"])
            super().__init__(files)

    monkeypatch.setattr(tokenizer_process, "TokenizerProcess", Counted)
    write(tmp_path, byte_level(280))
    first, again = CheckpointTokenizer.load(tmp_path), CheckpointTokenizer.load(tmp_path)
    assert started == [(tmp_path / "tokenizer.json").read_bytes()]
    assert again.encode("alpha, then") == first.encode("alpha, then") != []
    write(tmp_path, byte_level(281))
    CheckpointTokenizer.load(tmp_path)
    assert started[1:] == [(tmp_path / "tokenizer.json").read_bytes()]


def test_a_process_answers_as_the_tokenizer_does(tmp_path: Path) -> None:
    write(tmp_path, byte_level())
    tokenizer = CheckpointTokenizer.load(tmp_path)
    reader = tokenizer.prompt_reader()
    for text in ("alpha, then", "漢字 🙂", "", "a\u0000b\n" * 1000):
        assert reader.encode(text) == tokenizer.encode(text)
    assert reader.prompt(SAID) == tokenizer.prompt(SAID)
    reader._idle.queue[0]._process.kill()  # as the kernel does where memory runs out
    reader._idle.queue[0]._process.wait()
    assert reader.encode("alpha") == tokenizer.encode("alpha")
    reader.close()


#: Compares two lists of lists when a message asks for it, which takes minutes that nothing within the process can end.
COMPARING = (
    "{% if 'compare' in messages[-1].content %}{% set a = ['a'] %}{% set b = ['a'] %}"
    + "{% set a = [a,a,a,a,a,a,a,a,a,a] %}{% set b = [b,b,b,b,b,b,b,b,b,b] %}" * 9
    + "{{ a == b }}{% endif %}"
    + CHAT
)


def test_a_prompt_that_takes_too_long_ends_its_process_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PROMPT_SECONDS", 0.5)
    write(tmp_path, byte_level(), COMPARING)
    tokenizer = CheckpointTokenizer.load(tmp_path)
    reader = tokenizer.prompt_reader()
    with ThreadPoolExecutor() as threads:
        slow = [threads.submit(reader.prompt, [("user", "compare")]) for _ in range(2)]
        for one in slow:
            with pytest.raises(JobError, match=r"ChatTemplateUnsupported.* took longer than 0.5 s") as error:
                one.result()
            assert not error.value.retryable
    assert reader.prompt(SAID) == tokenizer.prompt(SAID)
    reader.close()
