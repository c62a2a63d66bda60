"""Names of ports on their network: `dns_name`, `dns_assignment`, and the network's `dns_domain`."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest
from cumulet.network import bodies
from cumulet.network.store import Network, Port, ports

DEFAULT_DOMAIN = "openstacklocal."
"""Of networks whose `dns_domain` is empty, as in Neutron."""


def hostname(dns_name: str, address: str) -> str:
    """The host name of a port's address. Without `dns_name` it is made from the address, as in Neutron."""
    return dns_name or "host-" + address.replace(".", "-").replace(":", "-")


def assignment(dns_name: str, address: str, dns_domain: str) -> Mapping[str, str]:
    """One entry of a port's `dns_assignment`. A name that ends in a dot is fully qualified already."""
    name = hostname(dns_name, address)
    domain = (dns_domain or DEFAULT_DOMAIN).rstrip(".")
    return {"hostname": name, "ip_address": address, "fqdn": name if name.endswith(".") else f"{name}.{domain}."}


def refuse_too_long(dns_name: str, network: Network) -> None:
    """400 for a name that is too long with the domain of its network."""
    whole = assignment(dns_name, "", network.dns_domain)["fqdn"]
    if dns_name and len(whole) > bodies.MAX_DNS_NAME:
        raise BadRequest(
            f"Invalid input for dns_name. Reason: '{dns_name}' with the domain of its network has {len(whole)} "
            f"characters, and a name has {bodies.MAX_DNS_NAME} at most."
        )


def refuse_too_long_domain(tx: Tx, network: Network, dns_domain: str) -> None:
    """400 for a new domain of a network with which the name of one of its ports would be too long."""
    room = bodies.MAX_DNS_NAME - len(assignment("", "", dns_domain)["fqdn"].removeprefix("host-"))
    length = sa.func.length(ports.c.dns_name)
    longest = sa.select(ports.c.id, ports.c.dns_name).where(
        ports.c.network_id == network.id, ports.c.dns_name.not_like("%."), length > room
    )
    found = tx.first(longest.order_by(length.desc(), ports.c.id).limit(1))
    if found is not None and dns_domain != network.dns_domain:
        whole = assignment(found.dns_name, "", dns_domain)["fqdn"]
        raise BadRequest(
            f"Invalid input for dns_domain. Reason: with it the name of port {found.id} has {len(whole)} characters, "
            f"and a name has {bodies.MAX_DNS_NAME} at most."
        )


def of_server(server_hostname: str) -> str:
    """The `dns_name` of a server's ports; empty where the server's host name is not valid in DNS."""
    return server_hostname.lower() if bodies.is_dns_name(server_hostname) else ""


def refuse_another(port: Port, server_id: str, server_hostname: str) -> None:
    """400, as Nova, for a port whose name is not that of the server that it would belong to."""
    if port.dns_name and port.dns_name != server_hostname.lower():
        raise BadRequest(
            f"Port {port.id} not usable for instance {server_id}. Value {port.dns_name} assigned to dns_name attribute "
            f"does not match instance's hostname {server_hostname}"
        )
