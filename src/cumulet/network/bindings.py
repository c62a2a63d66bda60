"""Which hosts a port is bound to: one active binding, and during a move an inactive second one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.network.store import Binding, find, in_parts, port_bindings, ports

UNBOUND = ""
"""The host of a port that is bound nowhere."""

VIF_TYPE = "tap"
VIF_DETAILS: Mapping[str, object] = {"port_filter": True, "connectivity": "l2"}


def vif(binding: Binding) -> tuple[str, dict[str, object]]:
    """How a host plugs the port: type and details, as Network shows them to administrators."""
    return ("unbound", {}) if binding.host == UNBOUND else (VIF_TYPE, dict(VIF_DETAILS))


def of_ports(tx: Tx, port_ids: Sequence[str]) -> dict[str, list[Binding]]:
    """All bindings of many ports, the active one first."""
    found: dict[str, list[Binding]] = {port_id: [] for port_id in port_ids}
    for part in in_parts(port_ids):
        for binding in find(tx, Binding, port_bindings.c.port_id.in_(part)):
            found[binding.port_id].append(binding)
    for bindings in found.values():
        bindings.sort(key=lambda binding: (not binding.active, binding.host))
    return found


def of_server(server_id: str) -> sa.Select[tuple[str]]:
    """The ids of the ports plugged into a server, for use inside other statements."""
    return sa.select(ports.c.id).where(ports.c.server_id == server_id)


def move_active(tx: Tx, port_ids: sa.Select[tuple[str]], host: str) -> None:
    """The active binding of these ports names `host` from now on; inactive ones elsewhere stay."""
    of_these = port_bindings.c.port_id.in_(port_ids)
    already = port_bindings.alias("already")
    active_there = sa.exists().where(
        already.c.port_id == port_bindings.c.port_id, already.c.active, already.c.host == host
    )
    tx.execute(
        sa.delete(port_bindings).where(of_these, port_bindings.c.host == host, ~port_bindings.c.active, ~active_there)
    )
    tx.execute(sa.update(port_bindings).where(of_these, port_bindings.c.active).values(host=host))


def add_inactive(tx: Tx, port_ids: sa.Select[tuple[str]], host: str) -> None:
    """A second, inactive binding like the active one; ports that already have one to `host` keep it."""
    there = port_bindings.alias("there")
    already = sa.exists().where(there.c.port_id == port_bindings.c.port_id, there.c.host == host)
    like_active = sa.select(
        port_bindings.c.port_id, sa.literal(host), sa.false(), port_bindings.c.vnic_type, port_bindings.c.profile
    ).where(port_bindings.c.port_id.in_(port_ids), port_bindings.c.active, ~already)
    tx.execute(sa.insert(port_bindings).from_select(["port_id", "host", "active", "vnic_type", "profile"], like_active))


def remove_inactive(tx: Tx, port_ids: sa.Select[tuple[str]], host: str) -> int:
    """Drop inactive bindings to `host`; an active one stays."""
    return tx.changed(
        sa.delete(port_bindings).where(
            port_bindings.c.port_id.in_(port_ids), port_bindings.c.host == host, ~port_bindings.c.active
        )
    )


def activate(tx: Tx, port_ids: sa.Select[tuple[str]], host: str) -> None:
    """The binding to `host` becomes the only one; it is made where it is missing."""
    add_inactive(tx, port_ids, host)
    of_these = port_bindings.c.port_id.in_(port_ids)
    tx.execute(sa.delete(port_bindings).where(of_these, port_bindings.c.host != host))
    tx.execute(sa.update(port_bindings).where(of_these, port_bindings.c.host == host).values(active=True))
