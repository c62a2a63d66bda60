"""Which hosts reach each other: those of one machine, over its loopback or an inner network, and those of several."""

from __future__ import annotations

import functools
from enum import StrEnum
from ipaddress import ip_address, ip_network

WIRE = ip_network("198.18.0.0/16")
"""Where `cumulet up` puts the hosts that it makes (RFC 2544, for tests between networks): nothing else reaches them."""

_BROADCAST = ip_address("255.255.255.255")


class Reach(StrEnum):
    """Hosts with the same value can send guests, and guests' packets, to each other."""

    LOOPBACK = "loopback"
    WIRE = "wire"
    FURTHER = "further"


@functools.lru_cache(maxsize=65_536)
def is_address(text: str) -> bool:
    """Whether other hosts can send to it: it is the IP address of one interface, without a zone (``%eth0``)."""
    try:
        known = ip_address(text)
    except ValueError:
        return False
    everybody = known.is_multicast or known.is_unspecified or known == _BROADCAST
    return not everybody and getattr(known, "scope_id", None) is None


@functools.lru_cache(maxsize=65_536)
def of(address: str) -> Reach:
    """The value for a host with this address (`HostFacts.address`)."""
    try:
        known = ip_address(address)
    except ValueError:
        return Reach.FURTHER  # A name.
    if known.is_loopback:
        return Reach.LOOPBACK
    return Reach.WIRE if known.version == 4 and known in WIRE else Reach.FURTHER
