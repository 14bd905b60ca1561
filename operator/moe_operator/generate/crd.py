"""From a pydantic model to a CustomResourceDefinition with a structural schema.

What pydantic writes and Kubernetes does not take is rewritten: references are put in place, `T or null`
becomes an optional T, `const` becomes an enum of one, exclusive bounds take the form of OpenAPI 3.0, and
titles go. CEL rules pass through. Defaults stay in spec only, since a status holds what was observed; there, a
description ends with the default, which is thereby written in one place. Items of lists that an apply replaces as a
whole have none either: rules on them have to ask with `has()` whether a field is there.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from moe_formats.resources.kinds import KINDS, Column, Kind
from moe_formats.resources.labels import CATEGORY, GROUP, VERSION

#: A JSON schema, or a part of one.
Schema = dict[str, Any]

#: Annotation by which Argo CD never deletes a CRD that is no longer in Git, since every Expert would go with it.
NOT_PRUNED = {"argocd.argoproj.io/sync-options": "Prune=false"}

#: The keyword of CEL rules.
_RULES = "x-kubernetes-validations"

#: Keywords that pass through unchanged.
_KEPT = (
    "description", "type", "format", "enum", "pattern", "minLength", "maxLength", "minItems", "maxItems",
    "minProperties", "maxProperties", "minimum", "maximum", "required",
    _RULES, "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
)  # fmt: skip

#: Keywords that pydantic writes and that Kubernetes needs neither itself nor in another form.
_DROPPED = ("title", "$defs", "discriminator")

#: What names of children are derived from. The API server itself refuses capitals and underscores.
_NAME_RULES = (
    {
        "rule": "size(self.metadata.name) <= 40",
        "message": "metadata.name must have at most 40 characters, since names of children are derived from it: shorten it",
        "fieldPath": ".metadata.name",
    },
    {
        "rule": "self.metadata.name.matches('^[a-z][a-z0-9-]*$')",
        "message": "metadata.name must begin with a letter and have no dots, as the names of Services: rename it",
        "messageExpression": "'metadata.name is ' + self.metadata.name + ': it must begin with a letter and have no dots, since "
        "names of Services are derived from it. For example: ' + (self.metadata.name.matches('^[a-z]') ? '' : 'x-') + "
        "self.metadata.name.replace('.', '-')",
        "fieldPath": ".metadata.name",
    },
)
#: A rule may do more with a name than measure it only if the schema says how long a name can be.
_NAMES = {"name": {"type": "string", "maxLength": 253}, "generateName": {"type": "string", "maxLength": 253}}
#: Patterns whose mismatch the API server would tell as the pattern alone, with what is said instead.
_SAID = {
    **dict.fromkeys(
        ("^[a-z][a-z0-9-]{0,39}$", "^[a-z][a-z0-9-]{0,62}$", "^[a-z][a-z0-9-]*$"),
        "must begin with a lower-case letter and have only lower-case letters, digits and '-': for example, my-law-2",
    ),
    "^[a-z][a-zA-Z0-9-]{0,39}$": "must begin with a lower-case letter and have only letters, digits and '-': for example, "
    "exactMatch",
}


class _WithNestedDefaults(GenerateJsonSchema):
    """Also writes the default of a nested model, with every inner default: CEL rules on it are checked with it."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        result = super().default_schema(schema)
        factory = schema.get("default_factory")
        if isinstance(factory, type) and issubclass(factory, BaseModel):
            return {**result, "default": factory().model_dump(mode="json", by_alias=True, exclude_none=True)}
        return result


def structural_schema(model: type[BaseModel]) -> Schema:
    """Return the structural schema of a model, references in place.

    Raises ValueError for what a structural schema cannot say: unions, and keywords that Kubernetes does not know.
    """
    document = model.model_json_schema(by_alias=True, schema_generator=_WithNestedDefaults)
    return _structural(document, document.get("$defs", {}), path=model.__name__)


def _structural(node: Mapping[str, Any], definitions: Mapping[str, Any], *, path: str) -> Schema:
    node = _told(_resolved(node, definitions, path=path))
    result: Schema = {key: _number(node[key]) for key in _KEPT if key in node}
    for key, value in node.items():
        if key in _KEPT or key in _DROPPED:
            continue
        if key == "properties":
            result[key] = {
                name: _structural(child, definitions, path=f"{path}.{name}") for name, child in value.items()
            }
        elif key in ("items", "additionalProperties") and isinstance(value, Mapping):
            result[key] = _structural(value, definitions, path=f"{path}[]")
        elif key == "default":
            if value is not None:
                result[key] = _number(value)
        elif key == "const":
            result["enum"] = [value]
        elif key in ("exclusiveMinimum", "exclusiveMaximum"):
            result[key[len("exclusive") :].lower()] = _number(value)
            result[key] = True
        else:
            raise ValueError(f"{path}: a structural schema has no {key!r}; change the model or teach crd.py")
    if rules := _bounds_of_integers(result):
        result[_RULES] = [*result.get(_RULES, []), *rules]
    return result


def _bounds_of_integers(schema: Schema) -> list[dict[str, str]]:
    """Return rules for bounds that the API server does not hold: of a bound for an integer it cuts off the fraction.

    So a minimum of 0.5 lets 0 pass, and a maximum of -0.5 too. All other bounds stay right when they are cut off towards 0.
    """
    least, most = schema.get("minimum", 0), schema.get("maximum", 0)
    rules = []
    if least > 0 and least != int(least):
        rules.append({"rule": f"self >= {least}", "message": f"must be at least {least}: raise it"})
    if most < 0 and most != int(most):
        rules.append({"rule": f"self <= {most}", "message": f"must be at most {most}: lower it"})
    return rules


