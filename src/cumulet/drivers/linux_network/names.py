"""What the network of a host is called in the kernel. A name that begins so is ours, any other is never touched."""

from __future__ import annotations

TAP, BRIDGE, VXLAN, ROUTER = "cmt", "cmb", "cmx", "cmr"
OURS = (TAP, BRIDGE, VXLAN, ROUTER)
TABLE = "cumulet"
"""Of nftables: in the family `bridge`, and where groups are looked at in `inet`."""
BRIDGE_MAC = "02:00:a9:fe:a9:fe"
"""The host's own end of every bridge, on every host: a guest that has moved finds it again without asking."""
_ID_DIGITS = 12
"""An interface's name has at most 15 characters."""


def tap(port_id: str) -> str:
    return TAP + _short(port_id)


def bridge(network_id: str) -> str:
    return BRIDGE + _short(network_id)


def vxlan(network_id: str) -> str:
    return VXLAN + _short(network_id)


def router_port(port_id: str) -> str:
    """The host's end of the cable to a router's port."""
    return ROUTER + _short(port_id)


OUTSIDE = "outside"
"""The router's own end of the cable to its external network."""


def inside(port_id: str) -> str:
    """The router's own end of the cable to a tenant's network."""
    return "in" + _short(port_id)


def namespace(host_namespace: int, router_id: str) -> str:
    """A router's network namespace, which belongs to the host whose own namespace has this inode."""
    return f"{namespaces_of(host_namespace)}{_short(router_id)}"


def namespaces_of(host_namespace: int) -> str:
    """How the names of a host's routers' namespaces begin."""
    return f"{ROUTER}-{host_namespace}-"


def _short(record_id: str) -> str:
    return record_id.replace("-", "")[:_ID_DIGITS]
