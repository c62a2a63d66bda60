"""What the network of a host is called in the kernel. A name that begins so is ours, any other is never touched."""

from __future__ import annotations

TAP, BRIDGE, VXLAN = "cmt", "cmb", "cmx"
OURS = (TAP, BRIDGE, VXLAN)
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


def _short(record_id: str) -> str:
    return record_id.replace("-", "")[:_ID_DIGITS]
