"""The bindings of a server's ports: each has one to the server's host, and during a move a second, inactive one."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.network import bindings
from cumulet.network.bindings import Which
from cumulet.network.store import Port, find_by, port_bindings, ports


def bound_elsewhere(server_id: sa.ColumnElement[object], host: sa.ColumnElement[object]) -> sa.Exists:
    """Whether a port of a server has a binding that is not the active one to `host`, for compute's own statements."""
    return sa.exists().where(
        ports.c.server_id == server_id,
        port_bindings.c.port_id == ports.c.id,
        sa.or_(port_bindings.c.host != host, ~port_bindings.c.active),
    )


def bind(tx: Tx, server_id: str, host: str) -> None:
    """Move the active binding of a server's ports to `host`. Inactive bindings to other hosts stay."""
    bindings.bind(tx, Which.SERVER, server_id, host)


def add_inactive(tx: Tx, server_id: str, host: str) -> None:
    """Add a second, inactive binding for a move to `host`."""
    bindings.add_inactive(tx, Which.SERVER, server_id, host)


def remove_inactive(tx: Tx, server_id: str, host: str) -> None:
    """Undo `add_inactive`. An active binding is never removed."""
    bindings.remove_inactive(tx, Which.SERVER, server_id, host)


def activate(tx: Tx, server_id: str, host: str) -> None:
    """After a move: make the binding to `host` the active and only one."""
    bindings.activate(tx, Which.SERVER, server_id, host)


class BindingHosts(msgspec.Struct, frozen=True, kw_only=True):
    """The hosts that a port is bound to. `active` is empty for a port that is not bound."""

    active: str
    inactive: tuple[str, ...]


def hosts_of(tx: Tx, server_id: str) -> dict[str, BindingHosts]:
    """The bindings of each of a server's ports, by port id."""
    port_ids = [port.id for port in find_by(tx, Port, server_id=server_id)]
    return {
        port_id: BindingHosts(
            active=next((binding.host for binding in found if binding.active), bindings.UNBOUND),
            inactive=tuple(binding.host for binding in found if not binding.active),
        )
        for port_id, found in bindings.of_ports(tx, port_ids).items()
    }
