"""A checkpoint's chat template: what transformers offers to templates, in the bounded sandbox. Imports no transformers.

The functions, filters and settings are those of ``transformers.utils.chat_template_utils``, so a template writes the same
text here and there.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.utils import Namespace

from moe_trainer.hugging_face.bounded_sandbox import BoundedSandbox, Budget, TemplateLimit
from moe_trainer.text.content import Role

#: Names under which templates look for an answer's thoughts.
_THOUGHTS = ("reasoning_content", "thinking", "reasoning")

#: Deepest indentation of JSON, in spaces.
_JSON_INDENT = 16


class ChatTemplate:
    """A chat template."""

    def __init__(self, source: str) -> None:
        """Take the text of a template; it is compiled when it is first rendered."""
        self._source = source
        self._sandbox = _sandbox()
        self._compiled: Template | None = None

    def render(self, said: Sequence[tuple[Role, str]], *, ask: bool, tokens: Mapping[str, str]) -> str:
        """Return a conversation of (role, words) as text; with ``ask``, up to the place where the next answer begins.

        ``tokens`` are further variables, such as ``bos_token``. Raises TemplateLimit, and whatever the template raises.
        """
        self._sandbox.budget = Budget()
        if self._compiled is None:
            self._compiled = self._sandbox.from_string(self._source)
        return self._compiled.render(
            messages=_messages(said),
            tools=None,
            documents=None,
            add_generation_prompt=ask,
            **tokens,
        )


def _sandbox() -> BoundedSandbox:
    """Return the sandbox as transformers sets it up."""
    made = BoundedSandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    made.charge_filters(tojson=_tojson)
    made.globals |= {
        "dict": _Dict(),
        "namespace": _Namespace,
        "raise_exception": _raise_exception,
        "strftime_now": lambda layout: datetime.now().strftime(layout),
    }
    return made


def _messages(said: Sequence[tuple[Role, str]]) -> list[dict[str, str]]:
    """Return turns as messages; thoughts are fields of the answer after them, by all names that transformers gives them."""
    messages: list[dict[str, str]] = []
    thoughts: dict[str, str] = {}
    for role, words in said:
        if role == "thoughts":
            thoughts = dict.fromkeys(_THOUGHTS, words)
        else:
            messages.append({"role": role, "content": words, **thoughts})
            thoughts = {}
    return messages


class _Generation(Extension):
    """The tag ``generation``, by which some templates mark answers; what is in it is written as it is."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_write"), [], [], body).set_lineno(line)

    def _write(self, caller: Macro) -> Any:
        return caller()


class _Dict:
    """``dict`` for templates, without the attributes of the class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """``namespace`` for templates, without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # a template may name a variable ``self``
        given = dict(*args[1:], **kwargs)
        for name in given:
            _check_name(name)
        Namespace.__init__(args[0], given)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold {name!r}: names must not begin with an underscore")


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return JSON without escapes for HTML."""
    if (len(indent) if isinstance(indent, str) else indent or 0) > _JSON_INDENT:
        raise TemplateLimit(f"it indents JSON by more than {_JSON_INDENT}, which is the limit")
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
