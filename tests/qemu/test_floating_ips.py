"""Real guests behind a router: reached from the machine under a floating IP, also while they or the router move."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import cumulet.testing
from cumulet.drivers.qemu.facts import QemuFacts
from cumulet.host.driver import Image
from cumulet.testing import Client, TestCloud
from tests.api.servers import host_of, last_migration, other
from tests.linux_network.lab import problem
from tests.linux_network.stacks import Stack, pings
from tests.qemu.test_networks import boot, console

MACHINE = "172.24.4.1"
pytestmark = [pytest.mark.qemu, pytest.mark.skipif(problem() is not None, reason=problem() or "")]


@pytest.fixture
def machine(facts: QemuFacts, image: Image) -> Iterator[Stack]:
    """What the cloud takes for the machine: it is started in there."""
    del facts, image
    made = Stack("machine")
    yield made
    made.remove()


def routed_network(member: Client, public: str) -> tuple[str, str]:
    """A network behind a router; both ids."""
    network = member.request("POST", "/network/v2.0/networks", {"network": {}})["network"]["id"]
    subnet = {"network_id": network, "cidr": "10.8.0.0/24", "ip_version": 4}
    made = member.request("POST", "/network/v2.0/subnets", {"subnet": subnet})["subnet"]["id"]
    wanted = {"router": {"external_gateway_info": {"network_id": public}}}
    router = member.request("POST", "/network/v2.0/routers", wanted)["router"]["id"]
    path = f"/network/v2.0/routers/{router}/add_router_interface"
    assert member.request("PUT", path, {"subnet_id": made}).status == 200
    return network, router


def let_pings_in(member: Client) -> None:
    groups = member.request("GET", "/network/v2.0/security-groups?name=default")["security_groups"]
    rule = {"security_group_id": groups[0]["id"], "direction": "ingress", "ethertype": "IPv4", "protocol": "icmp"}
    assert member.request("POST", "/network/v2.0/security-group-rules", {"security_group_rule": rule}).status == 201


def test_a_floating_ip_is_reached_from_the_machine_through_moves_of_its_guest_and_of_its_router(machine: Stack) -> None:
    machine.run_in(story, seconds=300.0)


def story() -> None:
    with cumulet.testing.cloud(hosts=2, driver="qemu", machine_on_public=True) as cloud:
        assert cloud.embedded.reach is not None
        assert "172.24.4.1/24 on `public`" in cloud.embedded.reach
        admin, member = cloud.persona("admin"), cloud.persona("member")
        public = member.request("GET", "/network/v2.0/networks?name=public")["networks"][0]["id"]
        let_pings_in(member)
        network, _ = routed_network(member, public)
        server, address = boot(member, network, "tick_ms=0\n")
        member.wait("its address", lambda: f"eth0 has {address}" in console(member, server), seconds=60)
        (port,) = member.request("GET", f"/network/v2.0/ports?device_id={server}")["ports"]
        wanted = {"floatingip": {"floating_network_id": public, "port_id": port["id"]}}
        floating = member.request("POST", "/network/v2.0/floatingips", wanted)["floatingip"]
        outside = floating["floating_ip_address"]
        member.wait("a ping", lambda: pings(outside), seconds=30)
        is_explained_and_counted(cloud, admin, server, outside)
        moves(cloud, admin, member, server, outside)
        assert member.request("DELETE", f"/network/v2.0/floatingips/{floating['id']}").status == 204
        member.wait("its end", lambda: not pings(outside), seconds=30)
        assert cloud.network.reachable(MACHINE, outside, "icmp").reason == "address-of-nobody"
        assert member.compute("DELETE", f"/servers/{server}").status == 204


def is_explained_and_counted(cloud: TestCloud, admin: Client, server: str, outside: str) -> None:
    """What is said of the packets that come, and of others; and what hosts have counted of them."""
    assert cloud.network.reachable(MACHINE, outside, "icmp")
    assert cloud.network.reachable(MACHINE, outside, "tcp", 22).reason == "no-rule-ingress"
    (nic,) = admin.compute("GET", f"/servers/{server}/diagnostics")["nic_details"]
    assert nic["rx_packets"] > 0
    assert nic["tx_octets"] > 0
    counted = admin.request("GET", "/metrics").text
    for host in cloud.hosts:
        assert f'cumulet_dropped_packets_total{{cause="spoofed_mac",host="{host}"}}' in counted


def moves(cloud: TestCloud, admin: Client, member: Client, server: str, outside: str) -> None:
    destination = other(host_of(admin, server))
    move = {"os-migrateLive": {"block_migration": "auto", "host": destination}}
    assert admin.action(server, move).status == 202
    admin.wait("the move", lambda: last_migration(admin, server)["status"] == "completed", seconds=120)
    assert pings(outside)
    for host in cloud.hosts:
        # A host out of service has no router; the other has all of them.
        services = admin.compute("GET", f"/os-services?host={host}&binary=nova-compute")["services"]
        path = f"/os-services/{services[0]['id']}"
        assert admin.compute("PUT", path, {"status": "disabled"}).status == 200
        admin.wait("it has none", lambda host=host: routers_of(cloud, host) == 0, seconds=30)  # type: ignore[misc]
        member.wait("a ping", lambda: pings(outside), seconds=30)
        assert admin.compute("PUT", path, {"status": "enabled"}).status == 200


def routers_of(cloud: TestCloud, host: str) -> int:
    """How many routers' namespaces a host has."""
    listed = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout.split()
    (namespace,) = (name for name in listed if name.endswith(f"-{host}") and name in names_of(cloud))
    inode = (Path("/run/netns") / namespace).stat().st_ino
    return len(list(Path("/run/netns").glob(f"cmr-{inode}-*")))


def names_of(cloud: TestCloud) -> set[str]:
    agents = cloud.embedded._agents
    assert agents is not None
    return {place.network_namespace for place in agents.places if place.network_namespace is not None}
