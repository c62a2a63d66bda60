"""Where a server wants to be, relative to others: scheduler hints ``same_host``, ``different_host`` and ``group``."""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.compute.model import Server
from cumulet.compute.store import server_group_members, server_groups, servers
from cumulet.db.engine import Tx

_GROUP = (
    sa.select(server_groups)
    .join(server_group_members, server_group_members.c.group_id == server_groups.c.id)
    .where(server_group_members.c.server_id == sa.bindparam("of_server"))
)


def constraints(tx: Tx, server: Server) -> tuple[frozenset[str] | None, frozenset[str]]:
    """(hosts it must be on, or None for any; hosts it must not be on), from the hints of its request.

    A hint that names a server which is not there, or not of its project, leaves no host to be on.
    """
    beside = _ids(server.scheduler_hints.get("same_host"))
    together = _hosts_of(tx, beside, server) if beside else None
    apart = _hosts_of(tx, _ids(server.scheduler_hints.get("different_host")), server)
    grouped, crowded = _of_group(tx, server)
    if grouped:
        together = grouped if together is None else together & grouped
    return (together, apart | crowded)


def _of_group(tx: Tx, server: Server) -> tuple[frozenset[str], frozenset[str]]:
    """(hosts of an affinity group's other members, hosts with as many of an anti-affinity group as it allows).

    The soft policies are wishes, which the scheduler may leave unfulfilled.
    """
    group = tx.first(_GROUP, {"of_server": server.id})
    if group is None or group.policy not in ("affinity", "anti-affinity"):
        return frozenset(), frozenset()
    members = tx.all(
        sa.select(servers.c.host, sa.func.count().label("members"))
        .join(server_group_members, server_group_members.c.server_id == servers.c.id)
        .where(
            server_group_members.c.group_id == group.id,
            servers.c.id != server.id,
            servers.c.host.is_not(None),
            servers.c.deleted_at_us.is_(None),
        )
        .group_by(servers.c.host)
    )
    if group.policy == "affinity":
        return frozenset(row.host for row in members), frozenset()
    most = int(group.rules.get("max_server_per_host", 1))
    return frozenset(), frozenset(row.host for row in members if row.members >= most)


def _ids(hint: object) -> list[str]:
    if isinstance(hint, str):
        return [hint]
    return [item for item in hint if isinstance(item, str)] if isinstance(hint, list) else []


def _hosts_of(tx: Tx, ids: list[str], server: Server) -> frozenset[str]:
    """Where those of `ids` are that belong to the server's project: nobody moves in beside another's by its id."""
    if not ids:
        return frozenset()
    found = tx.all(
        sa.select(servers.c.host).where(
            servers.c.id.in_(ids),
            servers.c.id != server.id,
            servers.c.project_id == server.project_id,
            servers.c.host.is_not(None),
            servers.c.deleted_at_us.is_(None),
        )
    )
    return frozenset(row.host for row in found)
