"""A server's addresses and interfaces, as Network has them."""

from __future__ import annotations

from cumulet.compute.flavors import ShowQuery
from cumulet.compute.model import Server
from cumulet.compute.rules import READER
from cumulet.compute.server_views import addresses
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.errors import NotFound
from cumulet.network import for_compute as network
from cumulet.network.for_compute import PortView
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule

IPS = rule("os_compute_api:ips:index", READER)
IPS_OF_NETWORK = rule("os_compute_api:ips:show", READER)
INTERFACES = rule("os_compute_api:os-attach-interfaces:list", READER)
INTERFACE = rule("os_compute_api:os-attach-interfaces:show", READER)


@COMPUTE.operation("GET", "/servers/{server_id}/ips", rules=(Rule(IPS),), target=server_in_sight, query=ShowQuery)
def list_addresses(call: Call[Server, None]) -> dict[str, object]:
    """List a server's addresses by network."""
    return {"addresses": addresses(_ports(call), extended=False)}


@COMPUTE.operation(
    "GET",
    "/servers/{server_id}/ips/{network_label}",
    rules=(Rule(IPS_OF_NETWORK),),
    target=server_in_sight,
    query=ShowQuery,
)
def list_addresses_of_network(call: Call[Server, None]) -> dict[str, object]:
    """List a server's addresses on one network, by the network's name."""
    label = call.path["network_label"]
    found = addresses(_ports(call), extended=False)
    if label not in found:
        raise NotFound("Instance is not a member of specified network")
    return {label: found[label]}


@COMPUTE.operation(
    "GET", "/servers/{server_id}/os-interface", rules=(Rule(INTERFACES),), target=server_in_sight, query=ShowQuery
)
def list_interfaces(call: Call[Server, None]) -> dict[str, object]:
    """List a server's ports."""
    return {"interfaceAttachments": [interface_view(call, port) for port in _ports(call)]}


@COMPUTE.operation(
    "GET",
    "/servers/{server_id}/os-interface/{port_id}",
    rules=(Rule(INTERFACE),),
    target=server_in_sight,
    query=ShowQuery,
)
def show_interface(call: Call[Server, None]) -> dict[str, object]:
    """Show one of a server's ports."""
    port_id = call.path["port_id"]
    port = next((port for port in _ports(call) if port.id == port_id), None)
    if port is None:
        raise NotFound(f"Instance {call.target.id} does not have a port with id {port_id}")
    return {"interfaceAttachment": interface_view(call, port)}


def _ports(call: Call[Server, None]) -> list[PortView]:
    return network.ports_of(call.tx, [call.target.id]).get(call.target.id, [])


def interface_view(call: Call[Server, object], port: PortView) -> dict[str, object]:
    view: dict[str, object] = {
        "net_id": port.network_id,
        "port_id": port.id,
        "mac_addr": port.mac,
        "port_state": port.status,
        "fixed_ips": [{"ip_address": held.address, "subnet_id": held.subnet_id} for held in port.addresses],
    }
    if call.version.at_least("2.70"):
        view["tag"] = port.tag
    return view
