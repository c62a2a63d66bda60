"""The addresses that a request wants: ``fixed_ips``. `address_changes` changes those of a port."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from cumulet.errors import BadRequest
from cumulet.network import bodies, resource
from cumulet.network.addresses import FixedIp
from cumulet.network.bodies import either
from cumulet.network.subnets import SUBNETS
from cumulet.web.operation import Call
from cumulet.web.schema import UNSET, Body, Json, Unset

MAX_FIXED_IPS = 50
"""The most addresses that one port may ask for."""
MOST_AT_ONCE = 80
"""The most that all new ports of one request may ask for: five for each."""


class WantedIp(Body):
    subnet_id: bodies.Id | Unset = UNSET
    ip_address: bodies.IpAddress | Unset = UNSET
    delete_subnet: bodies.Truth | Unset = UNSET
    """In a change only: give back the port's automatic address in this subnet."""


FixedIps = Annotated[list[WantedIp], Json({"maxItems": MAX_FIXED_IPS})]


def refuse_too_many(wanted: Sequence[object]) -> None:
    """400 for a request whose ports ask for too many addresses together. `wanted`: ``fixed_ips`` of each port."""
    if sum(len(given) for given in wanted if isinstance(given, list)) > MOST_AT_ONCE:
        raise BadRequest(f"Invalid input for fixed_ips. Reason: one request asks for {MOST_AT_ONCE} addresses at most.")


def wanted_of(call: Call[object, object], given: object, seen: set[str] | None = None) -> list[FixedIp] | None:
    """The wanted addresses; None if absent. 404 for a subnet that the caller does not see.

    `seen`: the ids of those that the same request has found in sight; those of these are added.
    """
    if not isinstance(given, list):
        return None
    kept: Sequence[WantedIp] = [wanted for wanted in given if wanted.delete_subnet is not True]
    found = [FixedIp(subnet_id=either(w.subnet_id, None), address=either(w.ip_address, None)) for w in kept]
    named = [fixed.address for fixed in found if fixed.address]
    if len(set(named)) != len(named):
        raise BadRequest("Invalid input for fixed_ips. Reason: Duplicate IP address.")
    named_subnets = list(dict.fromkeys(fixed.subnet_id for fixed in found if fixed.subnet_id))
    seen = set() if seen is None else seen
    if unknown := [subnet_id for subnet_id in named_subnets if subnet_id not in seen]:
        seen |= set(resource.found_in_sight(call, SUBNETS, unknown))
    for subnet_id in named_subnets:
        if subnet_id not in seen:
            raise resource.unknown(SUBNETS, subnet_id)
    return found


def dropped_of(given: Sequence[WantedIp]) -> frozenset[str]:
    """The subnets whose automatic addresses are to be given back."""
    return frozenset(w.subnet_id for w in given if w.delete_subnet is True and isinstance(w.subnet_id, str))
