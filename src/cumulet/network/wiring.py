"""The wirings of hosts, read from the tables. They depend on nothing else: not on a back end, nor on what was read
before. What is made of the same rows as before is the same object, so that it is compared with it at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec
import sqlalchemy as sa
from msgspec.structs import replace

from cumulet.db.engine import Tx
from cumulet.db.parts import OfMany
from cumulet.db.transaction import announced
from cumulet.host import wiring as w
from cumulet.network import addresses, dns, group_wiring, port_wiring, router_wiring
from cumulet.network.bindings import UNBOUND
from cumulet.network.dhcp_options import port_dhcp_options
from cumulet.network.forwarding_records import port_forwardings
from cumulet.network.group_records import (
    address_groups,
    port_security_groups,
    security_group_rules,
    security_groups,
)
from cumulet.network.many import find_many
from cumulet.network.metering_records import metering_label_rules, metering_labels
from cumulet.network.port_wiring import Plain
from cumulet.network.qos_records import bandwidth_limits, dscp_marks
from cumulet.network.router_wiring import RouterHosts
from cumulet.network.store import (
    Network,
    Subnet,
    floating_ips,
    networks,
    port_addresses,
    port_bindings,
    ports,
    routers,
    subnets,
)
from cumulet.network.trunk_ports import WAYS
from cumulet.network.trunk_records import trunk_subports, trunks

TABLES = announced(
    (
        networks,
        subnets,
        ports,
        port_addresses,
        port_bindings,
        port_dhcp_options,
        port_security_groups,
        security_groups,
        security_group_rules,
        address_groups,
        routers,
        floating_ips,
        port_forwardings,
        bandwidth_limits,
        metering_labels,
        metering_label_rules,
        dscp_marks,
        trunks,
        trunk_subports,
    )
)
"""What a wiring is read from. Other processes are told of each commit there."""
GROUPS = frozenset(table.name for table in (security_groups, security_group_rules, address_groups))
"""Those of them from which nothing but groups is read."""

_HERE = [
    OfMany(
        sa.select(port_bindings.c.host, port_bindings.c.active, *port_wiring.COLUMNS)
        .select_from(way.joined)
        .where(way.server_id.is_not(None)),
        port_bindings.c.host,
    )
    for way in WAYS
]
"""The ports on hosts that lead to a server's guest, or will. A binding without a server plugs nothing."""
_PORTS_OF_SERVER = [
    sa.select(ports.c.id, ports.c.network_id)
    .select_from(way.joined)
    .where(way.server_id == sa.bindparam("of_server"))
    .distinct()
    for way in WAYS
]
_HOSTS_OF_NETWORKS = [
    OfMany(
        sa.select(port_bindings.c.host)
        .select_from(way.joined)
        .where(way.server_id.is_not(None), port_bindings.c.host != UNBOUND)
        .distinct(),
        ports.c.network_id,
    )
    for way in WAYS
]
_HOST_OF = [
    sa.select(port_bindings.c.host, *port_wiring.COLUMNS)
    .select_from(way.joined)
    .where(
        ports.c.id == sa.bindparam("of_port"),
        way.server_id.is_not(None),
        port_bindings.c.active,
        port_bindings.c.host != UNBOUND,
    )
    for way in WAYS
]
_PLACES = [
    OfMany(
        sa.select(ports.c.network_id, ports.c.mac_address, port_bindings.c.host, port_bindings.c.active)
        .select_from(way.joined)
        .where(way.server_id.is_not(None)),
        ports.c.network_id,
    )
    for way in WAYS
]
_NAMES = OfMany(
    sa.select(ports.c.network_id, ports.c.id, ports.c.dns_name, port_addresses.c.address)
    .join(port_addresses, port_addresses.c.port_id == ports.c.id)
    .order_by(ports.c.id, port_addresses.c.number),
    ports.c.network_id,
)
AddressesOf = Callable[[Collection[str]], Mapping[str, str]]
"""The addresses where hosts reach each of these hosts. Called with few of them: a cloud may have thousands."""

EVERY_KIND = w.NO_PACKETS
"""A feature of hosts. With it, networks may be of every type; without it, of the types that hosts connect."""


class WithoutGroups(msgspec.Struct, frozen=True, kw_only=True):
    """A wiring without security groups: what `GROUPS` say. `groups`: the ids of those that its ports have."""

    wiring: w.Wiring
    groups: frozenset[str]


