"""What a host must have, read off the tables: whose ports, reached where, under which rules."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from cumulet.clock import SystemClock
from cumulet.db import schema
from cumulet.db.engine import Database, Tx
from cumulet.host import wiring as w
from cumulet.host.verdict import ICMP6, TCP, UDP, Packet, decide
from cumulet.network import bindings_for_compute as bindings
from cumulet.network import default_security_group, dhcp_options, for_compute, port_life, topology
from cumulet.network.group_records import SecurityGroupRule
from cumulet.network.store import Network, Port, change, insert
from tests.network.one_wiring import wiring

OURS, THEIRS = "project-ours", "project-theirs"
HOSTS = {"host1": "192.0.2.1", "host2": "192.0.2.2", "host3": "192.0.2.3"}


class Cloud:
    """A database with networks and servers' ports on hosts."""

    def __init__(self, database: Database) -> None:
        self.db = database
        self.clock = SystemClock()
        self._servers = 0

    def network(self, *cidrs: str, project: str = OURS) -> Network:
        def make(tx: Tx) -> Network:
            network = topology.add_network(tx, self.clock, project_id=project, name="n", wire_mtu=1500)
            for cidr in cidrs:
                topology.add_subnet(tx, self.clock, network, cidr=ip_network(cidr))
            return network

        return self.db.write(make)

    def plug(self, network: Network, host: str, **wanted: object) -> Port:
        """A port of a new server on `host`."""
        self._servers += 1
        new = port_life.NewPort(
            project_id=network.project_id,
            host=host,
            server_id=f"server{self._servers}",
            **wanted,  # type: ignore[arg-type]
        )
        return self.db.write(lambda tx: port_life.make(tx, self.clock, network, new))

    def of(self, host: str) -> w.Wiring:
        return self.db.read(lambda tx: wiring(tx, host, lambda _: HOSTS))


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    database = Database("sqlite://", inline=True)
    schema.prepare(database)
    try:
        yield Cloud(database)
    finally:
        database.close()


def test_a_host_has_its_own_ports_and_their_networks_and_no_others(cloud: Cloud) -> None:
    ours, theirs = cloud.network("10.0.0.0/24"), cloud.network("10.0.0.0/24", project=THEIRS)
    here, there = cloud.plug(ours, "host1"), cloud.plug(ours, "host2")
    cloud.plug(theirs, "host2")
    found = cloud.of("host1")
    assert [port.id for port in found.ports] == [here.id]
    (network,) = found.networks
    assert (network.id, network.kind, network.mtu) == (ours.id, "vxlan", ours.mtu)
    assert network.vni == ours.segmentation_id
    assert network.peers == ("192.0.2.2",)
    assert network.remotes == (w.Remote(mac=there.mac_address, host_address="192.0.2.2"),)
    assert {network.vni for network in cloud.of("host2").networks} == {ours.segmentation_id, theirs.segmentation_id}
    assert cloud.of("host3") == w.Wiring(host="host3")


def test_a_host_is_told_the_names_of_all_ports_of_its_networks_and_of_no_others(cloud: Cloud) -> None:
    ours, theirs = cloud.network("10.0.0.0/24", "fd00::/64"), cloud.network("10.0.0.0/24", project=THEIRS)
    cloud.plug(ours, "host1", dns_name="here")
    cloud.plug(ours, "host2", dns_name="there")
    cloud.plug(theirs, "host2", dns_name="secret")
    unplugged = port_life.NewPort(project_id=OURS)
    cloud.db.write(lambda tx: port_life.make(tx, cloud.clock, ours, unplugged))
    (network,) = cloud.of("host1").networks
    named: dict[str, int] = {}
    for name in network.names:
        named[name.hostname] = named.get(name.hostname, 0) + len(name.addresses)
    assert network.dns_domain == "openstacklocal."
    assert (named.pop("here"), named.pop("there")) == (2, 2)
    assert set(named.values()) == {1}
    assert all(hostname.startswith(("host-10-0-0-", "host-fd00-")) for hostname in named)
    assert len(named) == 2
    flat = cloud.network("10.9.0.0/24")
    cloud.db.write(lambda tx: change(tx, Network, flat.id, None, network_type="flat"))
    cloud.plug(flat, "host3", dns_name="outside")
    assert [network.names for network in cloud.of("host3").networks] == [()]


def test_a_port_without_a_server_is_wired_nowhere_even_if_it_is_bound(cloud: Cloud) -> None:
    network = cloud.network("10.0.0.0/24")
    new = port_life.NewPort(project_id=OURS, host="host1")
    cloud.db.write(lambda tx: port_life.make(tx, cloud.clock, network, new))
    assert cloud.of("host1") == w.Wiring(host="host1")


