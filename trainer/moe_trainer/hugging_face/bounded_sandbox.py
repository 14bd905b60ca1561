"""Jinja's sandbox with bounds: a template is a program that somebody else wrote, and Jinja bounds neither time nor memory.

A rendering has a budget of steps, characters and seconds (limits.py), to which every loop, call, filter and piece of text
is charged. Operations whose result can be much larger than what they are given (``'a' * n``, ``center``, ``replace``, a
nested list that is written out) are charged before they are carried out.

So a template that does too much is an error with a clear message. This is not the only fence, because a single
operation such as comparing nested lists cannot be stopped from within: tokenizer_process.py is the other one.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from types import BuiltinMethodType, MethodType
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.compiler import CodeGenerator, Frame
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from moe_trainer import limits

#: Largest number that a template may pass to a filter or a method, such as a width.
_ARGUMENT = 100_000
#: Most bits of an integer that a template computes.
_BITS = 4096
#: A width in a format string: of five digits or more, or taken from an argument.
_WIDE = re.compile(r"\d{5}|%[^a-zA-Z%]*\*|\{[^{}]*:[^{}]*\{")
#: Filters that do not write out what they are given.
_SEQUENCE_FILTERS = frozenset(
    {
        "attr",
        "batch",
        "count",
        "d",
        "default",
        "dictsort",
        "first",
        "groupby",
        "items",
        "join",
        "last",
        "length",
        "list",
        "map",
        "max",
        "min",
        "random",
        "reject",
        "rejectattr",
        "reverse",
        "safe",
        "select",
        "selectattr",
        "slice",
        "sort",
        "sum",
        "unique",
    }
)


class TemplateLimit(Exception):
    """A template exceeds a limit; the message says which."""


class Budget:
    """What is left of the limits of one rendering."""

    def __init__(self) -> None:
        self._steps, self._characters = limits.TEMPLATE_STEPS, limits.TEMPLATE_CHARACTERS
        self._until = time.monotonic() + limits.TEMPLATE_SECONDS

    def charge(self, steps: int = 0, characters: int = 0) -> None:
        """Take something from the budget; raises TemplateLimit if less is left."""
        self._steps -= steps
        self._characters -= characters
        if self._steps < 0:
            raise TemplateLimit(f"it takes more than {limits.TEMPLATE_STEPS:,} steps, which is the limit")
        if self._characters < 0:
            raise TemplateLimit(
                f"it makes more than {limits.TEMPLATE_CHARACTERS:,} characters, which is the limit"
            )
        if time.monotonic() > self._until:
            raise TemplateLimit(f"it takes longer than {limits.TEMPLATE_SECONDS:g} s, which is the limit")


class _Charging(CodeGenerator):
    """Compiles templates so that passes through loops, slices and joined texts are charged to the budget."""

    def visit_For(self, node: nodes.For, frame: Frame) -> None:
        node.iter = _call("counted", node.iter)
        super().visit_For(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        measured: list[nodes.Expr] = [_call("measured", part) for part in node.nodes]
        super().visit_Concat(nodes.Concat(measured, lineno=node.lineno), frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        self.write("environment.measured(" if isinstance(node.arg, nodes.Slice) else "(")
        super().visit_Getitem(node, frame)
        self.write(")")


def _call(method: str, argument: nodes.Node) -> nodes.Call:
    """Return a call of a method of the environment."""
    called = nodes.EnvironmentAttribute(method, lineno=argument.lineno)
    return nodes.Call(called, [argument], [], None, None, lineno=argument.lineno)


@pass_context
def _written(context: Context, value: Any) -> Any:
    """Return what an expression of a template writes."""
    environment = context.environment
    assert isinstance(environment, BoundedSandbox)
    return environment.measured(value)


class BoundedSandbox(ImmutableSandboxedEnvironment):
    """The sandbox. Whoever renders with it sets ``budget`` first, and renders one template at a time."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    code_generator_class = _Charging

    def __init__(self, **options: Any) -> None:
        """Take Jinja's options."""
        self.budget = Budget()
        # Without the optimizer nothing is computed while a template is compiled.
        super().__init__(optimized=False, finalize=_written, **options)
        del self.globals["lipsum"]  # makes as much text as it is asked for
        self.charge_filters()

    def charge_filters(self, **more: Callable[..., Any]) -> None:
        """Add filters, and charge what all of them do."""
        filters = self.filters | more
        self.filters = {
            name: filter_ if hasattr(filter_, "charged") else self._charged(name, filter_)
            for name, filter_ in filters.items()
        }

    def concat(self, pieces: Iterable[str]) -> str:
        """Return pieces of text as one: what a template, a macro or a block writes."""
        kept = []
        for piece in pieces:
            self.budget.charge(1, len(piece))
            kept.append(piece)
        return "".join(kept)

    def counted(self, values: Iterable[Any]) -> Iterator[Any]:
        """Yield values, each for a step."""
        for value in values:
            self.budget.charge(1)
            yield value

    def measured(self, value: Any) -> Any:
        """Return a value, for as many characters as it has when it is written out."""
        waiting = [value]
        while waiting:
            part = waiting.pop()
            if isinstance(part, str | bytes):
                self.budget.charge(0, len(part))
            elif isinstance(part, dict):
                self.budget.charge(len(part), 4 * len(part))
                waiting += [*part.keys(), *part.values()]
            elif isinstance(part, list | tuple | set | frozenset):
                self.budget.charge(len(part), 2 * len(part))
                waiting += part
            elif isinstance(part, Namespace):
                # Its own way to look up attributes finds only what templates have set.
                waiting.append(object.__getattribute__(part, "__dict__"))
        return value

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Carry out an operation whose result can be large."""
        if isinstance(left, int) and isinstance(right, int):
            _check_bits(operator, left, right)
        elif operator == "%" and isinstance(left, str):
            _check_layout(left)
            self.measured([left, right])
        elif operator == "*":
            for many, times in ((left, right), (right, left)):
                if isinstance(times, int):
                    self.budget.charge(1, _length(many) * max(times, 0))
        elif operator == "+":
            self.budget.charge(1, _length(left) + _length(right))
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return the sandboxed ``format`` of a text, unless it makes very wide fields."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_layout(value.__self__)
        return wrapped

    def call(self, context: Context, called: Any, *args: Any, **kwargs: Any) -> Any:
        """Call something for a template."""
        if isinstance(called, MethodType) and called.__self__ is self:
            return called(args[0])  # compiled into the template by _Charging
        self.budget.charge(1)
        if isinstance(called, LoopContext):
            args = (self.counted(args[0]), *args[1:])
        elif not isinstance(called, Macro):
            self._charge_arguments(called, [*args, *kwargs.values()])
        return self._made(super().call(context, called, *args, **kwargs))

    def _charge_arguments(self, called: Any, given: Sequence[Any]) -> None:
        """Charge what a function makes of its arguments, before it is called."""
        _check_numbers(given)
        self.measured(given)
        if isinstance(called, BuiltinMethodType):
            self.budget.charge(0, _growth(called.__name__, called.__self__, given))

    def _charged(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a filter whose work is charged."""
        first = int(
            hasattr(function, "jinja_pass_arg")
        )  # some filters are passed the context before the value

        @wraps(function)
        def charged(*args: Any, **kwargs: Any) -> Any:
            self.budget.charge(1)
            value, *others = args[first:]
            given = [*others, *kwargs.values()]
            _check_numbers(given)
            if name == "join":
                value = [self.measured(part) for part in self.counted(value)]
            elif name not in _SEQUENCE_FILTERS:
                self.measured([value, given])
            elif name == "sum" and any(isinstance(start, list | tuple) for start in given):
                raise TemplateLimit("it adds up lists with the filter sum, which is not supported")
            if name == "format":
                _check_layout(str(value))
            self.budget.charge(0, _growth(name, value, given))
            return self._made(function(*args[:first], value, *others, **kwargs))

        charged.charged = True  # type: ignore[attr-defined]
        return charged

    def _made(self, value: Any) -> Any:
        """Return a value that a filter or a function has made."""
        self.budget.charge(0, _length(value))
        return value


