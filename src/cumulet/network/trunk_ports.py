"""Which server's guest sends the frames of a port: by a NIC that is the port, or tagged on the NIC of a trunk's parent.

Where a subport is follows from its parent's bindings and is stored nowhere else: a move takes the subports along.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from msgspec.structs import replace

from cumulet.db.engine import Tx
from cumulet.db.parts import OfMany
from cumulet.network import bindings
from cumulet.network.store import Binding, port_bindings, ports
from cumulet.network.trunk_records import trunk_subports, trunks

_PARENT = ports.alias("parent")


class Way(NamedTuple):
    """How ports lead to guests. `joined`: ports with the bindings that count; `server_id`: whose guest it is."""

    server_id: sa.ColumnElement[str | None]
    joined: sa.Join


BY_NIC = Way(ports.c.server_id, ports.join(port_bindings, port_bindings.c.port_id == ports.c.id))
BY_TRUNK = Way(
    _PARENT.c.server_id,
    trunk_subports.join(ports, ports.c.id == trunk_subports.c.port_id)
    .join(trunks, trunks.c.id == trunk_subports.c.trunk_id)
    .join(_PARENT, _PARENT.c.id == trunks.c.port_id)
    .join(port_bindings, port_bindings.c.port_id == _PARENT.c.id),
)
WAYS = (BY_NIC, BY_TRUNK)
"""A port leads to a guest in one of them at most."""


class Carrier(NamedTuple):
    """What carries a subport: the trunk, its parent port, and the tag."""

    trunk_id: str
    parent_id: str
    segmentation_id: int


_CARRIERS = OfMany(
    sa.select(trunk_subports.c.port_id, trunks.c.id, trunks.c.port_id.label("parent"), trunk_subports.c.segmentation_id)
    .select_from(trunk_subports)
    .join(trunks, trunks.c.id == trunk_subports.c.trunk_id),
    trunk_subports.c.port_id,
)
_CARRIED = OfMany(
    sa.select(trunk_subports.c.port_id)
    .join(trunks, trunks.c.id == trunk_subports.c.trunk_id)
    .order_by(trunk_subports.c.port_id),
    trunks.c.port_id,
)


def carriers(tx: Tx, port_ids: Iterable[str]) -> dict[str, Carrier]:
    """By id of each of these ports that is a subport: what carries it."""
    rows = _CARRIERS.rows(tx, sorted(port_ids))
    return {row.port_id: Carrier(row.id, row.parent, row.segmentation_id) for row in rows}


def subports_of(tx: Tx, parent_ids: Iterable[str]) -> list[str]:
    """Ids of the subports whose trunks have these parent ports."""
    return [row.port_id for row in _CARRIED.rows(tx, sorted(parent_ids))]


_SUBPORTS_OF_SERVER = (
    sa.select(trunk_subports.c.port_id)
    .select_from(BY_TRUNK.joined)
    .where(BY_TRUNK.server_id == sa.bindparam("of_server"))
    .limit(1)
)


def has_subports(tx: Tx, server_id: str) -> bool:
    """Whether a server's guest carries subports."""
    return tx.first(_SUBPORTS_OF_SERVER, {"of_server": server_id}) is not None


_HOSTS = (
    sa.select(port_bindings.c.host)
    .select_from(BY_TRUNK.joined)
    .where(BY_TRUNK.server_id.is_not(None), port_bindings.c.host != bindings.UNBOUND)
)
"""Without DISTINCT: for it, SQLite would go through all bindings in the order of their hosts."""


def hosts(tx: Tx) -> list[str]:
    """The hosts whose guests carry subports, or will."""
    return sorted({row.host for row in tx.all(_HOSTS, {})})


def trunk_of_parent(tx: Tx, port_id: str) -> str | None:
    """The id of the trunk whose parent this port is."""
    found: str | None = tx.scalar(_TRUNK_OF, {"of_parent": port_id})
    return found


def is_subport(tx: Tx, port_id: str) -> bool:
    return bool(carriers(tx, [port_id]))


def in_trunk(tx: Tx, port_id: str) -> bool:
    """Whether a port is a trunk's parent, or a subport."""
    return trunk_of_parent(tx, port_id) is not None or bool(carriers(tx, [port_id]))


_TRUNK_OF = sa.select(trunks.c.id).where(trunks.c.port_id == sa.bindparam("of_parent"))
_PARENT_OF = (
    sa.select(trunks.c.port_id)
    .join(trunk_subports, trunk_subports.c.trunk_id == trunks.c.id)
    .where(trunk_subports.c.port_id == ports.c.id)
    .correlate(ports)
    .scalar_subquery()
)
BOUND_BY = sa.func.coalesce(_PARENT_OF, ports.c.id)
"""The port whose bindings count for a port, in statements about `ports`."""


def bindings_of(tx: Tx, port_ids: Sequence[str]) -> dict[str, list[Binding]]:
    """The bindings that count for each of these ports, the active one first: a subport has its parent's hosts."""
    carried = carriers(tx, port_ids)
    found = bindings.of_ports(tx, [*port_ids, *({one.parent_id for one in carried.values()} - {*port_ids})])
    with_parents: Mapping[str, list[Binding]] = {
        port_id: [replace(found[port_id][0], host=of.host, active=of.active) for of in found[carrier.parent_id]]
        for port_id, carrier in carried.items()
    }
    return {port_id: with_parents.get(port_id, found[port_id]) for port_id in port_ids}
