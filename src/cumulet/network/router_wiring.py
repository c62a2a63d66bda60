"""Routers in a host's wiring, read from the tables: the host's own routers, and where other routers' ports are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from ipaddress import ip_address, ip_network

import sqlalchemy as sa
from msgspec.structs import replace

from cumulet.db.engine import Tx
from cumulet.db.parts import OfMany
from cumulet.host import wiring as w
from cumulet.network import addresses, qos
from cumulet.network.device_owners import OF_ROUTERS
from cumulet.network.forwarding_records import PortForwarding
from cumulet.network.many import find_many
from cumulet.network.metering_records import MeteringLabel, MeteringRule
from cumulet.network.qos_records import BandwidthLimit
from cumulet.network.router_hosts import host_of
from cumulet.network.rule_meaning import PROTOCOLS
from cumulet.network.store import (
    FloatingIp,
    Port,
    Router,
    Subnet,
    find_by,
    port_addresses,
    ports,
    routers,
    select,
)

RouterHosts = Callable[[], Sequence[str]]
"""The hosts that can have a router now."""


def routers_at(tx: Tx, hosts: Collection[str], router_hosts: RouterHosts) -> dict[str, tuple[w.Router, ...]]:
    """The routers of each of these hosts, in the order of their ids."""
    up = tx.all(_UP, {})
    able = tuple(router_hosts()) if up else ()
    places = {row.id: host_of(row.id, able) for row in up}
    found: dict[str, tuple[w.Router, ...]] = dict.fromkeys(hosts, ())
    for router in of_ids(tx, [router_id for router_id, place in places.items() if place in found]):
        found[places[router.id] or ""] += (router,)
    return found


def of_ids(tx: Tx, router_ids: Iterable[str]) -> tuple[w.Router, ...]:
    """Routers by id, on any host. A router that is down, or has no port that is up, is left out."""
    here = sorted(router_ids)
    if not here:
        return ()
    records = [router for router in find_many(tx, Router, "id", here) if router.admin_state_up]
    ports_of: dict[str, list[Port]] = {}
    for port in _ports_of(tx, here):
        ports_of.setdefault(port.device_id, []).append(port)
    held = addresses.held_by(tx, [port.id for of_one in ports_of.values() for port in of_one])
    of_network = _subnets(tx, {port.network_id for of_one in ports_of.values() for port in of_one})
    floating: dict[str, list[FloatingIp]] = {}
    for record in find_many(tx, FloatingIp, "router_id", here):
        floating.setdefault(record.router_id or "", []).append(record)
    forwards: dict[str, list[PortForwarding]] = {}
    floating_ids = [record.id for of_one in floating.values() for record in of_one]
    for forwarding in find_many(tx, PortForwarding, "floating_ip_id", floating_ids):
        forwards.setdefault(forwarding.floating_ip_id, []).append(forwarding)
    policies = {record.qos_policy_id for of_one in floating.values() for record in of_one}
    policies |= {router.qos_policy_id for router in records}
    limits = qos.limits(tx, {policy for policy in policies if policy is not None})
    meters = _meters(tx, {router.project_id for router in records})
    made = (
        replace(
            _router(
                router, ports_of.get(router.id, ()), held, of_network, floating.get(router.id, ()), forwards, limits
            ),
            meters=meters[router.project_id],
        )
        for router in sorted(records, key=lambda router: router.id)
    )
    return tuple(router for router in made if router.ports)


def _meters(tx: Tx, projects: set[str]) -> dict[str, tuple[w.Meter, ...]]:
    """The metering labels about each project's routers: its own, and those that are shared."""
    labels = {label.id: label for label in find_by(tx, MeteringLabel, shared=True)}
    labels |= {label.id: label for label in find_many(tx, MeteringLabel, "project_id", projects)}
    rules: dict[str, list[MeteringRule]] = {}
    for rule in find_many(tx, MeteringRule, "metering_label_id", labels):
        rules.setdefault(rule.metering_label_id, []).append(rule)
    meters = {
        label_id: w.Meter(
            label=label_id,
            # What does not count is looked at first, as in Neutron.
            rules=tuple(map(_meter_rule, sorted(of_label, key=lambda rule: (not rule.excluded, rule.id)))),
        )
        for label_id, of_label in sorted(rules.items())
    }
    return {
        project: tuple(
            meter
            for label_id, meter in meters.items()
            if labels[label_id].shared or labels[label_id].project_id == project
        )
        for project in projects
    }


def _meter_rule(rule: MeteringRule) -> w.MeterRule:
    direction = w.Direction(rule.direction)
    source, destination = rule.source_ip_prefix, rule.destination_ip_prefix
    if rule.remote_ip_prefix is not None and direction is w.Direction.OUT:
        source = rule.remote_ip_prefix
    elif rule.remote_ip_prefix is not None:
        destination = rule.remote_ip_prefix
    return w.MeterRule(direction=direction, excluded=rule.excluded, source=source, destination=destination)


def places_on(tx: Tx, network_ids: Sequence[str], router_hosts: RouterHosts) -> list[tuple[str, str, str]]:
    """The ports of routers on these networks that a host has: network, MAC address, host."""
    rows = _ON_NETWORKS.rows(tx, network_ids)
    able = tuple(router_hosts()) if rows else ()
    places = [(row, host_of(row.device_id, able)) for row in rows]
    return [(row.network_id, row.mac_address, place) for row, place in places if place is not None]