def with_groups(tx: Tx, read: Mapping[str, WithoutGroups]) -> dict[str, w.Wiring]:
    """The wirings of hosts, whole.

    Equal records give equal wirings, also in their order: two wirings are compared to see whether anything changed.
    """
    groups = group_wiring.groups(tx, frozenset().union(*(one.groups for one in read.values())))
    return {host: replace(one.wiring, groups=groups.of(one.groups)) for host, one in read.items()}


def without_groups(
    tx: Tx, hosts: Collection[str], addresses_of: AddressesOf, router_hosts: RouterHosts
) -> dict[str, WithoutGroups]:
    """By host. What is the same for several is read once. `router_hosts`: the hosts that can have routers now; called
    only if there is a router."""
    here: dict[str, dict[str, bool]] = {host: {} for host in hosts}
    plain: dict[str, Plain] = {}
    for way in _HERE:
        for host, active, port_id, *row in way.rows(tx, sorted(hosts)):
            here[host][port_id] = active
            plain[port_id] = Plain(port_id, *row)
    routers_of = router_wiring.routers_at(tx, hosts, router_hosts)
    networks_of = {
        host: {plain[port_id].network_id for port_id in here[host]}
        | {port.network_id for router in routers_of[host] for port in router.ports}
        for host in hosts
    }
    network_ids = sorted(set().union(*networks_of.values()))
    names, held = _names(tx, network_ids)
    plugged = port_wiring.plugged(tx, plain.values(), held)
    networks = _networks(tx, network_ids, names, addresses_of, router_hosts)
    return {
        host: WithoutGroups(
            wiring=w.Wiring(
                host=host,
                networks=tuple(networks[network_id].at(host) for network_id in sorted(networks_of[host])),
                ports=tuple(
                    plugged[port_id].port if active else replace(plugged[port_id].port, active=False)
                    for port_id, active in sorted(here[host].items())
                ),
                routers=routers_of[host],
            ),
            groups=frozenset(group for port_id in here[host] for group in plugged[port_id].groups),
        )
        for host in hosts
    }


def of_port(tx: Tx, port_id: str) -> w.Wiring | None:
    """The part of a wiring that is about one port, on the host that has it; None where no host has it."""
    row = next((row for way in _HOST_OF if (row := tx.first(way, {"of_port": port_id})) is not None), None)
    if row is None:
        return None
    host, *columns = row
    one = port_wiring.plugged(tx, [Plain(*columns)], addresses.texts_of(tx, [port_id]))[port_id]
    return w.Wiring(host=host, ports=(one.port,), groups=group_wiring.groups(tx, one.groups).of(one.groups))


def ports_of_server(tx: Tx, server_id: str) -> list[str]:
    """Ids of the ports that lead to a server's guest, subports too."""
    return [row.id for way in _PORTS_OF_SERVER for row in tx.all(way, {"of_server": server_id})]


def hosts_of_networks(tx: Tx, server_id: str, router_hosts: RouterHosts = tuple) -> list[str]:
    """The hosts that have ports, of servers or routers, on a network that this server has a port on."""
    found = {row.network_id for way in _PORTS_OF_SERVER for row in tx.all(way, {"of_server": server_id})}
    network_ids = sorted(found)
    with_routers = router_wiring.places_on(tx, network_ids, router_hosts)
    hosts = {row.host for way in _HOSTS_OF_NETWORKS for row in way.rows(tx, network_ids)}
    return sorted(hosts | {place for _, _, place in with_routers})


_BOTH = (False, True)


class _Place(msgspec.Struct, frozen=True, order=True, gc=False):
    """Where a port of a network is. `address`: the host's own; `active`: whether its binding there is."""

    mac: str
    address: str
    active: bool
    host: str
    remote: w.Remote


class _Network(msgspec.Struct, frozen=True, kw_only=True):
    """A network as it is on all hosts, and where its ports are."""

    everywhere: w.Network
    active: Sequence[tuple[str, w.Remote]]
    """Each active place by its host."""
    reached: frozenset[tuple[str, str]]
    """The hosts that have its ports, or will, and where they are reached."""

    def at(self, host: str) -> w.Network:
        """A VXLAN device sends to addresses of one version: its host's. Another one would keep it from being made."""
        own = [":" in address for other, address in self.reached if other == host]
        others = {address for other, address in self.reached if other != host and (":" in address) in (own or _BOTH)}
        return replace(
            self.everywhere,
            peers=tuple(sorted(others)),
            remotes=tuple([one for other, one in self.active if other != host and one.host_address in others]),
        )