def test_in_a_move_the_port_is_wired_at_both_hosts_and_reached_at_its_owner_until_the_commit(cloud: Cloud) -> None:
    network = cloud.network("10.0.0.0/24")
    port = cloud.plug(network, "host1")
    cloud.plug(network, "host3")
    server = port.server_id or ""
    cloud.db.write(lambda tx: bindings.add_inactive(tx, server, "host2"))

    def reached_at(host: str) -> set[str]:
        (seen,) = cloud.of(host).networks
        return {remote.host_address for remote in seen.remotes if remote.mac == port.mac_address}

    assert [(p.id, p.active) for p in cloud.of("host1").ports] == [(port.id, True)]
    assert [(p.id, p.active) for p in cloud.of("host2").ports] == [(port.id, False)]
    assert reached_at("host3") == {"192.0.2.1"}
    assert reached_at("host2") == {"192.0.2.1"}
    assert cloud.of("host3").networks[0].peers == ("192.0.2.1", "192.0.2.2")
    cloud.db.write(lambda tx: bindings.activate(tx, server, "host2"))
    assert cloud.of("host1") == w.Wiring(host="host1")
    assert [(p.id, p.active) for p in cloud.of("host2").ports] == [(port.id, True)]
    assert reached_at("host3") == {"192.0.2.2"}
    assert cloud.of("host3").networks[0].peers == ("192.0.2.2",)


def test_a_remote_group_has_the_addresses_and_allowed_pairs_of_all_its_members(cloud: Cloud) -> None:
    network = cloud.network("10.0.0.0/24", "2001:db8::/64")
    here = cloud.plug(network, "host1")
    there = cloud.plug(network, "host2", allowed_address_pairs=[{"ip_address": "10.9.0.1/16"}])
    (group,) = cloud.of("host1").groups
    server = there.server_id or ""
    (view,) = cloud.db.read(lambda tx: for_compute.ports_of(tx, [server]))[server]
    held = {address.address for address in view.addresses}
    assert held <= set(group.members)
    assert "10.9.0.0/16" in group.members
    assert len(group.members) == 5
    (wired,) = cloud.of("host2").ports
    assert wired.pairs == (w.Pair(mac=there.mac_address, prefix="10.9.0.0/16"),)
    assert wired.groups == cloud.of("host1").ports[0].groups == (group.id,)
    assert here.id == cloud.of("host1").ports[0].id


def test_the_same_records_give_the_same_wiring_in_whatever_order_the_database_gives_them(cloud: Cloud) -> None:
    networks = [cloud.network("10.0.0.0/24", "2001:db8::/64"), cloud.network("10.0.0.0/24")]
    for network in networks:
        for host in ("host1", "host2", "host1", "host3", "host1"):
            cloud.plug(network, host, allowed_address_pairs=[{"ip_address": "10.9.0.1"}, {"ip_address": "10.8.0.1"}])

    def read_backwards(tx: Tx) -> w.Wiring:
        tx.connection.exec_driver_sql("PRAGMA reverse_unordered_selects = ON")
        assert tx.connection.exec_driver_sql("SELECT id FROM ports").all() != before, "the order is another one"
        return wiring(tx, "host1", lambda _: HOSTS)

    before = cloud.db.read(lambda tx: tx.connection.exec_driver_sql("SELECT id FROM ports").all())
    assert cloud.of("host1") == cloud.db.read(read_backwards)


def test_the_default_group_lets_members_in_and_nobody_else(cloud: Cloud) -> None:
    network = cloud.network("10.0.0.0/24")
    one, two = cloud.plug(network, "host1"), cloud.plug(network, "host1")
    found = cloud.of("host1")
    ports = {port.id: port for port in found.ports}

    def verdict(source: str, **more: int) -> tuple[bool, str]:
        packet = Packet(
            mac=one.mac_address, source=source, destination=ports[two.id].addresses[0], protocol=TCP,
            source_port=more.get("sport", 40_000), destination_port=22,
        )  # fmt: skip
        answer = decide(found, packet, sender=None, receiver=two.id)
        return answer.passes, answer.reason

    assert verdict(ports[one.id].addresses[0]) == (True, "rule")
    assert verdict("10.0.0.99") == (False, "no-rule-ingress")


