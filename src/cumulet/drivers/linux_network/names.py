"""Names in the kernel of all that is in a host's network. Interfaces with other names are never touched."""

from __future__ import annotations

TAP, BRIDGE, VXLAN, ROUTER = "cmt", "cmb", "cmx", "cmr"
OURS = (TAP, BRIDGE, VXLAN, ROUTER)
TABLE = "cumulet"
"""The name of both tables of nftables, in the families `bridge` and `inet`."""
BRIDGE_MAC = "02:00:a9:fe:a9:fe"
"""Of the host's own end of every bridge, on every host: a guest that has moved need not ask for it again."""
_ID_DIGITS = 12
"""An interface's name has at most 15 characters."""


def tap(port_id: str) -> str:
    return TAP + _short(port_id)


def bridge(network_id: str) -> str:
    return BRIDGE + _short(network_id)


def vxlan(network_id: str) -> str:
    return VXLAN + _short(network_id)


def router_port(port_id: str) -> str:
    """The host's end of the veth pair that leads to a router's port."""
    return ROUTER + _short(port_id)


OUTSIDE = "outside"
"""The router's end of the veth pair to its external network."""


def inside(port_id: str) -> str:
    """The router's end of the veth pair to a tenant's network."""
    return "in" + _short(port_id)


def namespace(host_namespace: int, router_id: str) -> str:
    """A router's network namespace. `host_namespace`: the inode of the namespace of the host that has the router."""
    return f"{namespaces_of(host_namespace)}{_short(router_id)}"


def namespaces_of(host_namespace: int) -> str:
    """How the names of a host's routers' namespaces begin."""
    return f"{ROUTER}-{host_namespace}-"


def _short(record_id: str) -> str:
    return record_id.replace("-", "")[:_ID_DIGITS]
