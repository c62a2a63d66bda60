"""What Network knows of hosts: their names and features. Compute tells it, by `told_by`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from cumulet.db.engine import Tx
from cumulet.errors import NotYet

NETWORKS, BANDWIDTH_LIMITS, FLOATING_IP_LIMITS = "networks", "bandwidth-limits", "floating-ip-limits"
DSCP_MARKS, GATEWAY_LIMITS = "dscp-marks", "gateway-limits"
METERING, TRUNKS = "metering", "trunks"
MINIMUM_BANDWIDTHS, MINIMUM_PACKET_RATES = "minimum-bandwidths", "minimum-packet-rates"
"""Features that hosts say they have, as `host.wiring` has them: this service imports nothing of hosts.

No host of ours offers the last two yet.
"""
_WITHOUT = {
    BANDWIDTH_LIMITS: ("HOST_LIMITS_NO_BANDWIDTH", "limit the bandwidth of ports"),
    FLOATING_IP_LIMITS: ("HOST_LIMITS_NO_BANDWIDTH", "limit the bandwidth of floating IPs"),
    GATEWAY_LIMITS: ("HOST_LIMITS_NO_BANDWIDTH", "limit the bandwidth of routers' gateways"),
    TRUNKS: ("HOST_CARRIES_NO_SUBPORTS", "carry the subports of trunks"),
    METERING: ("HOST_METERS_NOTHING", "meter what passes routers"),
    MINIMUM_BANDWIDTHS: ("HOST_PROMISES_NO_BANDWIDTH", "promise bandwidth to ports"),
    MINIMUM_PACKET_RATES: ("HOST_PROMISES_NO_PACKETS", "promise packets a second to ports"),
    DSCP_MARKS: ("HOST_MARKS_NO_PACKETS", "mark the packets of ports"),
}
"""By feature: the coded reason against a host without it, and what that host cannot do."""


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """A host as it was last heard. `features`: what it can do, as it says itself."""

    name: str
    id: str
    zone: str
    up: bool
    enabled: bool
    features: frozenset[str]
    created_at_us: int
    seen_at_us: int
    started_at_us: int
    may_have_routers: bool


Ask = Callable[[Tx], Sequence[Host]]
_asked: list[Ask] = []


def told_by(ask: Ask) -> Ask:
    """Set the function that answers the hosts. There is one at a time."""
    _asked[:] = [ask]
    return ask


def wiring(tx: Tx) -> list[Host]:
    """The hosts that can have networks, in the order of their names."""
    found = _asked[0](tx) if _asked else ()
    return sorted((host for host in found if NETWORKS in host.features), key=lambda host: host.name)


def require(tx: Tx, feature: str, only: str | None = None) -> None:
    """501 unless every host that has networks offers this feature: a guest may come to any of them.

    only: the host of a guest that is there.
    """
    lacking = (host.name for host in wiring(tx) if feature not in host.features and only in (None, host.name))
    if (first := next(lacking, None)) is not None:
        reason, undone = _WITHOUT[feature]
        raise NotYet(f"A host cannot {undone}.", reason=reason, private=f"{first}: {reason}")
