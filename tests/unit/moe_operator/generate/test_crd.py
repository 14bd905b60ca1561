"""The schemas that the API server is given: structural, bounded, described, and as the models say."""

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from moe_formats.resources.base import cel
from moe_formats.resources.kinds import EXPERT, EXPERT_POOL, KINDS, Kind
from moe_operator.generate.crd import (
    Schema,
    custom_resource_definition,
    object_schema,
    structural_schema,
    with_defaults_told,
    without_defaults,
)

#: What a structural schema of apiextensions.k8s.io/v1 may contain, of what we use.
STRUCTURAL = {
    "additionalProperties", "default", "description", "enum", "exclusiveMaximum", "exclusiveMinimum", "format",
    "items", "maxItems", "maxLength", "maxProperties", "maximum", "minItems", "minLength", "minimum", "pattern",
    "properties", "required", "type", "x-kubernetes-list-map-keys", "x-kubernetes-list-type",
    "x-kubernetes-validations",
}  # fmt: skip


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every part of a schema with its path, the schema itself first."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key], f"{path}[]")


def fields(kind: Kind, *parts: str) -> list[tuple[str, Schema]]:
    """Every part of a kind's spec and status with its path."""
    properties = object_schema(kind)["properties"]
    return [
        item
        for part in parts or ("spec", "status")
        for item in nodes(properties[part], f"{kind.name}.{part}")
    ]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_schema_has_only_what_structural_schemas_may_have(kind: Kind) -> None:
    for path, node in nodes(object_schema(kind)):
        assert set(node) <= STRUCTURAL, path
        assert node["type"] in {"object", "array", "string", "integer", "number", "boolean"}, path
        assert not ("properties" in node and "additionalProperties" in node), path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_items_of_a_list_that_is_applied_as_a_whole_have_no_defaults(kind: Kind) -> None:
    """An apply by Argo CD predicts them as absent, and never settles."""
    lists = [node for _, node in fields(kind) if node["type"] == "array"]
    whole = [node["items"] for node in lists if node.get("x-kubernetes-list-type") != "map"]
    assert [path for items in whole for path, node in nodes(items) if "default" in node] == []


def described(kind: Kind, *parts: str) -> list[tuple[str, Schema]]:
    """Every part of a schema that `kubectl explain` describes: fields, and objects that are items of a list."""
    return [
        (path, node)
        for path, node in fields(kind, *parts)
        if not path.endswith("[]") or node["type"] == "object"
    ]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_description_is_a_sentence_that_says_something(kind: Kind) -> None:
    for path, node in described(kind):
        text = node.get("description", "")
        assert len(text) >= 12 and text[0].isupper() | (text[0] == "`") and text[-1] == ".", f"{path}: {text}"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_description_sends_the_reader_to_another(kind: Kind) -> None:
    """`kubectl explain` shows one field at a time."""
    elsewhere = re.compile(r"\b[Ll]ikewise\b|\bSee \b|\bas above\b|\bditto\b|\b[Tt]he same, with\b|^[Ii]ts\b")
    assert [path for path, node in described(kind) if elsewhere.search(node["description"])] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_may_be_left_out_of_a_spec_says_what_happens_then(kind: Kind) -> None:
    for path, node in fields(kind, "spec"):
        for name, child in node.get("properties", {}).items():
            if name not in node.get("required", []):
                assert re.search(r"Default: |\bAbsent\b", child["description"]), f"{path}.{name}"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_a_status_may_lack_says_when_it_is_absent(kind: Kind) -> None:
    """A list or a map is empty then, and any other field with a default has that: they are never absent."""
    lacking = [
        f"{path}.{name}"
        for path, node in nodes(structural_schema(status_of(kind)))
        for name, child in node.get("properties", {}).items()
        if name not in node.get("required", [])
        and "default" not in child
        and child["type"] != "array"
        and "additionalProperties" not in child
        and not re.search(r"\bAbsent\b|Default: ", child["description"])
    ]
    assert lacking == []


