"""Resolves a container's environment, command and fields as the kubelet does. Pure: objects in, text out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from moe_local.agent import quantity
from moe_local.agent.pod import (
    Container,
    EnvironmentSource,
    FieldSelector,
    KeySelector,
    Pod,
    ResourceSelector,
)

Kind = Literal["configmaps", "secrets"]
Reference = tuple[Kind, str]
"""A ConfigMap or Secret in the pod's namespace, by collection and name."""
Sources = Mapping[Reference, Mapping[str, bytes] | None]
"""The data of every object that was looked up; None if it does not exist."""

_VARIABLE = re.compile(r"\$(?:\$|\(([^)]+)\))")
_MAP_KEY = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")
_ENV_NAME = re.compile(r"[^\x00-\x20=\x7f]+")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ConfigurationError(Exception):
    """The pod refers to something that does not exist or is invalid; starting is tried again later."""


@dataclass(frozen=True)
class Facts:
    """What only the node knows about a pod."""

    address: str
    node_address: str
    api_host: str
    api_port: int
    capacity: Mapping[str, str]


def references(container: Container) -> set[Reference]:
    """Return the ConfigMaps and Secrets that a container's environment needs."""
    found: set[Reference] = set()
    for variable in container.env:
        origin = variable.value_from
        if origin and origin.config_map_key_ref:
            found.add(("configmaps", origin.config_map_key_ref.name))
        if origin and origin.secret_key_ref:
            found.add(("secrets", origin.secret_key_ref.name))
    for group in container.env_from:
        if group.config_map_ref:
            found.add(("configmaps", group.config_map_ref.name))
        if group.secret_ref:
            found.add(("secrets", group.secret_ref.name))
    return found


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace $(NAME) if NAME is defined; $$ becomes a plain $."""

    def replacement(found: re.Match[str]) -> str:
        name = found.group(1)
        return "$" if name is None else variables.get(name, found.group(0))

    return _VARIABLE.sub(replacement, text)


def resolve(pod: Pod, container: Container, facts: Facts, sources: Sources) -> dict[str, str]:
    """Return the variables of the pod's spec, in its order; later ones win. Raises ConfigurationError."""
    base = {
        "KUBERNETES_SERVICE_HOST": facts.api_host,
        "KUBERNETES_SERVICE_PORT": str(facts.api_port),
        "KUBERNETES_SERVICE_PORT_HTTPS": str(facts.api_port),
    }
    variables = {**base, "HOSTNAME": pod.hostname, **_from_objects(pod, container, sources)}
    for variable in container.env:
        if variable.value_from is None:
            variables[variable.name] = expand(variable.value, variables)
            continue
        value = _from_source(pod, container, facts, sources, variable.value_from)
        if value is not None:
            variables[variable.name] = value
    return variables


def _from_objects(pod: Pod, container: Container, sources: Sources) -> dict[str, str]:
    """Return every key of the objects that `envFrom` names."""
    found: dict[str, str] = {}
    for group in container.env_from:
        for kind, reference in (("configmaps", group.config_map_ref), ("secrets", group.secret_ref)):
            if reference is None:
                continue
            data = sources.get((kind, reference.name))  # type: ignore[arg-type]
            if data is None and not reference.optional:
                raise ConfigurationError(_missing(kind, reference.name, pod))
            for key, value in (data or {}).items():
                if _ENV_NAME.fullmatch(group.prefix + key):
                    found[group.prefix + key] = value.decode(errors="surrogateescape")
    return found


def _from_source(
    pod: Pod, container: Container, facts: Facts, sources: Sources, origin: EnvironmentSource
) -> str | None:
    """Return the value of one `valueFrom`; None for an optional one that does not exist."""
    if origin.config_map_key_ref:
        return _key(pod, "configmaps", origin.config_map_key_ref, sources)
    if origin.secret_key_ref:
        return _key(pod, "secrets", origin.secret_key_ref, sources)
    if origin.field_ref:
        return field(pod, origin.field_ref, facts)
    if origin.resource_field_ref:
        return resource(pod, origin.resource_field_ref, facts, default_container=container.name)
    raise ConfigurationError(
        "an environment variable has a kind of valueFrom that this node does not support"
    )


