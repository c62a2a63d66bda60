"""The bodies of requests that create or change subnets."""

from __future__ import annotations

from typing import Annotated, Literal

from cumulet.network import bodies, subnet_checks
from cumulet.web.schema import UNSET, Body, Json, Unset


class Pool(Body):
    start: bodies.IpAddress
    end: bodies.IpAddress


class HostRoute(Body):
    destination: bodies.IpRange
    nexthop: bodies.IpAddress


Ipv6Mode = Literal["dhcpv6-stateful", "dhcpv6-stateless", "slaac"]
Pools = Annotated[list[Pool], Json({"maxItems": 50})]
NameServers = Annotated[list[bodies.IpAddress], Json({"maxItems": subnet_checks.MAX_NAMESERVERS})]
HostRoutes = Annotated[list[HostRoute], Json({"maxItems": subnet_checks.MAX_ROUTES})]


class NewSubnet(bodies.NewNamed):
    """A new subnet."""

    network_id: bodies.Id
    ip_version: bodies.Number
    cidr: bodies.SubnetRange | Unset | None = UNSET
    gateway_ip: bodies.IpAddress | Unset | None = UNSET
    enable_dhcp: bodies.Truth | Unset = UNSET
    ipv6_ra_mode: Ipv6Mode | Unset | None = UNSET
    ipv6_address_mode: Ipv6Mode | Unset | None = UNSET
    allocation_pools: Pools | Unset | None = UNSET
    dns_nameservers: NameServers | Unset | None = UNSET
    host_routes: HostRoutes | Unset | None = UNSET
    service_types: subnet_checks.ServiceTypes | Unset = UNSET
    dns_publish_fixed_ip: bodies.Truth | Unset = UNSET
    subnetpool_id: bodies.Name | Unset | None = UNSET
    use_default_subnetpool: bodies.Truth | Unset = UNSET
    prefixlen: bodies.Number | Unset | None = UNSET
    segment_id: bodies.Id | Unset | None = UNSET
    tags: bodies.Tags | Unset = UNSET


class CreateSubnets(Body):
    subnet: NewSubnet | Unset = UNSET
    subnets: list[NewSubnet] | Unset = UNSET


class UpdateSubnet(bodies.NamedChange):
    gateway_ip: bodies.IpAddress | Unset | None = UNSET
    enable_dhcp: bodies.Truth | Unset = UNSET
    allocation_pools: Pools | Unset | None = UNSET
    dns_nameservers: NameServers | Unset | None = UNSET
    host_routes: HostRoutes | Unset | None = UNSET
    service_types: subnet_checks.ServiceTypes | Unset = UNSET
    dns_publish_fixed_ip: bodies.Truth | Unset = UNSET