def test_a_rule_decides_by_protocol_port_and_prefix_and_is_named(cloud: Cloud) -> None:
    network = cloud.network("10.0.0.0/24")
    port = cloud.plug(network, "host1")

    def add(tx: Tx) -> SecurityGroupRule:
        group = default_security_group.ensure(tx, cloud.clock, OURS)
        return insert(
            tx, SecurityGroupRule, cloud.clock, project_id=OURS, security_group_id=group.id, direction="ingress",
            ethertype="IPv4", protocol="tcp", port_range_min=80, port_range_max=90, remote_ip_prefix="198.51.100.0/24",
            remote_group_id=None, remote_address_group_id=None,
        )  # fmt: skip

    rule = cloud.db.write(add)
    found = cloud.of("host1")

    def verdict(source: str, number: int, protocol: int = TCP) -> str | None:
        packet = Packet(
            mac="02:00:00:00:00:01", source=source, destination=found.ports[0].addresses[0], protocol=protocol,
            source_port=1, destination_port=number,
        )  # fmt: skip
        return decide(found, packet, sender=None, receiver=port.id).rule

    assert verdict("198.51.100.7", 80) == verdict("198.51.100.7", 90) == rule.id
    assert verdict("198.51.100.7", 91) is None
    assert verdict("198.51.101.7", 80) is None
    assert verdict("198.51.100.7", 80, UDP) is None


def test_a_packet_with_a_false_sender_is_refused_and_the_reason_says_which_rule_it_breaks(cloud: Cloud) -> None:
    port = cloud.plug(cloud.network("10.0.0.0/24"), "host1")
    found = cloud.of("host1")
    (wired,) = found.ports
    own = wired.addresses[0]

    def reason(
        mac: str, source: str, protocol: int = TCP, sport: int = 9, dport: int = 9, to: str = "10.0.0.77"
    ) -> str:
        packet = Packet(
            mac=mac, source=source, destination=to, protocol=protocol, source_port=sport, destination_port=dport
        )
        return decide(found, packet, sender=port.id, receiver=None).reason

    assert reason(port.mac_address, own) == "rule"
    assert reason("02:00:00:00:00:01", own) == "spoofed-mac"
    assert reason(port.mac_address, "10.0.0.99") == "spoofed-address"
    assert reason(port.mac_address, own, UDP, 67, 68) == "dhcp-server"
    assert reason(port.mac_address, w.link_local(port.mac_address), ICMP6, 134, 0, "ff02::1") == "router-advertisement"
    assert reason(port.mac_address, "0.0.0.0", UDP, 68, 67, "255.255.255.255") == "needed-by-every-port"
    cloud.db.write(lambda tx: change(tx, Port, port.id, None, admin_state_up=False))
    found = cloud.of("host1")
    assert reason(port.mac_address, own) == "port-down"


def test_extra_dhcp_options_are_told_as_the_bytes_that_guests_get(cloud: Cloud) -> None:
    port = cloud.plug(cloud.network("10.0.0.0/24"), "host1")
    wanted: dhcp_options.Wanted = {
        ("mtu", 4): "1400", ("server-ip-address", 4): "192.0.2.9", ("router", 4): "",
        ("domain-search", 6): "a.test,b.test", ("225", 4): "10.0.0.1",
    }  # fmt: skip
    cloud.db.write(lambda tx: dhcp_options.change(tx, port.id, wanted))
    (wired,) = cloud.of("host1").ports
    assert {(one.version, one.code): bytes.fromhex(one.content) for one in wired.dhcp_options} == {
        (4, 26): b"\x05\x78", (4, 0): b"\xc0\0\x02\x09", (4, 3): b"",
        (6, 24): b"\x01a\x04test\0\x01b\x04test\0", (4, 225): b"\x0a\0\0\x01",
    }  # fmt: skip


def test_a_host_is_told_only_of_addresses_of_its_own_version(cloud: Cloud) -> None:
    """Its VXLAN device sends to no others, and refuses all of a network with one of them."""
    ours = cloud.network("10.0.0.0/24")
    for host in HOSTS:
        cloud.plug(ours, host)

    def told(host: str, **reached: str) -> tuple[tuple[str, ...], set[str]]:
        (network,) = cloud.db.read(lambda tx: wiring(tx, host, lambda _: HOSTS | reached)).networks
        return network.peers, {remote.host_address for remote in network.remotes}

    assert told("host1", host2="2001:db8::2") == (("192.0.2.3",), {"192.0.2.3"})
    assert told("host2", host2="2001:db8::2") == ((), set())
    assert told("host2", host2="2001:db8::2", host3="2001:db8::3") == (("2001:db8::3",), {"2001:db8::3"})
