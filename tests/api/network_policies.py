"""Who may connect to whom under a set of NetworkPolicies, by the rules of their documentation in Kubernetes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

Policy = Mapping[str, Any]


@dataclass(frozen=True)
class Endpoint:
    """A pod, or with ``namespace`` None an address outside the cluster."""

    namespace: str | None
    labels: Mapping[str, str] = field(default_factory=dict)
    #: Container ports by name.
    ports: Mapping[str, int] = field(default_factory=dict)
    address: str = "10.0.0.1"


def may_connect(
    policies: Sequence[Policy], source: Endpoint, target: Endpoint, port: int, protocol: str = "TCP"
) -> bool:
    """Return whether both sides allow a connection. A side that no policy selects allows everything."""
    return _side_allows(policies, "Egress", source, target, target, port, protocol) and _side_allows(
        policies, "Ingress", target, source, target, port, protocol
    )


def _side_allows(
    policies: Sequence[Policy],
    side: str,
    own: Endpoint,
    peer: Endpoint,
    target: Endpoint,
    port: int,
    protocol: str,
) -> bool:
    selected = [item for item in policies if _selects(item, own) and side in item["spec"]["policyTypes"]]
    if not selected:
        return True
    peers = {"Ingress": "from", "Egress": "to"}[side]
    return any(
        _matches_port(rule.get("ports"), target, port, protocol)
        and _matches_peer(rule.get(peers), policy["metadata"]["namespace"], peer)
        for policy in selected
        for rule in policy["spec"].get(side.lower()) or ()
    )


def _selects(policy: Policy, pod: Endpoint) -> bool:
    return policy["metadata"]["namespace"] == pod.namespace and _has_labels(
        policy["spec"]["podSelector"], pod.labels
    )


def _matches_port(
    rules: Sequence[Mapping[str, Any]] | None, target: Endpoint, port: int, protocol: str
) -> bool:
    """Return whether one of the rules names the port, by number or by its name in the target; no rules name all."""
    if not rules:
        return True
    return any(
        rule.get("protocol", "TCP") == protocol
        and (target.ports.get(rule["port"]) if isinstance(rule["port"], str) else rule["port"]) == port
        for rule in rules
    )


def _matches_peer(rules: Sequence[Mapping[str, Any]] | None, namespace: str, peer: Endpoint) -> bool:
    """Return whether one of the rules means the peer; no rules mean everybody."""
    return not rules or any(_is_peer(rule, namespace, peer) for rule in rules)


def _is_peer(rule: Mapping[str, Any], namespace: str, peer: Endpoint) -> bool:
    if "ipBlock" in rule:
        block = rule["ipBlock"]
        address = ip_address(peer.address)
        return address in ip_network(block["cidr"]) and not any(
            address in ip_network(part) for part in block.get("except", ())
        )
    if peer.namespace is None:
        return False
    if "namespaceSelector" in rule:
        there = _has_labels(rule["namespaceSelector"], {"kubernetes.io/metadata.name": peer.namespace})
    else:
        there = peer.namespace == namespace
    return there and _has_labels(rule.get("podSelector", {}), peer.labels)


def _has_labels(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}, f"{selector}: these tests understand matchLabels only"
    return all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())
