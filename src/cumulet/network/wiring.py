"""The wiring of a host, read from the tables. It depends on nothing else: not on a back end, nor on earlier wirings."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from ipaddress import ip_network

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.db.parts import OfMany
from cumulet.db.transaction import announced
from cumulet.host import wiring as w
from cumulet.network import addresses, dhcp_options, dns, qos, router_wiring, trunk_ports
from cumulet.network.bindings import UNBOUND
from cumulet.network.dhcp_option_codes import NotAnOption, encoded
from cumulet.network.dhcp_options import port_dhcp_options
from cumulet.network.forwarding_records import port_forwardings
from cumulet.network.group_records import (
    AddressGroup,
    SecurityGroup,
    SecurityGroupRule,
    address_groups,
    port_security_groups,
    security_group_rules,
    security_groups,
)
from cumulet.network.many import find_many
from cumulet.network.metering_records import metering_label_rules, metering_labels
from cumulet.network.qos_records import bandwidth_limits, dscp_marks
from cumulet.network.router_wiring import RouterHosts
from cumulet.network.rule_meaning import protocol_number
from cumulet.network.store import (
    Network,
    Port,
    Subnet,
    floating_ips,
    networks,
    port_addresses,
    port_bindings,
    ports,
    routers,
    subnets,
)
from cumulet.network.trunk_ports import WAYS, Carrier
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

_HERE = [
    sa.select(ports.c.id, port_bindings.c.active, ports.c.network_id)
    .select_from(way.joined)
    .where(port_bindings.c.host == sa.bindparam("of_host"), way.server_id.is_not(None))
    for way in WAYS
]
"""The ports on a host that lead to a server's guest, or will. A binding without a server plugs nothing."""
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
    sa.select(port_bindings.c.host)
    .select_from(way.joined)
    .where(
        ports.c.id == sa.bindparam("of_port"),
        way.server_id.is_not(None),
        port_bindings.c.active,
        port_bindings.c.host != UNBOUND,
    )
    for way in WAYS
]
_GROUPS_OF_PORTS = OfMany(
    sa.select(port_security_groups.c.port_id, port_security_groups.c.security_group_id), port_security_groups.c.port_id
)
_PORTS_ELSEWHERE = [
    OfMany(
        sa.select(ports.c.network_id, ports.c.mac_address, port_bindings.c.host, port_bindings.c.active)
        .select_from(way.joined)
        .where(port_bindings.c.host != sa.bindparam("of_host"), way.server_id.is_not(None)),
        ports.c.network_id,
    )
    for way in WAYS
]
_MEMBERS = OfMany(
    sa.select(port_security_groups.c.security_group_id, port_addresses.c.address).join(
        port_addresses, port_addresses.c.port_id == port_security_groups.c.port_id
    ),
    port_security_groups.c.security_group_id,
)
_ALLOWED = OfMany(
    sa.select(port_security_groups.c.security_group_id, ports.c.allowed_address_pairs)
    .join(ports, ports.c.id == port_security_groups.c.port_id)
    .where(sa.cast(ports.c.allowed_address_pairs, sa.Text) != "[]"),
    port_security_groups.c.security_group_id,
)
"""Most ports have none, and reading the JSON of thousands takes long."""
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


def wiring(tx: Tx, host: str, addresses_of: AddressesOf, router_hosts: RouterHosts = tuple) -> w.Wiring:
    """The wiring of `host`. `router_hosts`: the hosts that can have routers now; called only if there is a router.

    Equal records give equal wirings, also in their order: two wirings are compared to see whether anything changed.
    """
    here = {row.id: row for way in _HERE for row in tx.all(way, {"of_host": host})}
    routers_here = router_wiring.routers_at(tx, host, router_hosts)
    of_routers = {port.network_id for router in routers_here for port in router.ports}
    network_ids = sorted({row.network_id for row in here.values()} | of_routers)
    elsewhere = _elsewhere(tx, host, network_ids, addresses_of, router_hosts)
    plugged, groups = _plugged(tx, {port_id: row.active for port_id, row in here.items()})
    return w.Wiring(
        host=host,
        networks=_networks(tx, network_ids, elsewhere),
        ports=plugged,
        groups=groups,
        routers=routers_here,
    )


def of_port(tx: Tx, port_id: str) -> w.Wiring | None:
    """The part of a wiring that is about one port, on the host that has it; None where no host has it."""
    row = next((row for way in _HOST_OF if (row := tx.first(way, {"of_port": port_id})) is not None), None)
    if row is None:
        return None
    plugged, groups = _plugged(tx, {port_id: True})
    return w.Wiring(host=row.host, ports=plugged, groups=groups)


