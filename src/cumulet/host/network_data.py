"""`network_data.json`: what a guest is told about its networks, in Nova's format. A pure function.

Made from records for the config drive, and on a host from its wiring for the metadata service, which follows NICs that
come and go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address, ip_network

import msgspec

from cumulet.host.driver import Guest
from cumulet.host.nics import placed
from cumulet.host.record import Record
from cumulet.host.wiring import Subnet, Wiring

VIF_TYPE = "tap"
"""How every port is connected, as `binding:vif_type` of its API says."""
NETWORK_NAME = "network{}"
TAP_NAME_LENGTH = 14
"""Characters of a network interface's name that Nova fills: ``tap`` and the start of the port's id."""


class ToldPort(Record, frozen=True):
    """A port with its addresses, each with the subnet that it is of: version 4 first, lower before higher."""

    id: str
    network_id: str
    mac: str
    mtu: int
    addresses: tuple[tuple[str, Subnet], ...]


def network_data(ports: Sequence[ToldPort]) -> dict[str, object]:
    """``{"links": [...], "networks": [...], "services": [...]}``; ``{}`` for a server without ports."""
    if not ports:
        return {}
    links: list[dict[str, object]] = []
    networks: list[dict[str, object]] = []
    services: list[dict[str, str]] = []
    for port in ports:
        if not port.addresses:
            continue
        link = f"tap{port.id}"[:TAP_NAME_LENGTH]
        links.append(
            {"id": link, "vif_id": port.id, "type": VIF_TYPE, "mtu": port.mtu, "ethernet_mac_address": port.mac}
        )
        for address, subnet in _first_of_each_version(port.addresses):
            networks.append(_network(port, address, subnet, NETWORK_NAME.format(len(networks)), link))
            services += [service for service in _dns(subnet) if service not in services]
    return {"links": links, "networks": networks, "services": services}


def of_guest(guest: Guest, wiring: Wiring) -> dict[str, object] | None:
    """Of a guest on this host, from its NICs as they are now; None while one of its ports is not wired here."""
    ports, networks = {port.id: port for port in wiring.ports}, {each.id: each for each in wiring.networks}
    told: list[ToldPort] = []
    for nic in placed(guest):
        port = ports.get(nic.port_id)
        if port is None or port.network_id not in networks:
            return None
        on = networks[port.network_id]
        told.append(
            ToldPort(
                id=port.id,
                network_id=on.id,
                mac=port.mac,
                mtu=on.mtu,
                addresses=tuple(_placed_in(port.addresses, on.subnets)),
            )
        )
    return network_data(told)


def _placed_in(addresses: Iterable[str], subnets: Sequence[Subnet]) -> Iterable[tuple[str, Subnet]]:
    for address in addresses:
        for subnet in subnets:
            if ip_address(address) in ip_network(subnet.cidr):
                yield address, subnet
                break


def _first_of_each_version(addresses: Iterable[tuple[str, Subnet]]) -> list[tuple[str, Subnet]]:
    """The first address of each version of IP, version 4 first, as Nova."""
    found: dict[int, tuple[str, Subnet]] = {}
    for address, subnet in addresses:
        found.setdefault(subnet.version, (address, subnet))
    return [found[version] for version in sorted(found)]


def _network(port: ToldPort, address: str, subnet: Subnet, name: str, link: str) -> dict[str, object]:
    view: dict[str, object] = {"id": name, "link": link, "network_id": port.network_id}
    if subnet.address_mode is None and subnet.dhcp:
        return {**view, "type": f"ipv{subnet.version}_dhcp"}
    mode = "" if subnet.address_mode is None else f"_{subnet.address_mode}"
    everywhere = "0.0.0.0" if subnet.version == 4 else "::"  # noqa: S104 - a route's target, not a listener
    routes = [] if subnet.gateway is None else [_route(everywhere, everywhere, subnet.gateway)]
    for route in subnet.routes:
        target = ip_network(route.destination)
        routes.append(_route(str(target.network_address), str(target.netmask), route.nexthop))
    netmask = str(ip_network(subnet.cidr).netmask)
    view |= {"type": f"ipv{subnet.version}{mode}", "ip_address": address, "netmask": netmask}
    return view | {"routes": routes, "services": _dns(subnet)}


class _Route(Record, frozen=True):
    network: str
    netmask: str
    gateway: str


def _route(target: str, netmask: str, gateway: str) -> dict[str, object]:
    return msgspec.structs.asdict(_Route(network=target, netmask=netmask, gateway=gateway))


def _dns(subnet: Subnet) -> list[dict[str, str]]:
    return [{"type": "dns", "address": address} for address in subnet.dns_servers]
