"""The status of servers' ports and their subports: ACTIVE where the host says that a guest is plugged in, else DOWN.

As in Neutron, a port that is administratively down is always DOWN: its host lets no packet pass.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.db.parts import OfMany, in_parts
from cumulet.network.store import port_bindings, ports
from cumulet.network.trunk_ports import WAYS

_BOUND_TO_HOST = [
    sa.select(ports.c.id, ports.c.status, ports.c.admin_state_up)
    .select_from(way.joined)
    .where(
        port_bindings.c.host == sa.bindparam("of_host"),
        port_bindings.c.active,
        way.server_id.in_(sa.bindparam("of_servers", expanding=True)),
    )
    for way in WAYS
]
_SET_STATUS = sa.update(ports).where(ports.c.id.in_(sa.bindparam("of_ports", expanding=True)))
_SET_STATUS_IF_UP = _SET_STATUS.where(ports.c.admin_state_up)


class BoundPort(NamedTuple):
    """A port of a server, and its active binding's host has the server or will have it."""

    server_id: str
    id: str
    status: str
    admin_state_up: bool


_BOUND_TO_THESE = [
    OfMany(
        sa.select(
            port_bindings.c.host, way.server_id.label("server_id"), ports.c.id, ports.c.status, ports.c.admin_state_up
        )
        .select_from(way.joined)
        .where(port_bindings.c.active, way.server_id.is_not(None)),
        port_bindings.c.host,
    )
    for way in WAYS
]


def bound_to(tx: Tx, hosts: Sequence[str]) -> dict[str, list[BoundPort]]:
    """The ports whose active binding is to each of these hosts."""
    found: dict[str, list[BoundPort]] = {}
    for row in itertools.chain.from_iterable(bound.rows(tx, hosts) for bound in _BOUND_TO_THESE):
        port = BoundPort(row.server_id or "", row.id, row.status, row.admin_state_up)
        found.setdefault(row.host, []).append(port)
    return found


def changed_links(tx: Tx, host: str, linked: Collection[str], server_ids: Sequence[str]) -> dict[str, list[str]]:
    """The ports of these servers on `host` whose status changes, by their new status.

    linked: the ports that the host says are plugged.
    """
    changed: dict[str, list[str]] = {}
    for part, bound in itertools.product(in_parts(server_ids), _BOUND_TO_HOST):
        for row in tx.all(bound, {"of_host": host, "of_servers": list(part)}):
            status = "ACTIVE" if row.admin_state_up and row.id in linked else "DOWN"
            if row.status != status:
                changed.setdefault(status, []).append(row.id)
    return changed


def record_links(tx: Tx, host: str, linked: Collection[str], server_ids: Sequence[str]) -> None:
    """Set the status of the ports that `changed_links` finds."""
    for status, port_ids in changed_links(tx, host, linked, server_ids).items():
        for part in in_parts(port_ids):
            tx.run(_SET_STATUS, {"of_ports": list(part), "status": status})


def record_plugged(tx: Tx, port_id: str) -> None:
    """Record that its host says that this one port is plugged."""
    tx.run(_SET_STATUS_IF_UP, {"of_ports": [port_id], "status": "ACTIVE"})
