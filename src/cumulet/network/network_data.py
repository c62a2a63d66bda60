"""`network_data.json`: what a guest is told about its own networks, in Nova's format."""

from __future__ import annotations

from ipaddress import ip_network

from cumulet.db.engine import Tx
from cumulet.network.bindings import VIF_TYPE
from cumulet.network.for_compute import PortAddress, PortView, ports_of
from cumulet.network.store import Subnet, find, subnets

TAP_NAME_LENGTH = 14
"""Characters of a network interface's name that Nova fills: ``tap`` and the start of the port's id."""


def network_data(tx: Tx, server_id: str) -> dict[str, object]:
    """``{"links": [...], "networks": [...], "services": [...]}``; ``{}`` for a server without ports."""
    ports = ports_of(tx, [server_id]).get(server_id, [])
    if not ports:
        return {}
    wanted = {address.subnet_id for port in ports for address in port.addresses}
    known = {subnet.id: subnet for subnet in find(tx, Subnet, subnets.c.id.in_(sorted(wanted)))} if wanted else {}
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
        for address in _first_of_each_version(port):
            subnet = known[address.subnet_id]
            networks.append(_network(port, address, subnet, f"network{len(networks)}", link))
            services += [service for service in _dns(subnet) if service not in services]
    return {"links": links, "networks": networks, "services": services}


def _first_of_each_version(port: PortView) -> list[PortAddress]:
    """The first address of each version of IP, version 4 first, as Nova."""
    found: dict[int, PortAddress] = {}
    for address in port.addresses:
        found.setdefault(address.version, address)
    return [found[version] for version in sorted(found)]


def _network(port: PortView, address: PortAddress, subnet: Subnet, name: str, link: str) -> dict[str, object]:
    view: dict[str, object] = {"id": name, "link": link, "network_id": port.network_id}
    if subnet.ipv6_address_mode is None and subnet.enable_dhcp:
        return {**view, "type": f"ipv{address.version}_dhcp"}
    mode = "" if subnet.ipv6_address_mode is None else f"_{subnet.ipv6_address_mode}"
    everywhere = "0.0.0.0" if address.version == 4 else "::"  # noqa: S104 - a route's target, not a listener
    routes = [] if subnet.gateway_ip is None else [_route(everywhere, everywhere, subnet.gateway_ip)]
    for route in subnet.host_routes:
        target = ip_network(route["destination"])
        routes.append(_route(str(target.network_address), str(target.netmask), route["nexthop"]))
    return {
        **view, "type": f"ipv{address.version}{mode}", "ip_address": address.address,
        "netmask": str(ip_network(subnet.cidr).netmask), "routes": routes, "services": _dns(subnet),
    }  # fmt: skip


def _route(network: str, netmask: str, gateway: str) -> dict[str, str]:
    return {"network": network, "netmask": netmask, "gateway": gateway}


def _dns(subnet: Subnet) -> list[dict[str, str]]:
    return [{"type": "dns", "address": address} for address in subnet.dns_nameservers]
