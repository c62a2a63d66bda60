"""Which host has a router, and what the hosts are told of it: read off the tables."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from cumulet.db.engine import Tx
from cumulet.host import wiring as w
from cumulet.network import port_life, routing, topology
from cumulet.network.addresses import FixedIp
from cumulet.network.forwarding_records import PortForwarding
from cumulet.network.metering_records import MeteringLabel, MeteringRule
from cumulet.network.router_hosts import host_of
from cumulet.network.store import FloatingIp, Network, Router, Subnet, change, find, insert, subnets
from cumulet.network.wiring import hosts_of_networks
from tests.network.one_wiring import wiring
from tests.network.test_wiring import HOSTS, OURS, Cloud, cloud

__all__ = ["cloud"]
NAMES = sorted(HOSTS)


def test_a_host_that_leaves_takes_only_its_own_routers_along_and_gets_them_back() -> None:
    routers = [f"router{number}" for number in range(300)]
    before = {router: host_of(router, tuple(NAMES)) for router in routers}
    assert {list(before.values()).count(host) > 60 for host in NAMES} == {True}
    without = {router: host_of(router, tuple(NAMES[1:])) for router in routers}
    assert {router for router in routers if before[router] != without[router]} == {
        router for router in routers if before[router] == NAMES[0]
    }
    assert host_of("router1", ()) is None
    assert host_of("router1", tuple(reversed(NAMES))) == before["router1"]


class Routed:
    """A network with a router whose gateway is outside."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.network = cloud.network("10.0.0.0/24")
        self.router, self.public = cloud.db.write(self._make)
        self.host = host_of(self.router.id, tuple(NAMES)) or ""
        self.others = [name for name in NAMES if name != self.host]

    def _make(self, tx: Tx) -> tuple[Router, Network]:
        clock = self.cloud.clock
        public = topology.add_network(
            tx,
            clock,
            project_id="",
            name="public",
            wire_mtu=1500,
            external=True,
            network_type="flat",
            physical_network="public",
        )
        topology.add_subnet(tx, clock, public, cidr=ip_network("172.24.4.0/24"), enable_dhcp=False)
        topology.add_subnet(tx, clock, public, cidr=ip_network("172.24.5.0/24"), enable_dhcp=False)
        router = routing.add_router(tx, clock, project_id=OURS)
        routing.set_gateway(tx, clock, router, public, fixed_ips=None, enable_snat=True)
        (subnet,) = find(tx, Subnet, subnets.c.network_id == self.network.id)
        routing.add_interface_by_subnet(tx, clock, router, subnet)
        return find(tx, Router)[0], public

    def of(self, host: str, router_hosts: list[str] = NAMES) -> w.Wiring:
        return self.cloud.db.read(lambda tx: wiring(tx, host, lambda _: HOSTS, lambda: router_hosts))


@pytest.fixture
def routed(cloud: Cloud) -> Routed:
    return Routed(cloud)


def test_its_host_has_all_of_a_router_and_the_other_hosts_know_where_it_is(routed: Routed) -> None:
    port = routed.cloud.plug(routed.network, routed.others[0])
    found = routed.of(routed.host)
    (router,) = found.routers
    (inside,) = router.interfaces
    assert (inside.network_id, inside.addresses) == (routed.network.id, ("10.0.0.1/24",))
    assert router.gateway is not None
    assert router.gateway.network_id == routed.public.id
    assert router.source_nat
    assert router.next_hops in (("172.24.4.1",), ("172.24.5.1",))
    assert len(router.on_link) == 1
    assert {network.id: network.physical for network in found.networks} == {
        routed.network.id: None,
        routed.public.id: "public",
    }
    (network,) = (network for network in found.networks if network.id == routed.network.id)
    assert network.remotes == (w.Remote(mac=port.mac_address, host_address=HOSTS[routed.others[0]]),)
    seen = routed.of(routed.others[0])
    assert seen.routers == ()
    assert seen.networks[0].remotes == (w.Remote(mac=inside.mac, host_address=HOSTS[routed.host]),)
    assert seen.networks[0].peers == (HOSTS[routed.host],)
    assert routed.of(routed.others[1]) == w.Wiring(host=routed.others[1])


@pytest.mark.parametrize("outside", ["172.24.4", "172.24.5"])
def test_a_router_sends_what_is_for_elsewhere_to_the_gateway_of_the_subnet_that_it_has_an_address_of(
    routed: Routed, outside: str
) -> None:
    wanted = [FixedIp(address=f"{outside}.99")]

    def move(tx: Tx) -> None:
        (router,) = find(tx, Router)
        routing.set_gateway(tx, routed.cloud.clock, router, routed.public, fixed_ips=wanted, enable_snat=True)

    routed.cloud.db.write(move)
    (router,) = routed.of(routed.host).routers
    assert router.gateway is not None
    assert router.gateway.addresses == (f"{outside}.99/24",)
    assert router.next_hops == (f"{outside}.1",)
    assert {f"{outside}.0/24", *router.on_link} == {"172.24.4.0/24", "172.24.5.0/24"}


