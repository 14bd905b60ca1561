"""The hosts file of each pod, which replaces the DNS of a cluster.

A Service's name resolves to the addresses of its ready pods, whether it is headless or not. For a Service with a
cluster address this is right if its port equals its target port (nothing translates ports here). Each reader gets the
pods of a Service in an order of its own, so readers that take the first address are spread over the pods. A pod with a
hostname and a subdomain also has its own name under the headless Service of that subdomain. ExternalName Services
have no name here.
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
    """The part of a Service that the hosts files need."""

    namespace: str
    name: str
    selector: Mapping[str, str]
    publish_not_ready: bool = False

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Service:
        """Parse an object of the API."""
        spec = body.get("spec") or {}
        return cls(
            body["metadata"]["namespace"],
            body["metadata"]["name"],
            dict(spec.get("selector") or {}),
            bool(spec.get("publishNotReadyAddresses")),
        )

    def selects(self, member: Member) -> bool:
        """Return whether a pod belongs to it; a Service without selector has no pods."""
        same_place = member.namespace == self.namespace
        return bool(self.selector) and same_place and self.selector.items() <= dict(member.labels).items()


@dataclass(frozen=True)
class Member:
    """A pod with an address, as other pods see it."""

    uid: str
    namespace: str
    hostname: str
    subdomain: str
    address: str
    labels: Mapping[str, str]
    ready: bool


Names = dict[str, list[str]]
"""Addresses by name."""


def cluster_names(services: Iterable[Service], members: Iterable[Member], *, reader: Member) -> Names:
    """Return every name that the reader can look up, from `svc` and `host.svc` to `host.svc.namespace.svc.cluster.local`."""
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
    """Return the text of /etc/hosts for one pod: one line per pair of address and name, in a fixed order."""
    own = f"{reader.hostname}.{reader.subdomain}.{reader.namespace}.svc.{DOMAIN}" if reader.subdomain else ""
    lines = [
        "# Written by the node agent: pods and Services of the cluster.",
        "127.0.0.1 localhost",
        "::1 localhost ip6-localhost ip6-loopback",
        f"{reader.address} {own} {reader.hostname}".replace("  ", " "),
        f"{api_host} kubernetes.default.svc.{DOMAIN} kubernetes.default.svc kubernetes.default kubernetes",
    ]
    lines += [f"{address} {name}" for name, addresses in sorted(names.items()) for address in addresses]
    return "\n".join(lines) + "\n"


class Addresses:
    """Gives each pod an address of the pod network; a released address is reused only after all others."""

    def __init__(self, network: IPv4Network) -> None:
        self._first = int(network.network_address) + 2
        self._last = int(network.broadcast_address) - 1
        self._next = self._first
        self._used: set[int] = set()

    def claim(self, address: str) -> bool:
        """Take an address that a pod had before; return False if it is not free or not in this network."""
        number = int(IPv4Address(address))
        if number in self._used or not self._first <= number <= self._last:
            return False
        self._used.add(number)
        self._next = max(self._next, number + 1)
        return True

    def take(self) -> str:
        """Take a free address and return it. Raises RuntimeError if there is none."""
        size = self._last - self._first + 1
        for step in range(size):
            number = self._first + (self._next - self._first + step) % size
            if number not in self._used:
                self._used.add(number)
                self._next = number + 1
                return str(IPv4Address(number))
        raise RuntimeError(f"all {size} addresses of the pod network are in use")

    def give_back(self, address: str) -> None:
        """Release the address of a pod that is gone."""
        self._used.discard(int(IPv4Address(address)))
