"""The bodies of requests that create or change ports."""

from __future__ import annotations

from typing import Annotated, Literal

from cumulet.network import bodies
from cumulet.network.dhcp_options import DhcpOptions
from cumulet.network.fixed_ips import FixedIps
from cumulet.web.schema import UNSET, Body, Json, Key, Unset

VnicType = Literal[
    "normal",
    "direct",
    "direct-physical",
    "macvtap",
    "baremetal",
    "vdpa",
    "virtio-forwarder",
    "smart-nic",
    "accelerator-direct",
    "accelerator-direct-physical",
    "remote-managed",
]
"""All of upstream's (`VNIC_TYPES` of neutron-lib). Hosts offer `bindings.NORMAL` only."""


class AddressPair(Body):
    ip_address: bodies.AddressOrRange
    mac_address: bodies.MacAddress | Unset = UNSET


Groups = Annotated[list[bodies.Id], Json({"maxItems": 100})]
Pairs = Annotated[list[AddressPair], Json({"maxItems": 100})]


class PortValues(bodies.NamedChange):
    """What a new port and a changed one may both have."""

    admin_state_up: bodies.Truth | Unset = UNSET
    fixed_ips: FixedIps | Unset = UNSET
    device_id: bodies.Name | Unset | None = UNSET
    device_owner: bodies.Name | Unset | None = UNSET
    security_groups: Groups | Unset | None = UNSET
    allowed_address_pairs: Pairs | Unset | None = UNSET
    port_security_enabled: bodies.Truth | Unset = UNSET
    extra_dhcp_opts: DhcpOptions | Unset | None = UNSET
    dns_name: bodies.DnsName | Unset | None = UNSET
    qos_policy_id: bodies.Id | Unset | None = UNSET
    host_id: Annotated[bodies.Name | Unset | None, Key("binding:host_id")] = UNSET
    profile: Annotated[dict[str, object] | Unset | None, Key("binding:profile")] = UNSET
    vnic_type: Annotated[VnicType | Unset | None, Key("binding:vnic_type")] = UNSET


class NewPort(PortValues):
    project_id: bodies.ProjectId | Unset = UNSET
    tenant_id: bodies.ProjectId | Unset = UNSET
    network_id: bodies.Id
    mac_address: bodies.MacAddress | Unset | None = UNSET
    tags: bodies.Tags | Unset = UNSET


class CreatePorts(Body):
    port: NewPort | Unset = UNSET
    ports: list[NewPort] | Unset = UNSET


class UpdatePort(PortValues):
    mac_address: bodies.MacAddress | Unset = UNSET
