"""History is kept for a bounded time and in bounded number; the rest is forgotten, a little at a time.

History is: operations and migrations that have ended, instance actions with their events, the records of deleted
servers and images, and the key pairs of deleted users. Nothing that an operation still works on is forgotten, however
old it is. Where there is too much, the projects that have the most lose first, so nobody makes the cloud forget what
others did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.compute.model import BASE_IMAGE, RESCUE_IMAGE, SHELVED_IMAGE
from cumulet.compute.resized import resized_servers
from cumulet.compute.store import instance_actions, migrations, server_group_members, servers
from cumulet.conductor.saga import operations
from cumulet.db.engine import Database, Row, Select, Tx, metadata
from cumulet.periodic import Periodic
from cumulet.settings import Settings

ROUND_SECONDS = 60.0
"""How often it looks for rows to forget."""
PART = 100
"""The most rows that are forgotten in one transaction."""
FOUND = 5_000
"""The most rows that are looked through at once. What is to be forgotten is counted before, once for a round."""
DAY_US = 86_400_000_000


_MEMBER = sa.tuple_(server_group_members.c.group_id, server_group_members.c.server_id)
_GONE = (
    sa.select(server_group_members)
    .where(~sa.exists().where(servers.c.id == server_group_members.c.server_id, servers.c.deleted_at_us.is_(None)))
    .limit(PART)
)


class Kind(msgspec.Struct, frozen=True):
    """A table whose rows are history when `ended` holds, since the moment in the column `since_us`."""

    name: str
    table: sa.Table
    since_us: str
    ended: sa.ColumnElement[bool]
    owner: sa.ColumnElement[str | None]
    """The project whose history it is; of key pairs, the user."""
    server: sa.ColumnElement[str] | None = None
    """The id of the server that it is about; None: it is a record of something deleted itself."""
    per_server: bool = False
    """Whether there is a limit for each server, too."""
    needed: sa.ColumnElement[bool] | None = None
    """Where this holds the row stays, however old it is. Once it does not, it never does again."""

    @property
    def over(self) -> sa.ColumnElement[bool]:
        """Whether the row may be forgotten."""
        return self.ended if self.needed is None else sa.and_(self.ended, ~self.needed)

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
    images, key_pairs, users = (metadata.tables[name] for name in ("images", "key_pairs", "identity_users"))
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
        Kind(
            "deleted images",
            images,
            "deleted_at_us",
            images.c.deleted_at_us.is_not(None),
            owner=images.c.owner,
            needed=images.c.id.in_(images_of_servers()),
        ),
        Kind(
            "key pairs of deleted users",
            key_pairs,
            "created_at_us",
            ~sa.exists().where(users.c.id == key_pairs.c.user_id),
            owner=key_pairs.c.user_id,
        ),
    )


def images_of_servers() -> sa.CompoundSelect[tuple[str]]:
    """The ids of images that servers refer to: one of them may be deleted, and its id must not become another image's.

    Servers are made anew from their images, on other hosts too, without anybody asking for the image by its id.
    """
    named = (servers.c.system_metadata[key].as_string() for key in (BASE_IMAGE, RESCUE_IMAGE, SHELVED_IMAGE))
    live = servers.c.deleted_at_us.is_(None)
    return sa.union_all(*(sa.select(one).where(live, one.is_not(None)) for one in (servers.c.image_id, *named)))


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


def too_many(tx: Tx, kind: Kind, most: int) -> Counter[tuple[str, bool]]:
    """How many rows are forgotten until `most` are left, by project and by whether the server that they are of lives.

    No project loses a row while another one has more. What is about servers that live stays while there is anything
    else.
    """
    if tx.scalar(sa.select(sa.func.count()).select_from(kind.table).where(kind.ended)) <= most:
        return Counter()
    each = sa.select(kind.project.label("of_project"), kind.lives.label("is_alive")).where(kind.over).subquery()
    number = sa.func.count().label("rows")
    counted = tx.all(sa.select(each.c.of_project, each.c.is_alive, number).group_by(each.c.of_project, each.c.is_alive))
    of_living = {row.of_project: row.rows for row in counted if row.is_alive}
    of_gone = {row.of_project: row.rows for row in counted if not row.is_alive}
    room = max(0, most - sum(of_living.values()))
    lost = {(project, False): rows for project, rows in losses(of_gone, room).items()}
    return Counter(lost | {(project, True): rows for project, rows in losses(of_living, most).items()})


def crowded(tx: Tx, kind: Kind, most: int) -> dict[str, int]:
    """How many rows are forgotten of each server that has more than `most`."""
    server, number = kind.table.c.server_id, sa.func.count()
    statement = sa.select(server, number.label("rows")).where(kind.ended).group_by(server).having(number > most)
    return {row.server_id: row.rows - most for row in tx.all(statement)}


def _oldest(kind: Kind) -> Select:
    """The oldest first, each with its `age`, its project and whether its server lives."""
    columns = kind.table.c.id, kind.age.label("age"), kind.project.label("of_project"), kind.lives.label("is_alive")
    return sa.select(*columns).where(kind.over).order_by(kind.age, kind.table.c.id).limit(FOUND)


class History(Periodic):
    """Forgets history on a timer."""

    def __init__(self, *, db: Database, clock: Clock, settings: Settings) -> None:
        super().__init__(name="history", clock=clock, seconds=ROUND_SECONDS)
        self._db = db
        self._settings = settings

    async def round(self) -> None:
        for kind in kinds():
            await self._forget_too_old(kind)
            await self._forget_too_many(kind)
            if kind.per_server:
                await self._forget_of_crowded(kind)
        while await self._leave_groups():
            pass

    async def _leave_groups(self) -> int:
        """Deleted servers leave their groups: every boot into a group looks at all of its members."""
        gone = [tuple(row) for row in await self._rows(_GONE)]
        if not gone:
            return 0
        return await self._db.write_async(
            lambda tx: tx.changed(sa.delete(server_group_members).where(_MEMBER.in_(gone)))
        )

    async def _forget_too_old(self, kind: Kind) -> None:
        oldest = _oldest(kind).where(kind.age < self._clock.now_us() - self._settings.history_days * DAY_US)
        while await self._forget(kind, [row.id for row in await self._rows(oldest)]):
            pass

    async def _forget_too_many(self, kind: Kind) -> None:
        """Go once through the rows, the oldest first, until each project has lost what it is to lose."""
        lost = await self._db.read_async(lambda tx: too_many(tx, kind, self._settings.history_rows))
        statement = _oldest(kind)
        while lost.total() and (rows := await self._rows(statement)):
            ids: list[int | str] = []
            for row in rows:
                group = row.of_project, bool(row.is_alive)
                if lost[group]:
                    lost[group] -= 1
                    ids.append(row.id)
            await self._forget(kind, ids)
            place = sa.tuple_(kind.age, kind.table.c.id)
            statement = _oldest(kind).where(place > (rows[-1].age, rows[-1].id))

    async def _forget_of_crowded(self, kind: Kind) -> None:
        most = self._settings.history_rows_per_server
        for server_id, lost in (await self._db.read_async(lambda tx: crowded(tx, kind, most))).items():
            its = _oldest(kind).where(kind.table.c.server_id == server_id)
            for done in range(0, lost, FOUND):
                rows = await self._rows(its.limit(min(FOUND, lost - done)))
                await self._forget(kind, [row.id for row in rows])

    async def _rows(self, statement: Select) -> Sequence[Row]:
        return await self._db.read_async(lambda tx: tx.all(statement))

    async def _forget(self, kind: Kind, ids: Sequence[int | str]) -> int:
        """`PART` in each transaction, after one that only read had found them. How many there still were."""
        return sum([await self._forget_part(kind, ids[n : n + PART]) for n in range(0, len(ids), PART)])

    async def _forget_part(self, kind: Kind, ids: Sequence[int | str]) -> int:
        statement = sa.delete(kind.table).where(kind.table.c.id.in_(ids), kind.ended)
        return await self._db.write_async(lambda tx: tx.changed(statement))