def _resolved(node: Mapping[str, Any], definitions: Mapping[str, Any], *, path: str) -> Mapping[str, Any]:
    """Put a reference in its place and drop the null of an optional; what stands beside them wins, rules add up."""
    while "$ref" in node or "anyOf" in node:
        beside = {key: value for key, value in node.items() if key not in ("$ref", "anyOf")}
        if "$ref" in node:
            inner = definitions[node["$ref"].removeprefix("#/$defs/")]
        else:
            options = [option for option in node["anyOf"] if option.get("type") != "null"]
            if len(options) != 1:
                raise ValueError(f"{path}: a structural schema has no union of {len(options)} types")
            inner = options[0]
        rules = [*inner.get(_RULES, []), *beside.get(_RULES, [])]
        node = {**inner, **beside, **({_RULES: rules} if rules else {})}
    return node


def _told(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Put a rule in the place of a pattern that people would have to decipher."""
    said = _SAID.get(str(node.get("pattern")))
    if said is None or "maxLength" not in node:
        return node
    rule = {"rule": f"self.matches('{node['pattern']}')", "message": said}
    rest = {key: value for key, value in node.items() if key != "pattern"}
    return {**rest, _RULES: [*node.get(_RULES, []), rule]}


def _number(value: Any) -> Any:
    """Write 1.0 as 1, inside defaults too: clients that read integers refuse the former."""
    if isinstance(value, Mapping):
        return {key: _number(child) for key, child in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def without_defaults(schema: Schema) -> Schema:
    """Return a schema whose fields have no defaults."""
    result = {key: value for key, value in schema.items() if key != "default"}
    if "properties" in result:
        result["properties"] = {name: without_defaults(child) for name, child in result["properties"].items()}
    for key in ("items", "additionalProperties"):
        if key in result:
            result[key] = without_defaults(result[key])
    return result


def without_defaults_in_items(schema: Schema) -> Schema:
    """Return a schema in which items have no defaults if an apply replaces their list as a whole.

    Clients that predict the outcome of a server-side apply, as Argo CD does, would find them missing for ever. The model
    has the defaults, so whoever reads an object by it sees no difference.
    """
    result = dict(schema)
    if "properties" in result:
        result["properties"] = {
            name: without_defaults_in_items(child) for name, child in result["properties"].items()
        }
    if "items" in result:
        merged_by_key = schema.get("x-kubernetes-list-type") == "map"
        inner = without_defaults_in_items if merged_by_key else without_defaults
        result["items"] = inner(result["items"])
    return result


def with_defaults_told(schema: Schema) -> Schema:
    """Return a schema in which the description of a field with a plain default ends with it, as in `Default: 0.1`.

    A description that already has a sentence on the default, because there is more to say, stays as it is.
    """
    result = dict(schema)
    default, description = schema.get("default"), schema.get("description", "")
    if isinstance(default, bool | int | float | str) and "Default: " not in description:
        value = "empty" if default == "" else json.dumps(default).strip('"')
        result["description"] = f"{description} Default: {value}."
    if "properties" in result:
        result["properties"] = {
            name: with_defaults_told(child) for name, child in result["properties"].items()
        }
    for key in ("items", "additionalProperties"):
        if key in result:
            result[key] = with_defaults_told(result[key])
    return result


def object_schema(kind: Kind) -> Schema:
    """Return the schema of a whole object: apiVersion, kind, metadata, spec, status."""
    spec, status = (structural_schema(_part(kind, name)) for name in ("spec", "status"))
    result: Schema = {
        "description": kind.model.__doc__,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"Version of the API: {GROUP}/{VERSION}."},
            "kind": {"type": "string", "description": f"{kind.name}."},
            "metadata": {"type": "object"},
            "spec": without_defaults_in_items(with_defaults_told(spec)),
            "status": without_defaults(status),
        },
    }
    if kind.short_name_rule:
        result["properties"]["metadata"]["properties"] = dict(_NAMES)
        result[_RULES] = list(_NAME_RULES)
    return result


def _part(kind: Kind, name: str) -> type[BaseModel]:
    part = kind.model.model_fields[name].annotation
    if not (isinstance(part, type) and issubclass(part, BaseModel)):
        raise ValueError(f"{kind.name}.{name} must be a model, not {part!r}")
    return part


def custom_resource_definition(kind: Kind) -> Schema:
    """Return the CustomResourceDefinition of a kind."""
    subresources: Schema = {"status": {}}
    if kind.scale:
        subresources["scale"] = {
            "specReplicasPath": kind.scale.spec_replicas,
            "statusReplicasPath": kind.scale.status_replicas,
            "labelSelectorPath": kind.scale.selector,
        }
    version: Schema = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [_column(column) for column in kind.columns],
        "subresources": subresources,
        "schema": {"openAPIV3Schema": object_schema(kind)},
    }
    if kind.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in kind.selectable]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{GROUP}",
            "labels": {"app.kubernetes.io/part-of": "moe-operator"},
            "annotations": dict(NOT_PRUNED),
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.singular,
                "shortNames": [kind.short],
                "categories": [CATEGORY],
            },
            "versions": [version],
        },
    }


def _column(column: Column) -> Schema:
    result: Schema = {"name": column.name, "type": column.type, "jsonPath": column.path}
    if column.wide:
        result["priority"] = 1
    return result


def custom_resource_definitions() -> dict[str, Schema]:
    """Return every CustomResourceDefinition by the plural name of its kind."""
    return {kind.plural: custom_resource_definition(kind) for kind in KINDS}
