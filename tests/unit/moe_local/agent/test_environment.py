from __future__ import annotations

from typing import Any

import pytest

from moe_local.agent import environment
from moe_local.agent.environment import ConfigurationError, Facts, expand, rewrite

SOURCES: environment.Sources = {
    ("configmaps", "settings"): {"colour": b"red", "not a name": b"x", "size": b"2"},
    ("secrets", "keys"): {"token": b"s3cret"},
    ("configmaps", "gone"): None,
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)/b", "1/b"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A ${A} $", "$A ${A} $"),
        ("$(A", "$(A"),
    ],
)
def test_variables_expand_as_the_kubelet_expands_them(text: str, expected: str) -> None:
    assert expand(text, {"A": "1"}) == expected


def resolve(make_pod: Any, facts: Facts, *env: dict[str, Any], **container: Any) -> dict[str, str]:
    pod = make_pod(
        metadata={"labels": {"app": "x"}, "annotations": {"a/b": 'say "hi"'}},
        containers=[{"name": "main", "env": list(env), **container}],
    )
    return environment.resolve(pod, pod.spec.containers[0], facts, SOURCES)


def test_values_come_from_objects_fields_and_resources(make_pod: Any, facts: Facts) -> None:
    found = resolve(
        make_pod,
        facts,
        {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu"}}},
        {"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Gi"}}},
        {"name": "URL", "value": "http://$(IP)/$(COLOUR)"},
        resources={"requests": {"cpu": "1500m"}},
    )
    assert found["URL"] == "http://127.77.0.9/red"
    assert found["TOKEN"] == "s3cret"
    assert found["APP"] == "x"
    assert (found["CPUS"], found["LIMIT"]) == ("2", "16")
    assert found["KUBERNETES_SERVICE_PORT"] == "6443"


def test_every_key_that_can_be_a_variable_comes_from_an_object(make_pod: Any, facts: Facts) -> None:
    found = resolve(make_pod, facts, envFrom=[{"prefix": "S_", "configMapRef": {"name": "settings"}}])
    assert (found["S_colour"], found["S_size"]) == ("red", "2")
    assert "S_not a name" not in found


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"configMapKeyRef": {"name": "gone", "key": "x"}}, 'configmap "gone" not found'),
        ({"configMapKeyRef": {"name": "settings", "key": "x"}}, 'find key "x" in configmap team/settings'),
        ({"fieldRef": {"fieldPath": "spec.nope"}}, "fieldPath spec.nope cannot be referred to"),
    ],
)
def test_what_does_not_exist_is_named(
    make_pod: Any, facts: Facts, reference: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        resolve(make_pod, facts, {"name": "X", "valueFrom": reference})


def test_an_optional_reference_leaves_the_variable_out(make_pod: Any, facts: Facts) -> None:
    optional = {"configMapKeyRef": {"name": "gone", "key": "x", "optional": True}}
    assert "X" not in resolve(make_pod, facts, {"name": "X", "valueFrom": optional})


def test_the_environments_programs_come_first_unless_the_pod_sets_path() -> None:
    assert environment.complete({}, image_bin="/env/bin", home="/tmp")["PATH"].startswith("/env/bin:")
    assert environment.complete({"PATH": "/x"}, image_bin="/env/bin", home="/tmp")["PATH"] == "/x"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/moe/store", "/real/store"),
        ("/moe/store/a/b", "/real/store/a/b"),
        ("/moe/store/deep/x", "/real/deep/x"),
        ("/moe/storeroom", "/moe/storeroom"),
        ("http://web.team:8080/v1", "http://127.77.0.3:8080/v1"),
        ("web,other", "127.77.0.3,other"),
        ("cobweb:80", "cobweb:80"),
        ("web.example.org", "web.example.org"),
    ],
)
def test_paths_and_peers_are_rewritten_where_pods_are_not_isolated(value: str, expected: str) -> None:
    folders = {"/moe/store": "/real/store", "/moe/store/deep": "/real/deep"}
    peers = {"web": "127.77.0.3", "web.team": "127.77.0.3"}
    assert rewrite(value, folders, peers) == expected


def test_a_container_without_a_command_is_told_what_it_lacks(make_pod: Any) -> None:
    pod = make_pod(containers=[{"name": "main"}])
    with pytest.raises(ConfigurationError, match='"main" has no command'):
        environment.command(pod.spec.containers[0], {})
