"""The hosts file of each pod: what DNS would answer in a cluster.

A Service's name stands for the addresses of its ready pods, headless or not. For a Service with a cluster address this
is right where its port equals its target port (nothing translates ports here). The pods of a Service come in an order
of each reader's own, so that readers which take the first address spread over them. A pod with a hostname and a
subdomain also has its own name under the headless Service of that subdomain. ExternalName Services have no name here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

DOMAIN = "cluster.local"


@dataclass(frozen=True)
class Service:
    """What the hosts files need of a Service."""

    namespace: str
    name: str
    selector: Mapping[str, str]
    publish_not_ready: bool = False

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Service:
        """From the object of the API."""
        spec = body.get("spec") or {}
        return cls(
            body["metadata"]["namespace"],
            body["metadata"]["name"],
            dict(spec.get("selector") or {}),
            bool(spec.get("publishNotReadyAddresses")),
        )

    def selects(self, member: Member) -> bool:
        """Whether a pod is behind it; a Service without selector has no pods."""
        same_place = member.namespace == self.namespace
        return bool(self.selector) and same_place and self.selector.items() <= dict(member.labels).items()


@dataclass(frozen=True)
class Member:
    """A pod with an address, as the others see it."""

    uid: str
    namespace: str
    hostname: str
    subdomain: str
    address: str
    labels: Mapping[str, str]
    ready: bool


Names = dict[str, list[str]]
"""Name -> addresses."""


def cluster_names(services: Iterable[Service], members: Iterable[Member], *, reader: Member) -> Names:
    """Every name that the reader can look up, from `svc` and `host.svc` to `host.svc.namespace.svc.cluster.local`."""
    everyone = list(members)
    names: Names = {}
    for service in services:
        behind = [m for m in everyone if service.selects(m) and (m.ready or service.publish_not_ready)]
        behind.sort(key=lambda member: _order(reader, member))
        if behind:
            _add(names, service.name, service.namespace, reader, [m.address for m in behind])
        for member in behind:
            if member.subdomain == service.name:
                _add(names, f"{member.hostname}.{service.name}", service.namespace, reader, [member.address])
    return names


def _add(names: Names, short: str, namespace: str, reader: Member, addresses: list[str]) -> None:
    forms = [f"{short}.{namespace}", f"{short}.{namespace}.svc", f"{short}.{namespace}.svc.{DOMAIN}"]
    if namespace == reader.namespace:
        forms.insert(0, short)
    for form in forms:
        names[form] = addresses


def _order(reader: Member, member: Member) -> bytes:
    return hashlib.sha256(f"{reader.uid} {member.uid}".encode()).digest()


def hosts_file(reader: Member, names: Names, *, api_host: str) -> str:
    """The text of /etc/hosts for one pod; one line for each pair of address and name, in a settled order."""
    own = f"{reader.hostname}.{reader.subdomain}.{reader.namespace}.svc.{DOMAIN}" if reader.subdomain else ""
    lines = [
        "# Kept by the node agent: pods and Services of the cluster.",
        "127.0.0.1 localhost",
        "::1 localhost ip6-localhost ip6-loopback",
        f"{reader.address} {own} {reader.hostname}".replace("  ", " "),
        f"{api_host} kubernetes.default.svc.{DOMAIN} kubernetes.default.svc kubernetes.default kubernetes",
    ]
    lines += [f"{address} {name}" for name, addresses in sorted(names.items()) for address in addresses]
    return "\n".join(lines) + "\n"


class Addresses:
    """Hands each pod an address of the pod network; one that was given back rests until all others had a turn."""

    def __init__(self, network: IPv4Network) -> None:
        self._first = int(network.network_address) + 2
        self._last = int(network.broadcast_address) - 1
        self._next = self._first
        self._used: set[int] = set()

    def claim(self, address: str) -> bool:
        """Take one that a pod had before; False if it is not free or not of this network."""
        number = int(IPv4Address(address))
        if number in self._used or not self._first <= number <= self._last:
            return False
        self._used.add(number)
        self._next = max(self._next, number + 1)
        return True

    def take(self) -> str:
        """A free address. Raises RuntimeError when there is none."""
        size = self._last - self._first + 1
        for step in range(size):
            number = self._first + (self._next - self._first + step) % size
            if number not in self._used:
                self._used.add(number)
                self._next = number + 1
                return str(IPv4Address(number))
        raise RuntimeError(f"all {size} addresses of the pod network are in use")

    def give_back(self, address: str) -> None:
        """The pod is gone."""
        self._used.discard(int(IPv4Address(address)))