def _key(pod: Pod, kind: Kind, reference: KeySelector, sources: Sources) -> str | None:
    data = sources.get((kind, reference.name))
    if data is not None and reference.key in data:
        return data[reference.key].decode(errors="surrogateescape")
    if reference.optional:
        return None
    if data is None:
        raise ConfigurationError(_missing(kind, reference.name, pod))
    singular = kind.removesuffix("s")
    raise ConfigurationError(
        f'couldn\'t find key "{reference.key}" in {singular} {pod.metadata.namespace}/{reference.name}'
    )


def _missing(kind: str, name: str, pod: Pod) -> str:
    return f'{kind.removesuffix("s")} "{name}" not found in namespace "{pod.metadata.namespace}"'


def field(pod: Pod, selector: FieldSelector, facts: Facts) -> str:
    """Return a field of the pod as text. Raises ConfigurationError for one that cannot be referred to."""
    path = selector.field_path
    by_key = _MAP_KEY.fullmatch(path)
    if by_key:
        values: Mapping[str, str] = getattr(pod.metadata, by_key.group(1))
        return values.get(by_key.group(2), "")
    if path in ("metadata.labels", "metadata.annotations"):
        values = getattr(pod.metadata, path.partition(".")[2])
        return "\n".join(f"{key}={_quoted(value)}" for key, value in sorted(values.items()))
    known = {
        "metadata.name": pod.metadata.name,
        "metadata.namespace": pod.metadata.namespace,
        "metadata.uid": pod.metadata.uid,
        "spec.nodeName": pod.spec.node_name,
        "spec.serviceAccountName": pod.spec.service_account_name,
        "status.podIP": facts.address,
        "status.podIPs": facts.address,
        "status.hostIP": facts.node_address,
        "status.hostIPs": facts.node_address,
    }
    if path not in known:
        raise ConfigurationError(
            f"fieldPath {path} cannot be referred to: use one of {', '.join(sorted(known))}"
        )
    return known[path]


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def resource(pod: Pod, selector: ResourceSelector, facts: Facts, *, default_container: str = "") -> str:
    """Return a request or limit in units of the divisor; a limit that is not set is the node's capacity."""
    name = selector.container_name or default_container
    container = next((c for c in pod.all_containers() if c.name == name), None)
    if container is None:
        raise ConfigurationError(f'resourceFieldRef names container "{name}", which the pod does not have')
    kind, _, wanted = selector.resource.partition(".")
    values = container.resources.limits if kind == "limits" else container.resources.requested()
    text = values.get(wanted) or (facts.capacity.get(wanted, "0") if kind == "limits" else "0")
    divisor = selector.divisor if selector.divisor != "0" else "1"
    return str(quantity.in_units_of(text, divisor))


def command(container: Container, variables: Mapping[str, str]) -> list[str]:
    """Return command and arguments. Raises ConfigurationError if the pod leaves the command to the image."""
    if not container.command:
        raise ConfigurationError(
            f'container "{container.name}" has no command: images on this node have no entry point, so set the command'
        )
    return [expand(part, variables) for part in container.command + container.args]


def complete(variables: Mapping[str, str], *, image_bin: str, home: str) -> dict[str, str]:
    """Add what an image would set: PATH (with the environment's programs first), HOME, LANG, TMPDIR."""
    defaults = {"PATH": f"{image_bin}:{SYSTEM_PATH}", "HOME": home, "LANG": "C.UTF-8", "TMPDIR": home}
    return {**defaults, **variables}


def rewrite(value: str, folders: Mapping[str, str], peers: Mapping[str, str]) -> str:
    """If pods are not isolated, replace a path of the pod by the real one, and a name by its address.

    A value counts as a path if it is one of the pod's mounts or is below one; the deepest mount wins.
    """
    for target in sorted(folders, key=len, reverse=True):
        if value == target or value.startswith(target.rstrip("/") + "/"):
            return folders[target] + value[len(target.rstrip("/")) :]
    if not peers:
        return value
    names = "|".join(re.escape(name) for name in sorted(peers, key=len, reverse=True))
    return re.sub(rf"(?<![\w.-])(?:{names})(?=$|[:/,\s])", lambda found: peers[found.group(0)], value)
