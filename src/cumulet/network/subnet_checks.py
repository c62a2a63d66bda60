"""Neutron's rules for a subnet's range, gateway, pools, name servers and routes."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from itertools import pairwise
from typing import Annotated

from cumulet.errors import BadRequest, Conflict
from cumulet.network import addresses, device_owners, refusals
from cumulet.network.addresses import AddressRange
from cumulet.network.bodies import either
from cumulet.network.store import Network, Subnet
from cumulet.web.schema import Convert, Json

SMALLEST_MTU = {4: 68, 6: 1280}
"""The smallest MTU in bytes with which IP works (RFC 791, RFC 8200), by IP version."""
MAX_NAMESERVERS, MAX_ROUTES = 5, 20
MOST_AUTOMATIC = 16
"""Subnets of one network in which guests give themselves addresses: Linux takes no more on an interface by itself
(its setting `max_addresses`)."""
MOST_GIVEN = 512
"""Addresses that several such subnets of one request give to the guests that are there. One alone gives any number."""


def service_type(value: str) -> str:
    """The beginning of a port's `device_owner`."""
    if not value.startswith(device_owners.PREFIXES):
        raise ValueError(f"Subnet service type {value} does not correspond to a valid device owner")
    return value


ServiceType = Annotated[str, Json({"maxLength": 255, "format": "one line"}), Convert(service_type)]
ServiceTypes = Annotated[list[ServiceType], Json({"maxItems": 20})]


def check_range(cidr: AddressRange, version: int) -> None:
    if version not in (4, 6):
        raise BadRequest(f"Invalid input for ip_version. Reason: '{version}' is not in [4, 6].")
    _check_version("cidr", str(cidr), cidr.version, version)
    if cidr.prefixlen == 0:
        raise refusals.invalid("0 is not allowed as CIDR prefix length.")
    if version == 6 and int(cidr.network_address) == 0:
        raise refusals.invalid("IPv6 subnet '::' is not supported.")


def check_dhcp(cidr: AddressRange) -> None:
    """400 for a range whose addresses DHCP cannot give to guests."""
    if cidr.num_addresses <= 2:
        raise refusals.invalid("Subnet has a prefix length that is incompatible with DHCP service enabled.")
    if cidr.network_address.is_multicast:
        raise refusals.invalid("Multicast IP subnet is not supported if enable_dhcp is True.")
    if cidr.network_address.is_loopback:
        raise refusals.invalid("Loopback IP subnet is not supported if enable_dhcp is True.")
    if int(cidr.network_address) == 0:
        raise refusals.invalid("First IP '0.0.0.0' of network is not supported if enable_dhcp is True.")


def check_gateway(cidr: AddressRange, gateway_ip: str) -> None:
    gateway = ip_address(gateway_ip)
    _check_version("gateway_ip", gateway_ip, gateway.version, cidr.version)
    if cidr.version == 4 and gateway in (cidr.network_address, cidr.broadcast_address):
        raise refusals.invalid("Gateway is not valid on subnet.")


def _check_version(attribute: str, value: str, version: int, wanted: int) -> None:
    if version != wanted:
        raise refusals.invalid(f"{attribute} '{value}' does not match the ip_version '{wanted}'.")


def check_ipv6_modes(cidr: AddressRange, *, ra_mode: str | None, address_mode: str | None, enable_dhcp: bool) -> None:
    modes = {"ipv6_ra_mode": ra_mode, "ipv6_address_mode": address_mode}
    given = [(name, mode) for name, mode in modes.items() if mode is not None]
    if not given:
        return
    if cidr.version == 4:
        raise refusals.invalid(f"{given[0][0]} is not valid when ip_version is 4.")
    if not enable_dhcp:
        raise refusals.invalid("ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False.")
    if ra_mode and address_mode and ra_mode != address_mode:
        raise refusals.invalid(
            f"ipv6_ra_mode set to '{ra_mode}' with ipv6_address_mode set to '{address_mode}' is not valid. "
            "If both attributes are set, they must be the same value."
        )
    if not addresses.AUTO_ADDRESS_MODES.isdisjoint(mode for _, mode in given) and cidr.prefixlen != 64:
        raise refusals.invalid(
            f"Invalid CIDR {cidr} for IPv6 address mode. OpenStack uses the EUI-64 address format, "
            "which requires the prefix to be /64."
        )