def gateways(tx: Tx, network_ids: Sequence[str]) -> dict[tuple[str, str], str]:
    """The MAC addresses of routers' ports on these networks that are up, by subnet and address."""
    return {(row.subnet_id, row.address): row.mac_address for row in _ADDRESSES.rows(tx, network_ids)}


_UP = sa.select(routers.c.id).where(routers.c.admin_state_up)
_is_routers = sa.and_(ports.c.device_owner.in_(OF_ROUTERS), ports.c.admin_state_up)
_OF_ROUTERS = OfMany(select(Port, _is_routers), ports.c.device_id)
_ON_NETWORKS = OfMany(
    sa.select(ports.c.network_id, ports.c.mac_address, ports.c.device_id)
    .join(routers, routers.c.id == ports.c.device_id)
    .where(_is_routers, routers.c.admin_state_up),
    ports.c.network_id,
)
_ADDRESSES = OfMany(
    sa.select(port_addresses.c.subnet_id, port_addresses.c.address, ports.c.mac_address)
    .join(ports, ports.c.id == port_addresses.c.port_id)
    .join(routers, routers.c.id == ports.c.device_id)
    .where(_is_routers, routers.c.admin_state_up),
    port_addresses.c.network_id,
)


def _ports_of(tx: Tx, router_ids: Iterable[str]) -> list[Port]:
    return [Port(**row._mapping) for row in _OF_ROUTERS.rows(tx, sorted(router_ids))]


def _subnets(tx: Tx, network_ids: Iterable[str]) -> dict[str, list[Subnet]]:
    found: dict[str, list[Subnet]] = {}
    for subnet in find_many(tx, Subnet, "network_id", network_ids):
        found.setdefault(subnet.network_id, []).append(subnet)
    return found


def limit(
    limits: Mapping[tuple[str, str], BandwidthLimit], policy_id: str | None, direction: w.Direction
) -> w.Limit | None:
    """The limit of a policy in one direction; None without one."""
    found = None if policy_id is None else limits.get((policy_id, direction.value))
    return None if found is None else w.Limit(kbps=found.max_kbps, burst_kbit=found.max_burst_kbps)


def _router(
    router: Router,
    its_ports: Sequence[Port],
    held: Mapping[str, Sequence[addresses.FixedIp]],
    of_network: Mapping[str, Sequence[Subnet]],
    floating: Sequence[FloatingIp],
    forwards: Mapping[str, Sequence[PortForwarding]],
    limits: Mapping[tuple[str, str], BandwidthLimit],
) -> w.Router:
    def port_of(port: Port) -> w.RouterPort:
        cidrs = {subnet.id: subnet.cidr for subnet in of_network.get(port.network_id, ())}
        return w.RouterPort(
            id=port.id,
            network_id=port.network_id,
            mac=port.mac_address,
            addresses=tuple(
                sorted(
                    f"{fixed.address}/{cidrs[fixed.subnet_id].rpartition('/')[2]}"
                    for fixed in held.get(port.id, ())
                    if fixed.address is not None and fixed.subnet_id in cidrs
                )
            ),
        )

    interfaces = [port for port in its_ports if port.id != router.gateway_port_id]
    gateway = next((port for port in its_ports if port.id == router.gateway_port_id), None)
    outside = [] if gateway is None else sorted(of_network.get(gateway.network_id, ()), key=lambda subnet: subnet.id)
    in_use = {fixed.subnet_id for fixed in (held.get(gateway.id, ()) if gateway is not None else ())}
    next_hops: dict[int, str] = {}
    for subnet in outside:
        if subnet.id in in_use and subnet.gateway_ip is not None:
            next_hops.setdefault(ip_address(subnet.gateway_ip).version, subnet.gateway_ip)
    return w.Router(
        id=router.id,
        interfaces=tuple(port_of(port) for port in sorted(interfaces, key=lambda port: port.id)),
        gateway=None if gateway is None else port_of(gateway),
        next_hops=tuple(next_hops[version] for version in sorted(next_hops)),
        on_link=tuple(subnet.cidr for subnet in outside if subnet.id not in in_use),
        source_nat=gateway is not None and router.enable_snat,
        routes=tuple(
            w.Route(destination=str(ip_network(route["destination"], strict=False)), nexthop=route["nexthop"])
            for route in router.routes
        ),
        floating_ips=tuple(
            w.FloatingIp(
                outside=record.floating_ip_address,
                inside=record.fixed_ip_address,
                egress_limit=limit(limits, record.qos_policy_id, w.Direction.OUT),
                ingress_limit=limit(limits, record.qos_policy_id, w.Direction.IN),
            )
            for record in sorted(floating, key=lambda record: record.id)
            if record.fixed_ip_address is not None
        ),
        egress_limit=limit(limits, router.qos_policy_id, w.Direction.OUT),
        ingress_limit=limit(limits, router.qos_policy_id, w.Direction.IN),
        forwardings=tuple(
            w.Forwarding(
                outside=record.floating_ip_address,
                protocol=PROTOCOLS[one.protocol],
                outside_ports=(one.external_first, one.external_last),
                inside=one.internal_ip_address,
                inside_ports=(one.internal_first, one.internal_last),
            )
            for record in sorted(floating, key=lambda record: record.id)
            for one in sorted(forwards.get(record.id, ()), key=lambda one: one.id)
        ),
    )
