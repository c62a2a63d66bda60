"""Which processes a cloud has, for `cumulet status`: each notes in the database what it is and that it lives.

Nothing is decided by it: who carries what is a matter of leases (`conductor.leadership`, `conductor.runner`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import version as version_of

import msgspec
import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.conductor.giving_back import give_back
from cumulet.conductor.leadership import leases
from cumulet.db.engine import Database, Tx, metadata
from cumulet.periodic import Periodic

BEAT_SECONDS = 5.0
FORGOTTEN_SECONDS = 3600
"""A process that has been silent for so long is no longer shown."""
FORGET_EVERY_SECONDS = 600.0
"""How often each process deletes the notes of those. It reads the notes of all for it, so PostgreSQL may let others
that note something at that moment try again."""
MOST_SHOWN = 200
CUT_OFF = "cut off"
"""The state of the bus for a process that has lost its connection."""
NO_DOOR = "no door"
"""The same for one that is connected, but where no machine can join or fetch images."""
_PROBLEMS = {CUT_OFF: "the bus is not connected", NO_DOOR: "the door for hosts on other machines is closed"}

processes = sa.Table(
    "processes",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("version", sa.String(64), nullable=False),
    sa.Column("machine", sa.String(255), nullable=False),
    sa.Column("bus", sa.String(64), nullable=False),
    sa.Column("lag_ms", sa.Integer, nullable=False),
    sa.Column("started_at_us", sa.BigInteger, nullable=False),
    sa.Column("heard_at_us", sa.BigInteger, nullable=False),
)

_SEEN = sa.update(processes).where(processes.c.name == sa.bindparam("of_name"))
_GONE = sa.delete(processes).where(processes.c.name == sa.bindparam("of_name"))
_FORGET = sa.delete(processes).where(processes.c.heard_at_us < sa.bindparam("before_us"))
_NEWEST = (
    sa.select(processes)
    .where(processes.c.heard_at_us >= sa.bindparam("since_us"))
    .order_by(processes.c.heard_at_us.desc(), processes.c.name)
    .limit(MOST_SHOWN)
)
_LEASES = sa.select(leases).order_by(leases.c.name)


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process by its last note. `lag_ms`: how long the commit of the note took; `heard_at_us`: when that was."""

    name: str
    role: str
    version: str
    machine: str
    bus: str
    lag_ms: int
    started_at_us: int
    heard_at_us: int


def no_trouble() -> str | None:
    """Of a process without anything that may be in trouble."""
    return None


def no_bus() -> str:
    """The state of the bus for a process without one."""
    return "none"


class Presence(Periodic):
    """Notes that this process lives. `bus` gives the state of its bus: none, connected, cut off, no door; `trouble`:
    why hosts on other machines cannot be reached, for administrators."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        role: str,
        name: str,
        bus: Callable[[], str] = no_bus,
        trouble: Callable[[], str | None] = no_trouble,
    ) -> None:
        super().__init__(name="presence", clock=clock, seconds=BEAT_SECONDS)
        self._db = db
        self._role = role
        self._process = name
        self._bus = bus
        self.trouble = trouble
        self._started_at_us = clock.now_us()
        self._lag_ms = 0
        self._forgot_at = float("-inf")

    async def start(self) -> None:
        await self.round()
        await super().start()

    async def stop(self) -> None:
        """Stop, and delete the note: a process that was told to stop is not missing."""
        await super().stop()
        mine: dict[str, object] = {"of_name": self._process}
        await give_back(self._db, _GONE, mine, seconds=BEAT_SECONDS, said=f"the note of {self._process}")

    async def round(self) -> None:
        before = self._clock.monotonic()
        now = self.now()
        forget = before - self._forgot_at >= FORGET_EVERY_SECONDS
        await self._db.write_async(lambda tx: note(tx, now, forget=forget))
        self._lag_ms = round((self._clock.monotonic() - before) * 1000)
        if forget:
            self._forgot_at = before

    def problem(self) -> str | None:
        """What keeps this process from its work, apart from the database."""
        return _PROBLEMS.get(self._bus())

    def now(self) -> Process:
        """The note of this moment."""
        return Process(
            name=self._process,
            role=self._role,
            version=version_of("cumulet"),
            machine=os.uname().nodename,
            bus=self._bus(),
            lag_ms=self._lag_ms,
            started_at_us=self._started_at_us,
            heard_at_us=self._clock.now_us(),
        )


def note(tx: Tx, one: Process, *, forget: bool) -> None:
    """Write a note. `forget`: delete the notes of those that have been silent for an hour, too."""
    values = msgspec.structs.asdict(one)
    if forget:
        tx.execute(_FORGET, {"before_us": _hour_before(one.heard_at_us)})
    if not tx.changed(_SEEN, {"of_name": one.name, **values}):
        tx.execute(sa.insert(processes), values)


def heard(tx: Tx, now_us: int) -> list[Process]:
    """The processes heard in the last hour, the newest first. `now_us`: of a clock as those that wrote the notes."""
    rows = tx.all(_NEWEST, {"since_us": _hour_before(now_us)})
    return [msgspec.convert(row._mapping, Process) for row in rows]


def _hour_before(at_us: int) -> int:
    return at_us - FORGOTTEN_SECONDS * 1_000_000


def held(tx: Tx) -> list[tuple[str, str]]:
    """The name of each lease of `leadership`, and the process that holds it or held it last."""
    return [(row.name, row.owner) for row in tx.all(_LEASES, {})]