def test_what_does_not_count_is_looked_at_before_what_does(routed: Routed) -> None:
    """Whatever the order of their ids: the first rule that fits a packet decides."""

    def meter(tx: Tx) -> None:
        clock = routed.cloud.clock
        label = insert(tx, MeteringLabel, clock, project_id=OURS, name="", shared=False)
        for identifier, excluded in (("a", False), ("b", True), ("c", False), ("d", True)):
            insert(
                tx,
                MeteringRule,
                clock,
                id=identifier,
                project_id=OURS,
                metering_label_id=label.id,
                direction="egress",
                excluded=excluded,
                remote_ip_prefix=None,
                source_ip_prefix=f"10.0.0.{ord(identifier)}/32",
                destination_ip_prefix=None,
            )

    routed.cloud.db.write(meter)
    (router,) = routed.of(routed.host).routers
    (found,) = router.meters
    assert [rule.excluded for rule in found.rules] == [True, True, False, False]


def test_a_router_is_on_another_host_when_its_own_is_gone_and_nowhere_while_it_is_down(routed: Routed) -> None:
    left = [name for name in NAMES if name != routed.host]
    assert routed.of(routed.host, left).routers == ()
    assert [len(routed.of(name, left).routers) for name in left].count(1) == 1
    routed.cloud.db.write(lambda tx: change(tx, Router, routed.router.id, None, admin_state_up=False))
    assert all(routed.of(name) == w.Wiring(host=name) for name in NAMES)


def test_guests_are_told_of_the_router_only_while_it_is_up(routed: Routed) -> None:
    """Their host announces it to them, in IPv6, as if the router itself did."""
    routed.cloud.plug(routed.network, routed.others[0])

    def told() -> str | None:
        (network,) = (one for one in routed.of(routed.others[0]).networks if one.id == routed.network.id)
        (subnet,) = network.subnets
        return subnet.router_mac

    (router,) = routed.of(routed.host).routers
    (inside,) = router.interfaces
    assert told() == inside.mac
    routed.cloud.db.write(lambda tx: change(tx, Router, routed.router.id, None, admin_state_up=False))
    assert told() is None


def test_a_router_s_host_is_told_of_moves_on_its_networks(routed: Routed) -> None:
    port = routed.cloud.plug(routed.network, routed.others[0])
    server = port.server_id or ""
    told = routed.cloud.db.read(lambda tx: hosts_of_networks(tx, server, lambda: NAMES))
    assert told == sorted([routed.others[0], routed.host])


def test_routes_and_floating_ips_are_those_of_the_records(routed: Routed) -> None:
    port = routed.cloud.plug(routed.network, routed.others[0])

    def lead(tx: Tx) -> None:
        new = port_life.NewPort(project_id="")
        outer = port_life.make(tx, routed.cloud.clock, routed.public, new)
        routes = [{"destination": "198.51.100.7/24", "nexthop": "10.0.0.9"}]
        change(tx, Router, routed.router.id, None, routes=routes)
        for address, inside in (("172.24.4.77", "10.0.0.5"), ("172.24.4.78", None)):
            insert(
                tx,
                FloatingIp,
                routed.cloud.clock,
                project_id=OURS,
                floating_network_id=routed.public.id,
                floating_port_id=outer.id,
                floating_ip_address=address,
                port_id=port.id if inside else None,
                fixed_ip_address=inside,
                router_id=routed.router.id if inside else None,
                dns_name="",
                dns_domain="",
            )

        insert(
            tx,
            PortForwarding,
            routed.cloud.clock,
            project_id=OURS,
            protocol="tcp",
            internal_port_id=port.id,
            internal_ip_address="10.0.0.6",
            internal_first=22,
            internal_last=22,
            external_first=2222,
            external_last=2223,
            floating_ip_id=insert_forwarding(tx, outer.id),
        )

    def insert_forwarding(tx: Tx, outer: str) -> str:
        """A floating IP that forwards: on a router, and leading to no port as a whole."""
        made = insert(
            tx,
            FloatingIp,
            routed.cloud.clock,
            project_id=OURS,
            floating_network_id=routed.public.id,
            floating_port_id=outer,
            floating_ip_address="172.24.4.79",
            port_id=None,
            fixed_ip_address=None,
            router_id=routed.router.id,
            dns_name="",
            dns_domain="",
        )
        return made.id

    routed.cloud.db.write(lead)
    (router,) = routed.of(routed.host).routers
    assert router.floating_ips == (w.FloatingIp(outside="172.24.4.77", inside="10.0.0.5"),)
    assert router.forwardings == (
        w.Forwarding(
            outside="172.24.4.79", protocol=6, outside_ports=(2222, 2223), inside="10.0.0.6", inside_ports=(22, 22)
        ),
    )
    assert router.routes == (w.Route(destination="198.51.100.0/24", nexthop="10.0.0.9"),)