def _places(
    tx: Tx, network_ids: Sequence[str], addresses_of: AddressesOf, router_hosts: RouterHosts
) -> dict[str, list[_Place]]:
    """By network, the ports of servers and routers that a host has."""
    there = [tuple(row) for way in _PLACES for row in way.rows(tx, network_ids)]
    for network_id, mac, host in router_wiring.places_on(tx, network_ids, router_hosts):
        there.append((network_id, mac, host, True))
    reached = addresses_of({host for _, _, host, _ in there}) if there else {}
    found: dict[str, list[_Place]] = {}
    for network_id, mac, host, active in there:
        if (address := reached.get(host)) is not None:
            found.setdefault(network_id, []).append(_Place(mac, address, active, host, _remote(mac, address)))
    return {network_id: sorted(places) for network_id, places in found.items()}


@functools.lru_cache(maxsize=port_wiring.KEPT)
def _remote(mac: str, address: str) -> w.Remote:
    return w.Remote(mac=mac, host_address=address)


def _networks(
    tx: Tx,
    network_ids: Sequence[str],
    names: Mapping[str, tuple[w.Name, ...]],
    addresses_of: AddressesOf,
    router_hosts: RouterHosts,
) -> dict[str, _Network]:
    of_network: dict[str, list[Subnet]] = {}
    for subnet in find_many(tx, Subnet, "network_id", network_ids):
        of_network.setdefault(subnet.network_id, []).append(subnet)
    gateways = router_wiring.gateways(tx, network_ids)
    places = _places(tx, network_ids, addresses_of, router_hosts)
    return {
        network.id: _Network(
            everywhere=w.Network(
                id=network.id,
                kind=network.network_type,
                vni=network.segmentation_id if network.network_type == "vxlan" else None,
                mtu=network.mtu,
                dns_domain=network.dns_domain or dns.DEFAULT_DOMAIN,
                subnets=tuple(
                    told_subnet(subnet, gateways.get((subnet.id, subnet.gateway_ip or "")))
                    for subnet in sorted(of_network.get(network.id, ()), key=lambda subnet: subnet.id)
                ),
                peers=(),
                remotes=(),
                physical=network.physical_network if network.network_type == "flat" else None,
                names=names.get(network.id, ()) if network.network_type != "flat" else (),
            ),
            active=[(place.host, place.remote) for place in places.get(network.id, ()) if place.active],
            reached=frozenset((place.host, place.address) for place in places.get(network.id, ())),
        )
        for network in find_many(tx, Network, "id", network_ids)
    }


def _names(tx: Tx, network_ids: Sequence[str]) -> tuple[dict[str, tuple[w.Name, ...]], dict[str, list[str]]]:
    """What the ports of each network are called there, with their addresses; and the addresses of each port."""
    named: dict[tuple[str, str, str], list[str]] = {}
    held: dict[str, list[str]] = {}
    for network_id, port_id, dns_name, address in map(tuple, _NAMES.rows(tx, network_ids)):
        named.setdefault((network_id, port_id, dns.hostname(dns_name, address)), []).append(address)
        held.setdefault(port_id, []).append(address)
    found: dict[str, list[w.Name]] = {}
    for (network_id, _, hostname), of_port in named.items():
        found.setdefault(network_id, []).append(_name(hostname, tuple(of_port)))
    return {network_id: tuple(names) for network_id, names in found.items()}, held


@functools.lru_cache(maxsize=port_wiring.KEPT)
def _name(hostname: str, held: tuple[str, ...]) -> w.Name:
    return w.Name(hostname=hostname, addresses=held)


def told_subnet(subnet: Subnet, router_mac: str | None) -> w.Subnet:
    return w.Subnet(
        id=subnet.id,
        cidr=subnet.cidr,
        gateway=subnet.gateway_ip,
        dhcp=subnet.enable_dhcp,
        ra_mode=subnet.ipv6_ra_mode,
        address_mode=subnet.ipv6_address_mode,
        dns_servers=tuple(subnet.dns_nameservers),
        routes=tuple(
            w.Route(destination=route["destination"], nexthop=route["nexthop"]) for route in subnet.host_routes
        ),
        router_mac=router_mac,
    )