def _growth(name: str, value: Any, given: Sequence[Any]) -> int:
    """Return an upper bound of the characters that a filter or a method adds to what it is given."""
    texts = [text for text in given if isinstance(text, str | bytes)]
    widest = max([*(number for number in given if isinstance(number, int)), *map(len, texts), 0])
    match name:
        case "replace" if len(texts) >= 2 and isinstance(value, str):
            return value.count(str(texts[0])) * len(texts[1])
        case "replace":
            return (1 + _length(value)) * widest
        case "join" if isinstance(value, str | bytes):  # the method; the filter has a list by now
            return len(value) * sum(map(_length, given))
        case "join":
            return widest * _length(value)
        case "indent":
            return widest * (1 + str(value).count("\n"))
        case "expandtabs":
            tabs: int = value.count(b"\t" if isinstance(value, bytes) else "\t")
            return max(widest, 8) * tabs
        case "wordwrap":
            return widest * len(str(value))
        case "translate":
            tables = [table for table in given if isinstance(table, dict)]
            return _length(value) * max(
                (_length(text) for table in tables for text in table.values()), default=0
            )
        case "batch" | "slice" | "center" | "ljust" | "rjust" | "zfill" | "to_bytes":
            return widest
    return 0


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes | list | tuple | dict | set) else 0


def _check_numbers(given: Iterable[Any]) -> None:
    """Raise TemplateLimit for a number that is too large to be a width or a count."""
    for number in given:
        if isinstance(number, int) and abs(number) > _ARGUMENT:
            raise TemplateLimit(
                f"it passes {float(number):.4g} to a filter or a function; the limit is {_ARGUMENT:,}"
            )


def _check_bits(operator: str, left: int, right: int) -> None:
    """Raise TemplateLimit if a computation makes a very long number."""
    bits = max(left.bit_length(), right.bit_length())
    if operator == "*":
        bits = left.bit_length() + right.bit_length()
    elif operator == "**":
        bits = left.bit_length() * max(right, 1)
    if bits > _BITS:
        raise TemplateLimit(f"it computes a number of {bits:,} bits; the limit is {_BITS:,}")


def _check_layout(layout: str) -> None:
    """Raise TemplateLimit for a format string with wide fields."""
    if _WIDE.search(layout):
        raise TemplateLimit(
            f"the format {layout[:40]!r} has a width of more than 4 digits, or one that is an argument"
        )
