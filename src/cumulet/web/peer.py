"""The peer of a connection, for bounds by address: one IPv4 address, or one IPv6 /64."""

from __future__ import annotations

import functools
import ipaddress

IPV6_PREFIX = 64
"""Bits. A provider gives each customer at least a /64, so one caller has all addresses of it."""


@functools.lru_cache(maxsize=4096)
def peer_of(address: str) -> str:
    """The IPv4 address, also of one written as IPv6 (``::ffff:192.0.2.1``); the /64 of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, IPV6_PREFIX), strict=False))
