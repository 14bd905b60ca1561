"""The reference pages: one per kind, made from its schema, and one for all reasons."""

from collections.abc import Iterator
from typing import Any

from moe_formats.resources.kinds import KINDS, Kind
from moe_formats.resources.labels import API_VERSION, CATEGORY
from moe_formats.resources.reasons import Reason
from moe_operator.generate.crd import object_schema
from moe_operator.generate.manifests import MARK

_NOTE = f"<!-- {MARK} -->\n"


def reference_pages() -> dict[str, str]:
    """Return path to text of the page of each kind."""
    pages = {f"docs/reference/{kind.singular}.md": _page(kind) for kind in KINDS}
    return pages | {"docs/reference/README.md": _index()}


def reason_page() -> dict[str, str]:
    """Return path to text of the page that explains every reason."""
    rows = "\n".join(f"| `{reason.value}` | {_cell(reason.meaning)} |" for reason in Reason)
    return {
        "docs/reasons.md": f"{_NOTE}\n# Reasons\n\n"
        "Every condition and event has one of these words as its reason. Its message says what is the case here, why, "
        "and what to do next.\n\n"
        f"| Reason | What it means and what to do |\n|---|---|\n{rows}\n"
    }


def _index() -> str:
    rows = "".join(
        f"| [{kind.name}]({kind.singular}.md) | {kind.short} | {kind.model.__doc__} |\n" for kind in KINDS
    )
    return (
        f"{_NOTE}\n# Reference\n\nThe kinds of `{API_VERSION}`. `kubectl explain` shows the same descriptions.\n\n"
        f"| Kind | Short name | What it is |\n|---|---|---|\n{rows}\n"
        "See also: [reasons](../reasons.md) of conditions and events, "
        "[values](../../charts/moe-operator/values.yaml) of the chart.\n"
    )


def _page(kind: Kind) -> str:
    schema = object_schema(kind)
    properties = schema["properties"]
    scale = f" It scales by `kubectl scale` (`{kind.scale.spec_replicas.lstrip('.')}`)." if kind.scale else ""
    columns = ", ".join(column.name.upper() + ("*" if column.wide else "") for column in kind.columns)
    return (
        f"{_NOTE}\n# {kind.name}\n\n{kind.model.__doc__}\n\n"
        f"`{API_VERSION}`, namespaced; short name `{kind.short}`, category `{CATEGORY}`.{scale}\n\n"
        f"Columns of `kubectl get {kind.plural}` (* with `-o wide`): {columns}.\n\n"
        f"{_rules(schema)}"
        f"## spec\n\n{_table(properties['spec'])}\n"
        f"## status\n\nWritten by the operator.\n\n{_table(properties['status'], defaults=False)}"
    )


def _rules(schema: dict[str, Any]) -> str:
    messages = list(dict.fromkeys(rule["message"] for rule in _all_rules(schema)))
    if not messages:
        return ""
    return (
        "`kubectl apply` refuses an object, besides for values out of bounds, with these messages:\n\n"
        + "".join(f"- {message}\n" for message in messages)
        + "\n"
    )


def _all_rules(schema: dict[str, Any]) -> Iterator[dict[str, str]]:
    yield from schema.get("x-kubernetes-validations", [])
    for child in schema.get("properties", {}).values():
        yield from _all_rules(child)
    if isinstance(schema.get("items"), dict):
        yield from _all_rules(schema["items"])


def _table(schema: dict[str, Any], *, defaults: bool = True) -> str:
    last = " Default |" if defaults else ""
    lines = [
        f"| Field | Type | Bounds |{last} Description |",
        "|---|---|---|---|" + ("---|" if defaults else ""),
    ]
    for name, field, required in _fields(schema, prefix=""):
        cells = [
            f"`{name}`" + (" **required**" if required and defaults else ""),
            _type(field),
            _bounds(field),
        ]
        if defaults:
            cells.append(_default(field))
        cells.append(_cell(field["description"]))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _fields(schema: dict[str, Any], *, prefix: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
    for name, field in schema.get("properties", {}).items():
        yield f"{prefix}{name}", field, name in schema.get("required", [])
        yield from _fields(field, prefix=f"{prefix}{name}.")
        if isinstance(field.get("items"), dict):
            yield from _fields(field["items"], prefix=f"{prefix}{name}[].")


def _type(field: dict[str, Any]) -> str:
    if "enum" in field:
        return " \\| ".join(f"`{value}`" for value in field["enum"])
    if field["type"] == "array":
        return f"list of {_type(field['items'])}"
    if isinstance(field.get("additionalProperties"), dict):
        return f"map to {_type(field['additionalProperties'])}"
    return str(field.get("format", field["type"]))


def _bounds(field: dict[str, Any]) -> str:
    """Write bounds the way people do: `0 < x ≤ 1`, `≤ 40 characters`, `1 to 32 entries`."""
    if "minimum" in field or "maximum" in field:
        low, high = field.get("minimum"), field.get("maximum")
        left = "" if low is None else f"{low} {'<' if field.get('exclusiveMinimum') else '≤'} "
        right = "" if high is None else f" {'<' if field.get('exclusiveMaximum') else '≤'} {high}"
        return f"{left}x{right}"
    for key, unit in (("Length", "characters"), ("Items", "entries"), ("Properties", "entries")):
        if f"max{key}" in field:
            low = field.get(f"min{key}")
            return f"{low} to {field[f'max{key}']} {unit}" if low else f"≤ {field[f'max{key}']} {unit}"
    return ""


def _default(field: dict[str, Any]) -> str:
    value = field.get("default")
    if value is None or isinstance(value, dict):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return "empty" if value == "" else f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
