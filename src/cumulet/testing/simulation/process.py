"""A process of the control plane. It may be stopped for a while, as by SIGSTOP, or cut off from hosts and database."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from random import Random
from typing import TypeVar

from sqlalchemy.exc import OperationalError

from cumulet.db.engine import Database, Tx
from cumulet.db.transaction import Keeper, Watch
from cumulet.fleet.hosts import Hosts
from cumulet.host.link import Link
from cumulet.host.messages import BusLost, HostUnreachable, Message
from cumulet.testing.simulation.database import Memory, SimulatedDatabase
from cumulet.testing.simulation.life import Life, require_alive
from cumulet.testing.simulation.virtual_time import VirtualClock, VirtualLoop

NOTICE_SECONDS = 0.002
"""From a commit to who hears of it."""
WAKING_SECONDS = 0.02
"""When a process goes on, its waiting tasks go on within so long, in random order."""
T = TypeVar("T")
AnswerT = TypeVar("AnswerT")


class Process(VirtualClock):
    """A process, as a clock: while it is stopped, none of its tasks goes on, and its sleeps end late."""

    def __init__(self, loop: VirtualLoop, random: Random, name: str = "") -> None:
        super().__init__(loop, random)
        self.name = name
        self.life = Life()
        """That of what runs in it now."""
        self._going_on = asyncio.Event()
        self._going_on.set()
        self._stops = 0
        self.going_since: float | None = loop.now
        """When it went on last; None while it is stopped."""
        self.cut_off_from: Counter[str] = Counter()
        """Hosts that this process does not reach, each with the number of causes."""
        self.off_the_bus = 0
        """How many times the bus cut it off and it has not connected again."""
        self._bus_changed_at = loop.now
        """When it lost the bus, or had it again."""
        self.says_bus_lost: Callable[[], None] = lambda: None
        self.connections = 1
        self._without_database = 0
        """The number of causes for which it does not reach the database."""
        self._database_since = loop.now

    def stop(self) -> None:
        """Stop it. It goes on after as many calls of `go_on`."""
        self._stops += 1
        self.going_since = None
        self._going_on.clear()

    def go_on(self) -> None:
        self._stops -= 1
        if not self._stops:
            self.going_since = self._loop.now
            self._going_on.set()

    def leave_bus(self) -> None:
        """The bus cuts it off: answers on their way to it are lost."""
        if not self.off_the_bus:
            self._bus_changed_at = self._loop.now
        self.off_the_bus += 1
        self.connections += 1
        self.says_bus_lost()

    def join_bus(self) -> None:
        self.off_the_bus -= 1
        if not self.off_the_bus:
            self._bus_changed_at = self._loop.now

    def lost_bus(self) -> float | None:
        """`fleet.hosts.Hosts.lost_bus`."""
        return self._loop.now - self._bus_changed_at if self.off_the_bus else None

    @property
    def on_bus_since(self) -> float | None:
        """Since when it has been running with the database and the bus in reach; None: it is not."""
        looking = self.looking_since
        return None if looking is None or self.off_the_bus else max(looking, self._bus_changed_at)

    def lose_database(self) -> None:
        """Cut it off from the database, until as many calls of `give_back_database`."""
        self._without_database += 1

    def give_back_database(self) -> None:
        self._without_database -= 1
        self._database_since = self._loop.now

    @property
    def reaches_database(self) -> bool:
        return not self._without_database

    @property
    def looking_since(self) -> float | None:
        """Since when it has been running with the database in reach; None: it is not."""
        if self.going_since is None or not self.reaches_database:
            return None
        return max(self.going_since, self._database_since)

    async def goes_on(self) -> None:
        while not self._going_on.is_set():
            await self._going_on.wait()
            await super().sleep(self._random.uniform(0.0, WAKING_SECONDS))

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        await self.goes_on()


class DatabaseOfProcess(Database):
    """The one database, as a process reaches it. `alone`: only processes that share `memory` write to it."""

    def __init__(self, inner: SimulatedDatabase, process: Process, memory: Memory, *, alone: bool) -> None:
        self.embedded = self.is_sqlite = alone
        self.kind = "sqlite" if alone else "postgresql"
        self._whole = inner
        self._name = process.name
        self._process = process
        self._memory = memory
        self._alone = alone

    @property
    def keeper(self) -> Keeper | None:
        return self._memory.keeper

    @keeper.setter
    def keeper(self, keeper: Keeper | None) -> None:
        self._memory.keeper = keeper

    @property
    def _watches(self) -> tuple[Watch, ...]:
        return self._memory.watches

    @_watches.setter
    def _watches(self, watches: tuple[Watch, ...]) -> None:
        self._memory.watches = watches

    def read(self, fn: Callable[[Tx], T]) -> T:
        self._reach()
        return self._whole.read(fn, memory=self._memory, alone=self._alone)

    @contextlib.asynccontextmanager
    async def notices(self, channels: Iterable[str]) -> AsyncIterator[AsyncIterator[tuple[str, str]]]:
        """They are heard after a moment; those that come while it does not reach the database are lost."""
        self._reach()
        wanted, come = frozenset(channels), asyncio.Queue[tuple[str, str]]()

        def listener(channel: str, words: str) -> None:
            if channel in wanted:
                come.put_nowait((channel, words))

        async def heard() -> AsyncIterator[tuple[str, str]]:
            while True:
                notice = await come.get()
                await self._process.sleep(NOTICE_SECONDS)
                self._reach()
                yield notice

        self._whole.listeners.append(listener)
        try:
            yield heard()
        finally:
            if listener in self._whole.listeners:  # The next run has forgotten it.
                self._whole.listeners.remove(listener)

    async def read_async(self, fn: Callable[[Tx], T]) -> T:
        require_alive()
        await self._process.goes_on()
        return self.read(fn)

    async def look_up(self, fn: Callable[[Tx], T]) -> T:
        return await self.read_async(fn)

    async def write_async(self, fn: Callable[[Tx], T]) -> T:
        require_alive()
        await self._process.goes_on()
        self._reach()
        return self._whole.write_as(self._process.name, fn, memory=self._memory, alone=self._alone)

    def _reach(self) -> None:
        require_alive()
        if not self._process.reaches_database:
            self._whole.faults += 1
            raise OperationalError("CONNECT", {}, Exception("no way to the database"))


class LinkOfProcess:
    """A `host.link.Link` of a process: it sends and receives only while the process is not stopped."""

    def __init__(self, name: str, inner: Link, process: Process) -> None:
        self._name = name
        self._inner = inner
        self._process = process

    async def send(self, message: Message[AnswerT]) -> AnswerT:
        await self._process.goes_on()
        if self._process.cut_off_from[self._name]:
            raise HostUnreachable(f"no way to {self._name}")
        if self._process.off_the_bus:
            raise BusLost("the bus is not connected")
        connection = self._process.connections
        try:
            answer = await self._inner.send(message)
        finally:
            await self._process.goes_on()
        if self._process.connections != connection:
            raise BusLost("the connection to the bus was lost")
        return answer

    async def close(self) -> None:
        return None


def hosts_of(hosts: Hosts, process: Process) -> Hosts:
    """The hosts, as a process reaches them."""
    own = Hosts()
    own.lost_bus, process.says_bus_lost = process.lost_bus, own.bus_is_lost
    for name in hosts.names:
        own.add(name, LinkOfProcess(name, hosts.link(name), process))
    return own