def status_of(kind: Kind) -> type[BaseModel]:
    """The model of a kind's status, which has the defaults that its schema leaves out."""
    model = kind.model.model_fields["status"].annotation
    assert isinstance(model, type) and issubclass(model, BaseModel)
    return model


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_description_names_the_default_that_the_schema_has(kind: Kind) -> None:
    for path, node in fields(kind, "spec"):
        default = node.get("default")
        if default is not None and not isinstance(default, dict):
            named = re.search(r"Default: ([\w.]*\w)", node["description"])
            assert named is not None, path
            assert named[1] == ("empty" if default == "" else json.dumps(default).strip('"')), path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_string_list_and_map_has_a_maximum(kind: Kind) -> None:
    for path, node in fields(kind):
        if node["type"] == "string" and "enum" not in node and node.get("format") != "date-time":
            assert "maxLength" in node, path
        if node["type"] == "array":
            assert "maxItems" in node, path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path


@pytest.mark.parametrize("kind", (EXPERT, EXPERT_POOL), ids=lambda kind: kind.name)
def test_every_number_that_a_user_sets_has_both_bounds(kind: Kind) -> None:
    for path, node in fields(kind, "spec"):
        if node["type"] in ("integer", "number"):
            assert "enum" in node or {"minimum", "maximum"} <= set(node), path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_status_has_no_defaults(kind: Kind) -> None:
    assert [path for path, node in fields(kind, "status") if "default" in node] == []


def test_the_largest_expert_that_is_accepted_stays_far_below_what_etcd_takes() -> None:
    assert largest(object_schema(EXPERT)["properties"]["spec"]) < 100_000


def largest(schema: Schema) -> int:
    """Bytes of the largest JSON that a schema accepts, one byte a character."""
    if "properties" in schema:
        return 2 + sum(len(name) + 4 + largest(child) for name, child in schema["properties"].items())
    if schema["type"] == "array":
        return 2 + int(schema["maxItems"]) * (1 + largest(schema["items"]))
    if "enum" in schema:
        return 2 + max(len(value) for value in schema["enum"])
    return 2 + int(schema.get("maxLength", 25))


def test_every_rule_has_a_message_that_says_what_to_do() -> None:
    for kind in KINDS:
        for path, node in nodes(object_schema(kind)):
            for rule in node.get("x-kubernetes-validations", []):
                assert {"rule", "message"} <= set(rule), path
                assert any(mark in rule["message"] for mark in (": ", "instead")), rule["message"]


def test_nested_defaults_are_written_out_so_that_rules_on_them_always_apply() -> None:
    evaluation = object_schema(EXPERT_POOL)["properties"]["spec"]["properties"]["evaluation"]
    assert evaluation["default"] == {
        "holdout": 0.1,
        "salt": "moe",
        "segmentBytes": 256,
        "evaluators": [],
        "schedule": "newWindow",
    }
    training = object_schema(EXPERT)["properties"]["spec"]["properties"]["training"]
    assert training["default"]["resources"] == {
        "profile": "cpu",
        "nodes": 1,
        "devicesPerNode": 1,
        "expertParallelism": 1,
    }


