"""What a resized server keeps where it came from, until its user confirms or reverts: disk, share, and how it was."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from cumulet.compute.model import Flavor
from cumulet.compute.store import migrations
from cumulet.db.engine import Tx, metadata
from cumulet.db.parts import OfMany
from cumulet.placement import allocations as placement

resized_servers = sa.Table(
    "resized_servers",
    metadata,
    sa.Column("server_id", sa.String(36), primary_key=True),
    sa.Column("migration_id", sa.Integer, nullable=False),
    sa.Column("migration_uuid", sa.String(36), nullable=False),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("flavor", sa.JSON, nullable=False),
    sa.Column("guest", sa.JSON, nullable=False),
    sa.Column("was_running", sa.Boolean, nullable=False),
    sa.Column("finished_at_us", sa.BigInteger, nullable=False),
    sa.Index("ix_resized_servers_host", "host"),
)


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A row: `host` is where the server came from, `guest` its description there."""

    server_id: str
    migration_id: int
    migration_uuid: str
    host: str
    flavor: Flavor
    guest: dict[str, object]
    was_running: bool
    finished_at_us: int


def keep(tx: Tx, kept: Kept) -> None:
    tx.execute(sa.insert(resized_servers), msgspec.to_builtins(kept))


_OF_SERVER = sa.select(resized_servers).where(resized_servers.c.server_id == sa.bindparam("of_server"))
_ON_HOSTS = OfMany(sa.select(resized_servers.c.host, resized_servers.c.server_id), resized_servers.c.host)


def kept_of(tx: Tx, server_id: str) -> Kept | None:
    row = tx.first(_OF_SERVER, {"of_server": server_id})
    return None if row is None else Kept(**{**row._mapping, "flavor": Flavor(**row.flavor)})


def kept_on(tx: Tx, names: Sequence[str]) -> dict[str, set[str]]:
    """By host that keeps old disks: their servers' ids. These live elsewhere, and their guests there are not drift."""
    found: dict[str, set[str]] = {}
    for row in _ON_HOSTS.rows(tx, names):
        found.setdefault(row.host, set()).add(row.server_id)
    return found


def kept_since(tx: Tx, before_us: int) -> list[str]:
    """Ids of servers that were resized before this moment and wait for an answer."""
    rows = tx.all(sa.select(resized_servers.c.server_id).where(resized_servers.c.finished_at_us < before_us))
    return [row.server_id for row in rows]


def let_go(tx: Tx, kept: Kept, *, status: str, now_us: int) -> None:
    """The resize is over, confirmed or reverted: give back its share (if it is not yet), end its record."""
    placement.release(tx, consumer=kept.migration_uuid, now_us=now_us)
    tx.execute(
        sa.update(migrations)
        .where(migrations.c.id == kept.migration_id)
        .values(status=status, updated_at_us=now_us, ended_at_us=now_us)
    )
    tx.execute(sa.delete(resized_servers).where(resized_servers.c.server_id == kept.server_id))
