"""Networks under Compute's own paths (up to 2.35), for clients that still look there: their ids and names."""

from __future__ import annotations

from typing import TypedDict

from cumulet.compute.links import page
from cumulet.compute.rules import READER
from cumulet.compute.service import COMPUTE
from cumulet.errors import NotFound
from cumulet.network.networks import NETWORKS
from cumulet.network.resource import find_in_sight
from cumulet.network.sight import networks_in_sight
from cumulet.network.store import Network, load, select
from cumulet.network.store import networks as rows
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule

LAST = "2.35"
LIST = rule("os_compute_api:os-networks:list", READER)
SHOW = rule("os_compute_api:os-networks:show", READER)
LIST_OF_TENANT = rule("os_compute_api:os-tenant-networks:list", READER)
SHOW_OF_TENANT = rule("os_compute_api:os-tenant-networks:show", READER)

NOTHING = ("cidr", "netmask", "gateway", "broadcast", "dns1", "dns2", "cidr_v6", "gateway_v6", "netmask_v6")
NOTHING_FOR_ADMINISTRATORS = (
    "created_at",
    "updated_at",
    "deleted_at",
    "deleted",
    "injected",
    "bridge",
    "vlan",
    "vpn_public_address",
    "vpn_public_port",
    "vpn_private_address",
    "dhcp_start",
    "project_id",
    "host",
    "bridge_interface",
    "multi_host",
    "priority",
    "rxtx_base",
    "mtu",
    "dhcp_server",
    "enable_dhcp",
    "share_address",
)
"""What networks had before Network was a service of its own. Nova still shows the names, without values."""


class TenantNetwork(TypedDict):
    id: str
    cidr: str
    label: str


@COMPUTE.operation("GET", "/os-networks", rules=(Rule(LIST),), until=LAST)
def list_networks(call: Call[None, None]) -> dict[str, object]:
    """List the networks that the caller sees."""
    return {"networks": [_view(call, network) for network in _in_sight(call)]}


@COMPUTE.operation("GET", "/os-networks/{network_id}", rules=(Rule(SHOW),), until=LAST)
def show_network(call: Call[None, None]) -> dict[str, object]:
    """Show a network."""
    return {"network": _view(call, _network(call))}


@COMPUTE.operation("GET", "/os-tenant-networks", rules=(Rule(LIST_OF_TENANT),), until=LAST)
def list_tenant_networks(call: Call[None, None]) -> dict[str, list[TenantNetwork]]:
    """List the networks that the caller sees, in fewer words."""
    return {"networks": [_tenant_view(network) for network in _in_sight(call)]}


@COMPUTE.operation("GET", "/os-tenant-networks/{network_id}", rules=(Rule(SHOW_OF_TENANT),), until=LAST)
def show_tenant_network(call: Call[None, None]) -> dict[str, TenantNetwork]:
    """Show a network, in fewer words."""
    return {"network": _tenant_view(_network(call))}


def _in_sight(call: Call[None, None]) -> list[Network]:
    """At most a page: these lists never had a way to ask for the next."""
    wanted = select(Network, networks_in_sight(call.caller)).order_by(rows.c.name, rows.c.id)
    return load(call.tx, Network, wanted.limit(page(call, since="2.36").limit))


def _network(call: Call[None, None]) -> Network:
    try:
        return find_in_sight(call, NETWORKS, call.path["network_id"])
    except NotFound:
        raise NotFound("Network not found") from None


def _view(call: Call[None, None], network: Network) -> dict[str, object]:
    names = NOTHING + (NOTHING_FOR_ADMINISTRATORS if call.caller.is_admin else ())
    return {"id": network.id, "label": network.name, **dict.fromkeys(names)}


def _tenant_view(network: Network) -> TenantNetwork:
    return {"id": network.id, "cidr": "None", "label": network.name}  # the word, as Nova has it