def _plugged(tx: Tx, here: Mapping[str, bool]) -> tuple[tuple[w.Port, ...], tuple[w.Group, ...]]:
    """Ports and their groups. `here`: by port id, whether the binding to this host is the active one."""
    groups_of = _groups_of_ports(tx, here)
    plugged = sorted(find_many(tx, Port, "id", here), key=lambda port: port.id)
    held = addresses.held_by(tx, list(here))
    options = _dhcp_options(tx, list(here))
    policies = _policies(tx, plugged)
    carriers = trunk_ports.carriers(tx, here)
    limits, marks = qos.limits(tx, set(policies.values())), qos.marks(tx, set(policies.values()))
    made = tuple(
        w.Port(
            id=port.id,
            network_id=port.network_id,
            mac=port.mac_address,
            addresses=tuple(fixed.address for fixed in held.get(port.id, ()) if fixed.address is not None),
            up=port.admin_state_up,
            active=here[port.id],
            secured=port.port_security_enabled,
            pairs=_pairs(port),
            groups=tuple(sorted(groups_of.get(port.id, ()))) if port.port_security_enabled else (),
            hostname=port.dns_name,
            dhcp_options=options.get(port.id, ()),
            egress_limit=router_wiring.limit(limits, policies.get(port.id), w.Direction.OUT),
            ingress_limit=router_wiring.limit(limits, policies.get(port.id), w.Direction.IN),
            dscp_mark=marks.get(policies.get(port.id, "")),
            carried=_carried(carriers.get(port.id)),
        )
        for port in plugged
    )
    return made, _groups(tx, {group for port in plugged for group in groups_of.get(port.id, ())})


def _carried(carrier: Carrier | None) -> w.Carried | None:
    return None if carrier is None else w.Carried(parent=carrier.parent_id, tag=carrier.segmentation_id)


def _policies(tx: Tx, plugged: Sequence[Port]) -> dict[str, str]:
    """The QoS policy in force for each port that has one: its own, else its network's."""
    of_networks = qos.of_networks(tx, plugged)
    found = {port.id: port.qos_policy_id or of_networks.get(port.network_id) for port in plugged}
    return {port_id: policy_id for port_id, policy_id in found.items() if policy_id is not None}


def ports_of_server(tx: Tx, server_id: str) -> list[str]:
    """Ids of the ports that lead to a server's guest, subports too."""
    return [row.id for way in _PORTS_OF_SERVER for row in tx.all(way, {"of_server": server_id})]


def hosts_of_networks(tx: Tx, server_id: str, router_hosts: RouterHosts = tuple) -> list[str]:
    """The hosts that have ports, of servers or routers, on a network that this server has a port on."""
    found = {row.network_id for way in _PORTS_OF_SERVER for row in tx.all(way, {"of_server": server_id})}
    network_ids = sorted(found)
    with_routers = router_wiring.ports_elsewhere(tx, "", network_ids, router_hosts)
    hosts = {row.host for way in _HOSTS_OF_NETWORKS for row in way.rows(tx, network_ids)}
    return sorted(hosts | {place for _, _, place in with_routers})