def check_mtu(network: Network, version: int) -> None:
    """409 for a network whose MTU is too small for this IP version."""
    least = SMALLEST_MTU[4] if network.mtu < SMALLEST_MTU[4] else SMALLEST_MTU[version]
    if network.mtu < least:
        raise mtu_conflict(network, least)


def mtu_conflict(network: Network, least: int) -> Conflict:
    return Conflict(
        f"The network {network.id} has subnets that need packets of {least} bytes: a smaller MTU is not possible.",
        reason="NetworkMTUSubnetConflict",
    )


def pools_of(cidr: AddressRange, wanted: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """Allocation pools, lowest first. Refused if they overlap, or have addresses that hosts cannot have."""
    lowest, highest = addresses.for_hosts(cidr)
    ranges = []
    for start_text, end_text in wanted:
        start, end = ip_address(start_text), ip_address(end_text)
        if start.version != cidr.version or end.version != cidr.version or int(start) > int(end):
            raise BadRequest(
                f"The allocation pool {start_text}-{end_text} is not valid.", reason="InvalidAllocationPool"
            )
        if int(start) < lowest or int(end) > highest:
            raise BadRequest(
                f"The allocation pool {start_text}-{end_text} spans beyond the subnet cidr {cidr}.",
                reason="OutOfBoundsAllocationPool",
            )
        ranges.append((int(start), int(end), f"{start}-{end}", {"start": str(start), "end": str(end)}))
    ranges.sort(key=lambda item: item[:2])
    for (_, end_before, before, _), (start_after, _, after, _) in pairwise(ranges):
        if start_after <= end_before:
            raise Conflict(
                f"Found overlapping allocation pools: {before}, {after} for subnet {cidr}.",
                reason="OverlappingAllocationPools",
            )
    return [pool for _, _, _, pool in ranges]


def check_gateway_outside(pools: Sequence[dict[str, str]], gateway_ip: str) -> None:
    gateway = addresses.number(gateway_ip)
    for pool in pools:
        if addresses.number(pool["start"]) <= gateway <= addresses.number(pool["end"]):
            raise Conflict(
                f"Gateway ip {gateway_ip} conflicts with allocation pool {pool['start']}-{pool['end']}.",
                reason="GatewayConflictWithAllocationPools",
            )


def nameservers_of(version: int, wanted: object) -> list[str]:
    servers: list[str] = either(wanted, None) or []
    if len(set(servers)) != len(servers):
        raise BadRequest("Invalid input for dns_nameservers. Reason: Duplicate nameserver.")
    for server in servers:
        _check_version("dns_nameserver", server, ip_address(server).version, version)
    return servers


def routes_of(version: int, wanted: object) -> list[dict[str, str]]:
    found = [{"destination": r.destination, "nexthop": r.nexthop} for r in either(wanted, None) or []]
    if len({tuple(route.items()) for route in found}) != len(found):
        raise BadRequest("Invalid input for host_routes. Reason: Duplicate hostroute.")
    for route in found:
        _check_version("nexthop", route["nexthop"], ip_address(route["nexthop"]).version, version)
        _check_version("destination", route["destination"], ip_network(route["destination"]).version, version)
    return found


def check_change(
    subnet: Subnet, values: dict[str, object], *, gateway_ip: str | None, pools: list[dict[str, str]] | None
) -> None:
    """Check a change of a subnet as a whole. `values`: the new ones, each of them checked already.

    gateway_ip: the gateway after the change. pools: the new pools; None where they stay.
    """
    cidr = ip_network(subnet.cidr)
    if gateway_ip is not None and (gateway_ip != subnet.gateway_ip or pools is not None):
        check_gateway_outside(subnet.allocation_pools if pools is None else pools, gateway_ip)
    if values.get("enable_dhcp") is True and not subnet.enable_dhcp:
        check_dhcp(cidr)
    if values.get("enable_dhcp") is False and (subnet.ipv6_ra_mode or subnet.ipv6_address_mode):
        raise refusals.invalid("Cannot disable enable_dhcp with ipv6 attributes set.")
