from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from moe_local.agent.names import Addresses, Member, Service, cluster_names, hosts_file


def member(
    name: str, address: str, *, ready: bool = True, namespace: str = "team", subdomain: str = ""
) -> Member:
    return Member(f"uid-{name}", namespace, name, subdomain, address, {"app": "web"}, ready)


def service(name: str = "web", *, namespace: str = "team", publish: bool = False) -> Service:
    return Service(namespace, name, {"app": "web"}, publish)


def test_a_service_is_its_ready_pods_under_every_form_of_its_name() -> None:
    members = [member("a", "127.0.0.2"), member("b", "127.0.0.3", ready=False)]
    names = cluster_names([service()], members, reader=members[0])
    assert set(names) == {"web", "web.team", "web.team.svc", "web.team.svc.cluster.local"}
    assert all(found == ["127.0.0.2"] for found in names.values())


def test_a_service_with_a_cluster_address_is_its_ready_pods_too() -> None:
    """As a gateway's is. Nothing routes to cluster addresses here."""
    spec = {
        "clusterIP": "10.96.0.7",
        "selector": {"app": "web"},
        "ports": [{"port": 8080, "targetPort": 8080}],
    }
    item = {"metadata": {"name": "web", "namespace": "team"}, "spec": spec}
    members = [member("a", "127.0.0.2")]
    assert cluster_names([Service.parse(item)], members, reader=members[0])["web.team.svc"] == ["127.0.0.2"]


def test_the_short_name_means_the_readers_own_namespace() -> None:
    members = [member("a", "127.0.0.2")]
    names = cluster_names([service()], members, reader=member("x", "127.0.0.9", namespace="other"))
    assert "web" not in names
    assert names["web.team"] == ["127.0.0.2"]


def test_pods_have_names_of_their_own_under_their_headless_service() -> None:
    members = [member("rank-0", "127.0.0.2", subdomain="web", ready=False), member("b", "127.0.0.3")]
    names = cluster_names([service(publish=True)], members, reader=members[1])
    assert names["rank-0.web.team.svc.cluster.local"] == ["127.0.0.2"]
    assert names["rank-0.web"] == ["127.0.0.2"]
    assert "b.web" not in names
    assert "rank-0.web" not in cluster_names([service()], members, reader=members[1])


def test_a_service_without_selector_has_no_pods() -> None:
    lone = Service("default", "kubernetes", {})
    assert (
        cluster_names([lone], [member("a", "127.0.0.2", namespace="default")], reader=member("a", "x")) == {}
    )


def test_readers_spread_over_the_pods_of_a_service() -> None:
    members = [member(f"m{i}", f"127.0.0.{i}") for i in range(2, 6)]
    firsts = {cluster_names([service()], members, reader=member(f"r{i}", "x"))["web"][0] for i in range(50)}
    assert len(firsts) == 4


def test_a_hosts_file_has_the_pod_the_api_server_and_every_name() -> None:
    reader = member("rank-0", "127.0.0.2", subdomain="web")
    lines = hosts_file(reader, {"web": ["127.0.0.3", "127.0.0.4"]}, api_host="127.0.0.1").splitlines()
    assert "127.0.0.2 rank-0.web.team.svc.cluster.local rank-0" in lines
    assert lines[-2:] == ["127.0.0.3 web", "127.0.0.4 web"]
    assert any(line.startswith("127.0.0.1 kubernetes.default.svc") for line in lines)


def test_addresses_are_unique_and_one_given_back_rests() -> None:
    addresses = Addresses(IPv4Network("127.77.0.0/28"))
    taken = [addresses.take() for _ in range(13)]
    assert len(set(taken)) == 13
    assert taken[0] == "127.77.0.2"
    with pytest.raises(RuntimeError, match="all 13 addresses"):
        addresses.take()
    addresses.give_back("127.77.0.5")
    assert addresses.take() == "127.77.0.5"
    addresses.give_back("127.77.0.3")
    addresses.give_back("127.77.0.9")
    assert addresses.take() == "127.77.0.9"


def test_an_address_is_claimed_once() -> None:
    addresses = Addresses(IPv4Network("127.77.0.0/28"))
    assert addresses.claim("127.77.0.2")
    assert not addresses.claim("127.77.0.2")
    assert not addresses.claim("127.78.0.2")
    assert addresses.take() == "127.77.0.3"