def _groups_of_ports(tx: Tx, port_ids: Iterable[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in _GROUPS_OF_PORTS.rows(tx, sorted(port_ids)):
        found.setdefault(row.port_id, set()).add(row.security_group_id)
    return found


def _elsewhere(
    tx: Tx, host: str, network_ids: Sequence[str], addresses_of: AddressesOf, router_hosts: RouterHosts
) -> dict[str, list[tuple[str, str, bool]]]:
    """By network, the ports of servers and routers on other hosts: MAC address, the host's address, and whether the
    binding is the active one."""
    rows = [row for way in _PORTS_ELSEWHERE for row in way.rows(tx, network_ids, of_host=host)]
    there = [(row.network_id, row.mac_address, row.host, row.active) for row in rows]
    for network_id, mac, place in router_wiring.ports_elsewhere(tx, host, network_ids, router_hosts):
        there.append((network_id, mac, place, True))
    reached = addresses_of({place for *_, place, _ in there}) if there else {}
    found: dict[str, list[tuple[str, str, bool]]] = {}
    for network_id, mac, place, active in there:
        if place in reached:
            found.setdefault(network_id, []).append((mac, reached[place], active))
    return found


def _networks(
    tx: Tx, network_ids: Sequence[str], elsewhere: Mapping[str, list[tuple[str, str, bool]]]
) -> tuple[w.Network, ...]:
    of_network: dict[str, list[Subnet]] = {}
    for subnet in find_many(tx, Subnet, "network_id", network_ids):
        of_network.setdefault(subnet.network_id, []).append(subnet)
    gateways = router_wiring.gateways(tx, network_ids)
    names = _names(tx, network_ids)
    return tuple(
        w.Network(
            id=network.id,
            kind=network.network_type,
            vni=network.segmentation_id if network.network_type == "vxlan" else None,
            mtu=network.mtu,
            dns_domain=network.dns_domain or dns.DEFAULT_DOMAIN,
            subnets=tuple(
                told_subnet(subnet, gateways.get((subnet.id, subnet.gateway_ip or "")))
                for subnet in sorted(of_network.get(network.id, ()), key=lambda subnet: subnet.id)
            ),
            peers=tuple(sorted({address for _, address, _ in elsewhere.get(network.id, ())})),
            remotes=tuple(
                w.Remote(mac=mac, host_address=address)
                for mac, address, active in sorted(elsewhere.get(network.id, ()))
                if active
            ),
            physical=network.physical_network if network.network_type == "flat" else None,
            names=names.get(network.id, ()) if network.network_type != "flat" else (),
        )
        for network in sorted(find_many(tx, Network, "id", network_ids), key=lambda network: network.id)
    )


def _names(tx: Tx, network_ids: Sequence[str]) -> dict[str, tuple[w.Name, ...]]:
    """What the ports of each network are called there, with their addresses."""
    held: dict[tuple[str, str, str], list[str]] = {}
    for row in _NAMES.rows(tx, network_ids):
        held.setdefault((row.network_id, row.id, dns.hostname(row.dns_name, row.address)), []).append(row.address)
    found: dict[str, list[w.Name]] = {}
    for (network_id, _, hostname), of_port in held.items():
        found.setdefault(network_id, []).append(w.Name(hostname=hostname, addresses=tuple(of_port)))
    return {network_id: tuple(names) for network_id, names in found.items()}


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


def _dhcp_options(tx: Tx, port_ids: Sequence[str]) -> dict[str, tuple[w.DhcpOption, ...]]:
    found: dict[str, list[w.DhcpOption]] = {}
    for port_id, options in dhcp_options.of_ports(tx, port_ids).items():
        for option in options:
            # A name that was accepted before names were checked may be no option.
            with contextlib.suppress(NotAnOption):
                code, content = encoded(option["opt_name"], option["opt_value"], option["ip_version"])
                found.setdefault(port_id, []).append(
                    w.DhcpOption(version=option["ip_version"], code=code, content=content.hex())
                )
    return {port_id: tuple(options) for port_id, options in found.items()}


def _pairs(port: Port) -> tuple[w.Pair, ...]:
    return tuple(
        w.Pair(mac=(pair.get("mac_address") or port.mac_address).lower(), prefix=_prefix(pair["ip_address"]))
        for pair in port.allowed_address_pairs
    )


def _prefix(text: str) -> str:
    """``10.0.0.0/24``; for a prefix of one address that address alone."""
    prefix = ip_network(text, strict=False)
    return str(prefix.network_address if prefix.num_addresses == 1 else prefix)


# -- security groups


def _groups(tx: Tx, group_ids: set[str]) -> tuple[w.Group, ...]:
    """These groups with their rules, and the groups and address groups that the rules name, with their members."""
    rules: dict[str, list[SecurityGroupRule]] = {}
    for rule in find_many(tx, SecurityGroupRule, "security_group_id", group_ids):
        rules.setdefault(rule.security_group_id, []).append(rule)
    all_rules = [rule for of_group in rules.values() for rule in of_group]
    named = {rule.remote_group_id for rule in all_rules if rule.remote_group_id}
    listed = {rule.remote_address_group_id for rule in all_rules if rule.remote_address_group_id}
    members = _members(tx, named)
    found = [
        w.Group(
            id=group.id,
            stateful=group.stateful,
            rules=tuple(_rule(rule) for rule in sorted(rules.get(group.id, ()), key=lambda rule: rule.id)),
            members=tuple(sorted(members.get(group.id, ()))),
        )
        for group in find_many(tx, SecurityGroup, "id", group_ids | named)
    ]
    found += [
        w.Group(id=group.id, stateful=True, rules=(), members=tuple(sorted(map(_prefix, group.addresses))))
        for group in find_many(tx, AddressGroup, "id", listed)
    ]
    return tuple(sorted(found, key=lambda group: group.id))


def _members(tx: Tx, group_ids: Iterable[str]) -> dict[str, set[str]]:
    """The members of each group: its ports' addresses and allowed address pairs."""
    found: dict[str, set[str]] = {}
    wanted = sorted(group_ids)
    for row in _MEMBERS.rows(tx, wanted):
        found.setdefault(row.security_group_id, set()).add(row.address)
    for row in _ALLOWED.rows(tx, wanted):
        for pair in row.allowed_address_pairs:
            found.setdefault(row.security_group_id, set()).add(_prefix(pair["ip_address"]))
    return found


def _rule(rule: SecurityGroupRule) -> w.Rule:
    version = 4 if rule.ethertype == "IPv4" else 6
    prefix = None if rule.remote_ip_prefix is None else _prefix(rule.remote_ip_prefix)
    return w.Rule(
        id=rule.id,
        direction=w.Direction(rule.direction),
        version=version,
        protocol=protocol_number(rule.protocol, rule.ethertype),
        range_min=rule.port_range_min,
        range_max=rule.port_range_max,
        remote_prefix=prefix,
        remote_group=rule.remote_group_id or rule.remote_address_group_id,
    )
