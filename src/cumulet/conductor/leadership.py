"""Of several conductors one leads: it holds a lease in the database, and runs what must run once in a cloud.

Theory of operation. The row of a lease has an owner and a beat, a number that the owner raises all the time. Nobody
compares wall clocks: another conductor takes the lease when it has seen the same beat for `seconds` of its own clock.
The owner counts `seconds` too, from just before the last beat that it knows the database has stored. When they are
over, it stops what it leads, whether the database answers or not. So it has stopped before the next leader begins.

An owner that has lost the bus to the hosts gives the lease back (`conductor.without_bus`): it could tell no host to
renew its own lease. Others are told at once that the lease is free.

A process that was paused (SIGSTOP, a suspended machine) may continue its work before it looks at its clock. So what
only the leader may write, such as that a host is down, is written in a transaction that checks the lease (`require`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from cumulet.clock import Clock
from cumulet.conductor.giving_back import give_back
from cumulet.conductor.without_bus import WithoutBus
from cumulet.db.engine import Database, Tx, metadata
from cumulet.db.fair_queue import before_all_else
from cumulet.periodic import Reconciler

log = logging.getLogger(__name__)

ROUNDS = 4
"""How often a lease is looked at while it runs."""
LEASES_GIVEN_BACK = "cumulet_leases"
"""The channel on which a conductor says that it has given a lease back."""

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("beat", sa.BigInteger, nullable=False),
)

_OF_NAME = leases.c.name == sa.bindparam("of_name")
_FOUND = sa.select(leases).where(_OF_NAME)
_TAKE = (
    sa.update(leases)
    .where(_OF_NAME, leases.c.owner == sa.bindparam("of_owner"), leases.c.beat == sa.bindparam("of_beat"))
    .values(beat=leases.c.beat + 1)
)
_INSERT = sa.insert(leases)
_MINE = sa.delete(leases).where(_OF_NAME, leases.c.owner == sa.bindparam("of_owner"))


class Seen(NamedTuple):
    """Somebody else's beat, and when this process saw it first (monotonic seconds)."""

    owner: str
    beat: int
    at: float


class LeadsNoMore(Exception):
    """Another process holds the lease by now."""