def test_conditions_merge_by_type() -> None:
    for kind in KINDS:
        conditions = object_schema(kind)["properties"]["status"]["properties"]["conditions"]
        assert conditions["x-kubernetes-list-type"] == "map"
        assert conditions["x-kubernetes-list-map-keys"] == ["type"]
        assert "type" in conditions["items"]["required"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_columns_scale_and_selectable_fields_point_at_fields_that_exist(kind: Kind) -> None:
    version = custom_resource_definition(kind)["spec"]["versions"][0]
    known = {path for path, _ in nodes(version["schema"]["openAPIV3Schema"])} | {
        ".metadata.creationTimestamp"
    }
    paths = [column["jsonPath"] for column in version["additionalPrinterColumns"]]
    paths += [field["jsonPath"] for field in version.get("selectableFields", [])]
    paths += version["subresources"].get("scale", {}).values()
    for path in paths:
        plain, _, members = path.split("[?")[0].partition("['")
        # A union of fields shows the one that is there.
        for each in members.removesuffix("']").split("','") if members else [""]:
            assert (f"{plain}.{each}" if each else plain) in known, f"{kind.name}: {path}"


def test_an_expert_shows_the_columns_that_people_look_for() -> None:
    shown = [column.name for column in EXPERT.columns if not column.wide]
    assert shown == [
        "Domain", "Pool", "Phase", "Ready", "Progress", "ETA", "Score", "Targets", "Reason", "Age",
    ]  # fmt: skip


def schema_of(annotation: Any, **field: Any) -> Schema:
    """The schema of one field `x` of a model."""
    model = type("Model", (BaseModel,), {"__annotations__": {"x": annotation}, "x": Field(**field)})
    return structural_schema(model)["properties"]["x"]


def test_an_optional_field_is_the_field_without_null() -> None:
    assert schema_of(int | None, default=None) == {"type": "integer"}


def test_a_reference_is_put_in_place_and_the_description_beside_it_wins() -> None:
    class Inner(BaseModel):
        """The inner model."""

        y: bool

    assert schema_of(Inner, description="Mine.") == {
        "type": "object",
        "description": "Mine.",
        "required": ["y"],
        "properties": {"y": {"type": "boolean"}},
    }


def test_rules_of_a_model_and_of_the_field_that_holds_it_add_up() -> None:
    class Inner(BaseModel):
        """The inner model."""

        model_config = ConfigDict(json_schema_extra=cel(("has(self.y)", "of the model")))
        y: bool

    rules = schema_of(Inner, json_schema_extra=cel(("self.y", "of the field")))["x-kubernetes-validations"]
    assert [rule["message"] for rule in rules] == ["of the model", "of the field"]


def test_exclusive_bounds_take_the_form_of_openapi_3_0() -> None:
    assert schema_of(float, gt=0.0, lt=1.0) == {
        "type": "number",
        "minimum": 0,
        "exclusiveMinimum": True,
        "maximum": 1,
        "exclusiveMaximum": True,
    }


@pytest.mark.parametrize(
    ("bounds", "rules"),
    [
        ({"ge": 0.5, "le": 1}, ["self >= 0.5"]),
        ({"gt": 0.5, "le": 1}, ["self >= 0.5"]),
        ({"ge": -1, "le": -0.5}, ["self <= -0.5"]),
        ({"ge": 0, "le": 0.5}, []),
        ({"ge": -0.5, "le": 2}, []),
        ({"gt": 0, "le": 1}, []),
    ],
)
def test_bounds_that_the_api_server_cuts_off_for_integers_are_rules_as_well(
    bounds: dict[str, float], rules: list[str]
) -> None:
    class Share(BaseModel):
        share: Annotated[float, Field(**bounds)]  # type: ignore[arg-type]

    schema = structural_schema(Share)["properties"]["share"]
    assert [rule["rule"] for rule in schema.get("x-kubernetes-validations", [])] == rules


def test_a_plain_default_is_told_at_the_end_of_the_description() -> None:
    class Inner(BaseModel):
        """The inner model."""

        share: float = Field(default=0.1, description="A share.")
        flag: bool = Field(default=False, description="A flag.")
        text: str = Field(default="", description="A text.")
        strategy: str = Field(default="A", description="A strategy. Default: A; B until it is there.")
        needed: str = Field(description="Needed.")

    class Outer(BaseModel):
        """The outer model."""

        inner: Inner = Field(description="All of it.")
        several: list[Inner] = Field(default_factory=list, description="Several.")

    told = with_defaults_told(structural_schema(Outer))["properties"]
    for properties in (told["inner"]["properties"], told["several"]["items"]["properties"]):
        assert {name: field["description"] for name, field in properties.items()} == {
            "share": "A share. Default: 0.1.",
            "flag": "A flag. Default: false.",
            "text": "A text. Default: empty.",
            "strategy": "A strategy. Default: A; B until it is there.",
            "needed": "Needed.",
        }
    assert told["inner"]["description"] == "All of it."


def test_a_literal_of_one_is_an_enum_of_one() -> None:
    assert schema_of(Literal["Full"]) == {"type": "string", "enum": ["Full"]}


def test_a_map_keeps_the_bounds_of_its_values() -> None:
    assert schema_of(dict[str, Annotated[str, Field(max_length=9)]], max_length=3) == {
        "type": "object",
        "maxProperties": 3,
        "additionalProperties": {"type": "string", "maxLength": 9},
    }


def test_a_union_is_refused_by_the_path_of_the_field() -> None:
    with pytest.raises(ValueError, match=r"Model\.x: a structural schema has no union of 2 types"):
        schema_of(int | str)


def test_a_keyword_that_kubernetes_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Model\.x: a structural schema has no 'multipleOf'"):
        schema_of(int, multiple_of=2)


def test_defaults_are_taken_out_at_every_depth() -> None:
    deep = {
        "type": "array",
        "items": {"type": "object", "properties": {"x": {"type": "string", "default": "a"}}},
    }
    assert without_defaults(deep)["items"]["properties"]["x"] == {"type": "string"}
