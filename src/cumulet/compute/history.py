"""History is kept for a bounded time and in bounded number; the rest is forgotten, a little at a time.

History is: operations and migrations that have ended, instance actions with their events, and the records of deleted
servers and images. Nothing that an operation still works on is forgotten, however old it is. Where there is too much,
the projects that have the most lose first, so nobody makes the cloud forget what others did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.compute.resized import resized_servers
from cumulet.compute.store import instance_actions, migrations, servers
from cumulet.conductor.saga import operations
from cumulet.db.engine import Database, Select, Tx, metadata
from cumulet.periodic import Periodic
from cumulet.settings import Settings

ROUND_SECONDS = 60.0
"""How often it looks for rows to forget."""
PART = 100
"""The most rows that are forgotten in one transaction."""
PARTS = 10
"""So many of them at most are found at once: to find what each project has, all rows are read."""
DAY_US = 86_400_000_000


class Kind(msgspec.Struct, frozen=True):
    """A table whose rows are history when `ended` holds, since the moment in the column `since_us`."""

    name: str
    table: sa.Table
    since_us: str
    ended: sa.ColumnElement[bool]
    owner: sa.ColumnElement[str | None]
    """The project whose history it is."""
    server: sa.ColumnElement[str] | None = None
    """The id of the server that it is about; None: it is a record of something deleted itself."""
    per_server: bool = False
    """Whether there is a limit for each server, too."""

    @property
    def age(self) -> sa.Column[int]:
        return self.table.c[self.since_us]

    @property
    def project(self) -> sa.ColumnElement[str]:
        """That of the server, whoever acted on it; where no record of the server is left, `owner`; else empty."""
        if self.server is None:
            return sa.func.coalesce(self.owner, "")
        of_server = sa.select(servers.c.project_id).where(servers.c.id == self.server)
        return sa.func.coalesce(of_server.scalar_subquery(), self.owner, "")

    @property
    def lives(self) -> sa.ColumnElement[bool]:
        """Whether its server is not deleted."""
        if self.server is None:
            return sa.false()
        return sa.exists().where(servers.c.id == self.server, servers.c.deleted_at_us.is_(None))


def kinds() -> tuple[Kind, ...]:
    images = metadata.tables["images"]
    at_work = sa.exists().where(operations.c.id == instance_actions.c.operation_id, operations.c.ended_at_us.is_(None))
    waits_for_its_user = sa.exists().where(resized_servers.c.migration_id == migrations.c.id)
    return (
        Kind(
            "operations",
            operations,
            "ended_at_us",
            operations.c.ended_at_us.is_not(None),
            owner=sa.cast(sa.null(), sa.String),
            server=operations.c.subject,
        ),
        Kind(
            "migrations",
            migrations,
            "ended_at_us",
            sa.and_(migrations.c.ended_at_us.is_not(None), ~waits_for_its_user),
            owner=migrations.c.project_id,
            server=migrations.c.server_id,
        ),
        Kind(
            "server actions",
            instance_actions,
            "started_at_us",
            ~at_work,
            owner=instance_actions.c.project_id,
            server=instance_actions.c.server_id,
            per_server=True,
        ),
        Kind(
            "deleted servers",
            servers,
            "deleted_at_us",
            servers.c.deleted_at_us.is_not(None),
            owner=servers.c.project_id,
        ),
        Kind("deleted images", images, "deleted_at_us", images.c.deleted_at_us.is_not(None), owner=images.c.owner),
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


def losses(rows: Mapping[str, int], most: int) -> dict[str, int]:
    """How many rows each project loses so that `most` are left of all: those that have the most lose first, and in the
    end as many are left of each of them. `rows`: how many each project has."""
    left = dict.fromkeys(rows, 0)
    room, waiting = most, sorted(rows, key=lambda project: (rows[project], project))
    while waiting:
        project = waiting.pop(0)
        left[project] = min(rows[project], room // (len(waiting) + 1))
        room -= left[project]
    return {project: rows[project] - left[project] for project in rows if rows[project] > left[project]}


def _of_the_largest(tx: Tx, kind: Kind, most: int) -> list[int | str]:
    """Ids of rows to forget until `most` are left, `PARTS` times `PART` at most.

    No project loses a row while another one has more. What is about servers that live stays while there is anything
    else.
    """
    each = sa.select(kind.project.label("of_project"), kind.lives.label("is_alive")).where(kind.ended).subquery()
    number = sa.func.count().label("rows")
    counted = tx.all(sa.select(each.c.of_project, each.c.is_alive, number).group_by(each.c.of_project, each.c.is_alive))
    of_living = {row.of_project: row.rows for row in counted if row.is_alive}
    of_gone = {row.of_project: row.rows for row in counted if not row.is_alive}
    room = max(0, most - sum(of_living.values()))
    found: list[int | str] = []
    for alive, lost in ((False, losses(of_gone, room)), (True, losses(of_living, most))):
        for project in sorted(lost, key=lambda project: -lost[project]):
            wanted = min(lost[project], PARTS * PART - len(found))
            its = sa.and_(kind.project == project, kind.lives if alive else ~kind.lives)
            found += [row.id for row in tx.all(_oldest(kind).where(its).limit(wanted))] if wanted else []
    return found


def _oldest(kind: Kind) -> Select:
    return sa.select(kind.table.c.id).where(kind.ended).order_by(kind.age, kind.table.c.id)


def excess(tx: Tx, kind: Kind, settings: Settings, now_us: int) -> Sequence[int | str]:
    """Ids of rows to forget, the oldest of a project first, `PARTS` times `PART` at most."""
    oldest = _oldest(kind).limit(PART)
    too_old = tx.all(oldest.where(kind.age < now_us - settings.history_days * DAY_US))
    if too_old:
        return [row.id for row in too_old]
    rows = tx.scalar(sa.select(sa.func.count()).select_from(kind.table).where(kind.ended))
    if rows > settings.history_rows:
        return _of_the_largest(tx, kind, settings.history_rows)
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
        return sum([await self._forget_part(kind, ids[n : n + PART]) for n in range(0, len(ids), PART)])

    async def _forget_part(self, kind: Kind, ids: Sequence[int | str]) -> int:
        statement = sa.delete(kind.table).where(kind.table.c.id.in_(ids), kind.ended)
        return await self._db.write_async(lambda tx: tx.changed(statement))
