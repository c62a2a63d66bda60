"""Where a server wants to be, relative to others: scheduler hints ``same_host``, ``different_host`` and ``group``."""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.compute.model import Server
from cumulet.compute.store import servers
from cumulet.db.engine import Tx


def constraints(tx: Tx, server: Server) -> tuple[frozenset[str] | None, frozenset[str]]:
    """(hosts it must be on, or None for any; hosts it must not be on), from the hints of its request."""
    together = _hosts_of(tx, _ids(server.scheduler_hints.get("same_host")), server.id)
    apart = _hosts_of(tx, _ids(server.scheduler_hints.get("different_host")), server.id)
    return (together or None, apart)


def _ids(hint: object) -> list[str]:
    if isinstance(hint, str):
        return [hint]
    return [item for item in hint if isinstance(item, str)] if isinstance(hint, list) else []


def _hosts_of(tx: Tx, ids: list[str], but: str) -> frozenset[str]:
    if not ids:
        return frozenset()
    found = tx.all(
        sa.select(servers.c.host).where(
            servers.c.id.in_(ids), servers.c.id != but, servers.c.host.is_not(None), servers.c.deleted_at_us.is_(None)
        )
    )
    return frozenset(row.host for row in found)
