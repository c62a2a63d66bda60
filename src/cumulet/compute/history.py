"""History is kept for a bounded time and in bounded number; the rest is forgotten, a little at a time.

History is: operations and migrations that have ended, instance actions with their events, and the records of deleted
servers and images. Nothing that an operation still works on is forgotten, however old it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.compute.resized import resized_servers
from cumulet.compute.store import instance_actions, migrations, servers
from cumulet.conductor.saga import operations
from cumulet.db.engine import Database, Row, Tx, metadata
from cumulet.periodic import Periodic
from cumulet.settings import Settings

ROUND_SECONDS = 60.0
"""How often it looks for rows to forget."""
PART = 100
"""The most rows that are forgotten in one transaction."""
DAY_US = 86_400_000_000


class Kind(msgspec.Struct, frozen=True):
    """A table whose rows are history when `ended` holds, since the moment in the column `since_us`."""

    name: str
    table: sa.Table
    since_us: str
    ended: sa.ColumnElement[bool]
    per_server: bool = False
    """Whether there is a limit for each server, too."""

    @property
    def age(self) -> sa.Column[int]:
        return self.table.c[self.since_us]


def kinds() -> tuple[Kind, ...]:
    images = metadata.tables["images"]
    at_work = sa.exists().where(operations.c.id == instance_actions.c.operation_id, operations.c.ended_at_us.is_(None))
    waits_for_its_user = sa.exists().where(resized_servers.c.migration_id == migrations.c.id)
    return (
        Kind("operations", operations, "ended_at_us", operations.c.ended_at_us.is_not(None)),
        Kind(
            "migrations",
            migrations,
            "ended_at_us",
            sa.and_(migrations.c.ended_at_us.is_not(None), ~waits_for_its_user),
        ),
        Kind("server actions", instance_actions, "started_at_us", ~at_work, per_server=True),
        Kind("deleted servers", servers, "deleted_at_us", servers.c.deleted_at_us.is_not(None)),
        Kind("deleted images", images, "deleted_at_us", images.c.deleted_at_us.is_not(None)),
    )


class Kept(msgspec.Struct, frozen=True):
    """The history in one table: how many rows, and the moment of the oldest."""

    name: str
    rows: int
    oldest_us: int | None


def kept(tx: Tx) -> list[Kept]:
    """For `cumulet status`."""
    found = []
    for kind in kinds():
        row = tx.first(
            sa.select(sa.func.count().label("rows"), sa.func.min(kind.age).label("oldest")).where(kind.ended)
        )
        assert row is not None
        found.append(Kept(kind.name, row.rows, row.oldest))
    return found


def excess(tx: Tx, kind: Kind, settings: Settings, now_us: int) -> Sequence[Row]:
    """Ids of rows to forget, the oldest first, `PART` at most."""
    oldest = sa.select(kind.table.c.id).where(kind.ended).order_by(kind.age, kind.table.c.id).limit(PART)
    too_old = tx.all(oldest.where(kind.age < now_us - settings.history_days * DAY_US))
    if too_old:
        return [row.id for row in too_old]
    rows = tx.scalar(sa.select(sa.func.count()).select_from(kind.table).where(kind.ended))
    if rows > settings.history_rows:
        return [row.id for row in tx.all(oldest.limit(min(PART, rows - settings.history_rows)))]
    if kind.per_server:
        server = kind.table.c.server_id
        number = sa.func.count()
        crowded = sa.select(server, number.label("rows")).where(kind.ended).group_by(server)
        crowded = crowded.having(number > settings.history_rows_per_server)
        if (row := tx.first(crowded.limit(1))) is not None:
            most = min(PART, row.rows - settings.history_rows_per_server)
            return [one.id for one in tx.all(oldest.where(server == row.server_id).limit(most))]
    return []


class History(Periodic):
    """Forgets history on a timer."""

    def __init__(self, *, db: Database, clock: Clock, settings: Settings) -> None:
        super().__init__(name="history", clock=clock, seconds=ROUND_SECONDS)
        self._db = db
        self._settings = settings

    async def round(self) -> None:
        for kind in kinds():
            while await self._forget(kind):
                pass

    async def _forget(self, kind: Kind) -> int:
        """Find rows in a transaction that only reads and forget them in another; how many were forgotten."""
        now_us = self._clock.now_us()
        ids = await self._db.read_async(lambda tx: excess(tx, kind, self._settings, now_us))
        if not ids:
            return 0
        statement = sa.delete(kind.table).where(kind.table.c.id.in_(ids), kind.ended)
        return await self._db.write_async(lambda tx: tx.changed(statement))