class Leadership:
    """Leads while it holds the lease `name`: then `led` is started, in order; when it is lost, all of it is stopped."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        name: str,
        owner: str,
        seconds: float,
        alone: bool,
        led: Sequence[Reconciler],
        bus: WithoutBus,
    ) -> None:
        """`owner` is unique per process start. `alone`: nobody else can be there, so no lease is needed."""
        self.led = led
        self.owner = owner
        self._db = db
        self._clock = clock
        self._name = name
        self._seconds = seconds
        self._alone = alone
        self._seen: Seen | None = None
        self._started: list[Reconciler] = []
        self._beginning: asyncio.Task[None] | None = None
        self._held_until = 0.0
        self._bus = bus
        self._task: asyncio.Task[None] | None = None

    @property
    def leads(self) -> bool:
        return bool(self._started) or self._beginning is not None

    async def start(self) -> None:
        """Begin. If the lease is free, this process leads when `start` returns, unless it has lost the bus. Raises the
        error of what it leads."""
        if self._alone:
            await self._begin()
            return
        await self._round()
        self._task = asyncio.create_task(self._keep(), name=f"lease-{self._name}")
        if (beginning := self._beginning) is not None:
            await asyncio.wait((beginning,))
            if not beginning.cancelled() and (error := beginning.exception()) is not None:
                self._task.cancel()
                raise error

    async def stop(self) -> None:
        """Stop leading, then give the lease back, so that another process need not wait until it has run out."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        led = self.leads
        await self._resign()
        if led and not self._alone:
            await self._give_back()

    def kill(self) -> None:
        """Stop as a process that dies: the lease stays until it has run out."""
        for task in (self._task, self._beginning):
            if task is not None:
                task.cancel()
        for reconciler in self._started:
            reconciler.kill()

    def require(self, tx: Tx) -> None:
        """LeadsNoMore unless the lease is this process's in this transaction."""
        if self._alone:
            return
        row = tx.first(_FOUND, {"of_name": self._name})
        if row is None or row.owner != self.owner:
            raise LeadsNoMore(f"{self._name} is led by {row.owner if row is not None else 'nobody'}")

    def look(self, _words: str = "") -> None:
        """Somebody has given a lease back: look at once whether it is this one."""
        if not self.leads:
            self._bus.wake()

    async def _keep(self) -> None:
        while True:
            await self._bus.pause(self._clock, self._seconds / ROUNDS)
            try:
                await self._round()
            except Exception:
                log.exception("the lease %s cannot be looked at; will retry", self._name)

    async def _round(self) -> None:
        now = self._clock.monotonic()
        if self._bus.is_due():
            if self.leads:
                log.warning("%s is led no more by this process: it has lost the bus", self._name)
            await self._resign()
            if await self._give_back():
                self._bus.given()
                self._seen = None  # From here on it is left to others.
            return
        if not self.leads:
            if await self._taken(now):
                self._held_until = now + self._seconds
                # A task of its own: a start may take longer than the lease runs, and the lease is renewed meanwhile.
                self._beginning = asyncio.create_task(self._begin(), name=f"lead-{self._name}")
                self._beginning.add_done_callback(self._begun)
            return
        held = await self._renewed(now)
        if held:
            self._held_until = now + self._seconds
        elif held is False or self._clock.monotonic() + self._seconds / ROUNDS >= self._held_until:
            log.warning("%s is led no more by this process", self._name)
            await self._resign()

    async def _renewed(self, now: float) -> bool | None:
        """Whether the lease is ours; None: the database did not answer before the lease had run out."""
        renewal = asyncio.ensure_future(self._taken(now))
        over = asyncio.ensure_future(self._clock.sleep(max(self._held_until - now, 0.0)))
        try:
            await asyncio.wait((renewal, over), return_when=asyncio.FIRST_COMPLETED)
            return renewal.result() if renewal.done() else None
        except DBAPIError:
            log.warning("the lease %s cannot be renewed", self._name, exc_info=True)
            return None
        finally:
            renewal.cancel()
            over.cancel()

    async def _begin(self) -> None:
        """Start all of it, or nothing: what cannot be started now is tried again in the next round."""
        try:
            for reconciler in self.led:
                self._started.append(reconciler)
                await reconciler.start()
        except Exception:
            await self._resign()
            raise

    def _begun(self, task: asyncio.Task[None]) -> None:
        if self._beginning is task:
            self._beginning = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("what the lease %s leads cannot be started; will retry", self._name, exc_info=error)

    async def _resign(self) -> None:
        beginning = self._beginning
        if beginning is not None and beginning is not asyncio.current_task():
            beginning.cancel()
            await asyncio.gather(beginning, return_exceptions=True)
        while self._started:
            await self._started.pop().stop()

    async def _give_back(self) -> bool:
        mine: dict[str, object] = {"of_name": self._name, "of_owner": self.owner}
        limit, said = self._seconds / ROUNDS, f"the lease {self._name}"
        return await give_back(self._db, _MINE, mine, seconds=limit, said=said, channel=LEASES_GIVEN_BACK)

    async def _taken(self, now: float) -> bool:
        with before_all_else():
            return await self._db.write_async(lambda tx: self._take(tx, now))

    def _take(self, tx: Tx, now: float) -> bool:
        """Whether the lease is ours after this transaction."""
        row = tx.first(_FOUND, {"of_name": self._name})
        if row is None:
            if not self._is_unchanged("", 0, now):
                return False
            tx.execute(_INSERT, {"name": self._name, "owner": self.owner, "beat": 0})
            return True
        if row.owner != self.owner and not self._is_unchanged(row.owner, row.beat, now):
            return False
        taken = {"of_name": self._name, "of_owner": row.owner, "of_beat": row.beat, "owner": self.owner}
        return bool(tx.changed(_TAKE, taken))

    def _is_unchanged(self, owner: str, beat: int, now: float) -> bool:
        """Whether the lease has been seen like this for long enough to take it; without an owner it is free.

        `now`: before it was read. It is first seen after that: this process may have been stopped in between.
        """
        patience = self._bus.patience_seconds(held=bool(owner))
        if self._seen is None or (self._seen.owner, self._seen.beat) != (owner, beat):
            self._seen = Seen(owner, beat, self._clock.monotonic())
            return patience <= 0
        return now - self._seen.at >= patience
