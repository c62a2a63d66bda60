"""Port security, security groups and allowed address pairs of a port, as requests set them."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network

import sqlalchemy as sa

from cumulet.errors import BadRequest, Conflict, NotFound
from cumulet.network import port_life, refusals
from cumulet.network.addresses import overlap, range_of
from cumulet.network.bodies import either
from cumulet.network.group_records import port_security_groups, security_groups
from cumulet.network.port_bodies import AddressPair, UpdatePort
from cumulet.network.sharing import GROUP_SHARING
from cumulet.network.sight import shared_in_sight
from cumulet.network.store import Port
from cumulet.web.operation import Call
from cumulet.web.schema import UNSET, Unset

MAX_ADDRESS_PAIRS = 10
MULTICAST = (ip_network("224.0.0.0/4"), ip_network("ff00::/8"))
EVERYTHING = "0.0.0.0/0"
"""The one address pair that may include multicast addresses: with it a port may send from any address."""


def change(call: Call[Port, UpdatePort], port: Port, body: UpdatePort, values: dict[str, object]) -> bool:
    """Change port security, groups and address pairs, which depend on each other. True if the groups change."""
    tx = call.tx
    secured = either(body.port_security_enabled, port.port_security_enabled)
    present = [
        row[0]
        for row in tx.all(
            sa.select(port_security_groups.c.security_group_id).where(port_security_groups.c.port_id == port.id)
        )
    ]
    wanted = present if body.security_groups is UNSET else wanted_groups(call, body.security_groups) or []
    if not secured and wanted:
        if body.security_groups is UNSET:
            raise Conflict(
                "Port has security group associated. Cannot disable port security or IP address until security group "
                "is removed.",
                reason="PortSecurityPortHasSecurityGroup",
            )
        raise refusals.needs_port_security(port.network_id)
    other_groups = set(wanted) != set(present)
    if other_groups:
        port_life.join_groups(tx, port.id, wanted)
    pairs = port.allowed_address_pairs
    if body.allowed_address_pairs is not UNSET:
        mac = str(values.get("mac_address", port.mac_address))
        pairs = [port_life.with_mac(pair, mac) for pair in as_given(wanted_pairs(body.allowed_address_pairs))]
    if not secured and pairs:
        raise refusals.pairs_need_port_security()
    values |= {"port_security_enabled": secured, "allowed_address_pairs": pairs}
    return other_groups


def wanted_groups(
    call: Call[object, object], wanted: list[str] | Unset | None, seen: set[str] | None = None
) -> list[str] | None:
    """The wanted security groups; None for the default one. 404 for one that the caller does not see.

    `seen`: those that the same request has found in sight; these are added.
    """
    if not isinstance(wanted, list):
        return None
    ids = list(dict.fromkeys(wanted))
    seen = set() if seen is None else seen
    if not seen.issuperset(ids):
        statement = sa.select(security_groups.c.id).where(
            security_groups.c.id.in_(ids), shared_in_sight(call.caller, GROUP_SHARING)
        )
        seen |= {row[0] for row in call.tx.all(statement)}
    for group_id in ids:
        if group_id not in seen:
            raise NotFound(f"Security group {group_id} does not exist", reason="SecurityGroupNotFound")
    return ids


def wanted_pairs(wanted: list[AddressPair] | Unset | None) -> list[AddressPair]:
    pairs: list[AddressPair] = either(wanted, None) or []
    if len(pairs) > MAX_ADDRESS_PAIRS:
        raise BadRequest(f"The number of allowed address pair exceeds the maximum {MAX_ADDRESS_PAIRS}.")
    if len({(pair.ip_address, pair.mac_address) for pair in pairs}) != len(pairs):
        raise BadRequest("Request contains duplicate address pair.", reason="DuplicateAddressPairInRequest")
    for pair in pairs:
        if pair.ip_address != EVERYTHING and any(overlap(range_of(pair.ip_address), one) for one in MULTICAST):
            raise BadRequest(f"{pair.ip_address} overlaps with multicast addresses, which is not supported.")
    return pairs


def as_given(pairs: Sequence[AddressPair]) -> list[dict[str, str]]:
    """The address pairs of a body; those without a MAC address have none yet (`port_life.with_mac`)."""
    return [
        {"ip_address": pair.ip_address}
        | ({"mac_address": pair.mac_address} if isinstance(pair.mac_address, str) else {})
        for pair in pairs
    ]
