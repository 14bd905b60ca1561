"""The CRDs as YAML: those of crds/, and the chart's copies with its switches around them."""

from typing import Any

import yaml

from moe_operator.generate.crd import custom_resource_definitions

#: What every generated file says at its top.
MARK = "Generated from formats/moe_formats/resources by `make generate`. Do not edit."
HEADER = f"# {MARK}\n"


def crd_files() -> dict[str, str]:
    """Return path to text of every CRD, as `kubectl apply --server-side -f crds/` takes it."""
    return {
        f"crds/{plural}.yaml": HEADER + to_yaml(crd) for plural, crd in custom_resource_definitions().items()
    }


def chart_crd_files() -> dict[str, str]:
    """Return path to text of the chart's copies: installed by `crds.enabled`, spared by `crds.keep`."""
    folder = "charts/moe-operator/templates/crds"
    return {
        f"{folder}/{plural}.yaml": _template(crd) for plural, crd in custom_resource_definitions().items()
    }


def to_yaml(value: Any) -> str:
    """Return YAML in the order of the fields, lines of at most 110 characters."""
    return yaml.safe_dump(value, sort_keys=False, width=110, allow_unicode=True)


def _template(crd: dict[str, Any]) -> str:
    spec = to_yaml({"spec": crd["spec"]})
    if "{{" in spec:
        raise ValueError(
            f"{crd['metadata']['name']}: '{{{{' in a description would be read as a template by helm"
        )
    return (
        "{{- if .Values.crds.enabled }}\n"
        + HEADER
        + f"apiVersion: {crd['apiVersion']}\nkind: {crd['kind']}\n"
        + f"metadata:\n  name: {crd['metadata']['name']}\n"
        + '  labels:\n    {{- include "moe-operator.labels" . | nindent 4 }}\n'
        + "  {{- if .Values.crds.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{- end }}\n"
        + spec
        + "{{- end }}\n"
    )
