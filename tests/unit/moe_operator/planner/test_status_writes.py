"""A status stays small, whatever is in it: every field of its schema at its longest."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_operator.planner.status_writes import LARGEST, status_write

CRDS = Path(__file__).parents[4] / "crds"
#: Most letters in a key of a map: no name of a score, a reason or an Expert has more.
KEY = 40


def fullest(schema: dict[str, Any], where: str = "status") -> Any:
    """The longest value that a schema accepts."""
    match schema["type"]:
        case "object" if "properties" in schema:
            return {name: fullest(item, f"{where}.{name}") for name, item in schema["properties"].items()}
        case "object":
            entries = range(schema["maxProperties"])
            return {f"{number:0{KEY}}": fullest(schema["additionalProperties"], where) for number in entries}
        case "array":
            return [fullest(schema["items"], where) for _ in range(schema["maxItems"])]
        case "string" if "enum" in schema:
            return max(schema["enum"], key=len)
        case "string" if schema.get("format") == "date-time":
            return "2026-11-21T12:00:00.123456Z"
        case "string" if schema["maxLength"] == 71:
            return "sha256:" + 64 * "f"
        case "string":
            return schema["maxLength"] * "a"
        case "number":
            return 0.12345678901234568 if "minimum" in schema else -1.2345678901234567e-100
        case "integer":
            return 10**15
        case "boolean":
            return False
    raise AssertionError(f"{where}: {schema}")


def schema_of(plural: str) -> dict[str, Any]:
    crd = yaml.safe_load((CRDS / f"{plural}.yaml").read_text())
    schema: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    return schema


EXPERT = Expert.model_validate(
    {
        "metadata": {"name": "code", "namespace": "default", "uid": "u"},
        "spec": {
            "pool": "first-pool",
            "base": {"preset": "tiny"},
            "data": {"sources": [{"store": "corpora", "path": "a.txt"}]},
        },
    }
)
POOL = ExpertPool.model_validate(
    {"metadata": {"name": "first-pool", "uid": "u"}, "spec": {"storage": {"size": "1Gi"}}}
)


def size_of(fields: Any) -> int:
    return len(json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode())


@pytest.mark.parametrize(("target", "plural"), [(EXPERT, "experts"), (POOL, "expertpools")])
def test_a_status_with_every_field_at_its_longest_is_small_enough(target: Any, plural: str) -> None:
    filled = fullest(schema_of(plural))
    status = type(target.status).model_validate(filled)
    (write,) = status_write(target, status)
    assert size_of(filled) > size_of(write.status)
    assert size_of(write.status) <= LARGEST[type(target).__name__]
    stored = target.model_copy(update={"status": type(target.status).model_validate(write.status)})
    assert status_write(stored, status) == (), "what was shortened is not written again"


def test_only_texts_for_people_are_shortened() -> None:
    filled = fullest(schema_of("experts"))
    status = type(EXPERT.status).model_validate(filled)
    (write,) = status_write(EXPERT, status)
    assert write.status["snapshot"]["path"] == filled["snapshot"]["path"]
    assert write.status["selector"] == filled["selector"]
    assert write.status["refresh"]["request"] == filled["refresh"]["request"]
    assert {len(item["message"].encode()) for item in write.status["conditions"]} == {32}
    assert {len(text.encode()) for text in write.status["scores"]["absent"].values()} == {32}


def test_texts_are_shortened_no_further_than_needed() -> None:
    conditions = [
        {"type": f"Type{number}", "status": "True", "reason": "Ready", "message": 4096 * "ü"}
        for number in range(9)
    ]
    status = type(EXPERT.status).model_validate({"conditions": conditions})
    (write,) = status_write(EXPERT, status)
    messages = [item["message"] for item in write.status["conditions"]]
    assert messages == 9 * [1022 * "ü" + "…"]


def test_a_status_of_usual_size_is_written_as_it_is() -> None:
    message = 4000 * "a"
    condition = {"type": "Ready", "status": "True", "reason": "Ready", "message": message}
    status = type(EXPERT.status).model_validate({"conditions": [condition]})
    (write,) = status_write(EXPERT, status)
    assert write.status["conditions"][0]["message"] == message
