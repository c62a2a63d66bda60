"""Which hosts a port is bound to: one active binding, and during a move an inactive second one."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from enum import StrEnum

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.network.many import find_many
from cumulet.network.store import Binding, port_bindings, ports

UNBOUND = ""
"""The host in the binding of a port that is not bound."""

NORMAL = "normal"
"""The one type of NIC that hosts offer. Network keeps the others as asked, as upstream, and no host plugs them."""
VIF_TYPE = "tap"
VIF_DETAILS: Mapping[str, object] = {"port_filter": True, "connectivity": "l2"}


def vif(binding: Binding) -> tuple[str, dict[str, object]]:
    """How a host plugs the port: type and details, as Network shows them to administrators."""
    if binding.host == UNBOUND:
        return "unbound", {}
    return (VIF_TYPE, dict(VIF_DETAILS)) if binding.vnic_type == NORMAL else ("binding_failed", {})


def of_ports(tx: Tx, port_ids: Sequence[str]) -> dict[str, list[Binding]]:
    """All bindings of many ports, the active one first."""
    found: dict[str, list[Binding]] = {port_id: [] for port_id in port_ids}
    for binding in find_many(tx, Binding, "port_id", port_ids):
        found[binding.port_id].append(binding)
    for bindings in found.values():
        bindings.sort(key=lambda binding: (not binding.active, binding.host))
    return found


class Which(StrEnum):
    """Whose ports are meant: all of a server, or one port. The value is the column of `ports` that holds the id."""

    SERVER = "server_id"
    PORT = "id"


_HOST = sa.bindparam("to_host", type_=sa.String())
_T = port_bindings.c


def _of_these(which: Which) -> sa.ColumnElement[bool]:
    wanted = sa.bindparam("which_id", type_=sa.String())
    return _T.port_id.in_(sa.select(ports.c.id).where(ports.c[which.value] == wanted))


def _run(tx: Tx, statement: sa.Executable, which_id: str, host: str) -> int:
    return tx.changed(statement, {"which_id": which_id, "to_host": host})


@functools.cache
def _dropping_inactive_for_active(which: Which) -> sa.Delete:
    active = port_bindings.alias("active_one")
    elsewhere = sa.exists().where(active.c.port_id == _T.port_id, active.c.active, active.c.host != _HOST)
    return sa.delete(port_bindings).where(_of_these(which), _T.host == _HOST, ~_T.active, elsewhere)


@functools.cache
def _moving_active(which: Which) -> sa.Update:
    return sa.update(port_bindings).where(_of_these(which), _T.active).values(host=_HOST)


@functools.cache
def _adding_inactive(which: Which) -> sa.Insert:
    there = port_bindings.alias("there")
    already = sa.exists().where(there.c.port_id == _T.port_id, there.c.host == _HOST)
    like_active = sa.select(_T.port_id, _HOST, sa.false(), _T.vnic_type, _T.profile).where(
        _of_these(which), _T.active, ~already
    )
    return sa.insert(port_bindings).from_select(["port_id", "host", "active", "vnic_type", "profile"], like_active)


@functools.cache
def _removing_inactive(which: Which) -> sa.Delete:
    return sa.delete(port_bindings).where(_of_these(which), _T.host == _HOST, ~_T.active)


@functools.cache
def _dropping_others(which: Which) -> sa.Delete:
    return sa.delete(port_bindings).where(_of_these(which), _T.host != _HOST)


@functools.cache
def _activating(which: Which) -> sa.Update:
    return sa.update(port_bindings).where(_of_these(which), _T.host == _HOST).values(active=True)


def bind(tx: Tx, which: Which, which_id: str, host: str) -> None:
    """Move the active binding of these ports to `host`. Inactive bindings to other hosts stay."""
    _run(tx, _dropping_inactive_for_active(which), which_id, host)
    _run(tx, _moving_active(which), which_id, host)


def add_inactive(tx: Tx, which: Which, which_id: str, host: str) -> None:
    """Add a second, inactive binding like the active one. A port that has a binding to `host` keeps that."""
    _run(tx, _adding_inactive(which), which_id, host)


def remove_inactive(tx: Tx, which: Which, which_id: str, host: str) -> int:
    """Remove inactive bindings to `host`; returns how many. An active one stays."""
    return _run(tx, _removing_inactive(which), which_id, host)


def activate(tx: Tx, which: Which, which_id: str, host: str) -> None:
    """Make the binding to `host` the active and only one. It is added where it is missing."""
    _run(tx, _adding_inactive(which), which_id, host)
    _run(tx, _dropping_others(which), which_id, host)
    _run(tx, _activating(which), which_id, host)
