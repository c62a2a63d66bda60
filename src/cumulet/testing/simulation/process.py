"""A conductor's process: it may be stopped for a while, as by SIGSTOP, or have its own way to a host cut."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import TypeVar

from cumulet.db.engine import Database, Tx
from cumulet.fleet.hosts import Hosts
from cumulet.host.link import Link
from cumulet.host.messages import HostUnreachable, Message
from cumulet.testing.simulation.virtual_time import VirtualClock, VirtualLoop

T = TypeVar("T")
AnswerT = TypeVar("AnswerT")


class Process(VirtualClock):
    """A process by its clock: while it is stopped nothing of it goes on, and its sleeps end late."""

    def __init__(self, loop: VirtualLoop, random: Random) -> None:
        super().__init__(loop, random)
        self._going_on = asyncio.Event()
        self._going_on.set()
        self._stops = 0
        self.going_since: float | None = loop.now
        """None while it is stopped."""
        self.cut_off_from: Counter[str] = Counter()
        """Hosts that this process does not reach, and how often that was said and not taken back."""

    def stop(self) -> None:
        """As often as it is stopped it has to be let go on."""
        self._stops += 1
        self.going_since = None
        self._going_on.clear()

    def go_on(self) -> None:
        self._stops -= 1
        if not self._stops:
            self.going_since = self._loop.now
            self._going_on.set()

    async def goes_on(self) -> None:
        await self._going_on.wait()

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        await self.goes_on()


class DatabaseOfProcess(Database):
    """The one database, as a process reaches it."""

    def __init__(self, inner: Database, process: Process) -> None:
        self.embedded = inner.embedded
        self._whole = inner
        self._process = process

    def read(self, fn: Callable[[Tx], T]) -> T:
        return self._whole.read(fn)

    async def read_async(self, fn: Callable[[Tx], T]) -> T:
        await self._process.goes_on()
        return await self._whole.read_async(fn)

    async def write_async(self, fn: Callable[[Tx], T]) -> T:
        await self._process.goes_on()
        return await self._whole.write_async(fn)


class LinkOfProcess:
    """A `host.link.Link` as a process uses it: what it says it says while it goes on, and so it hears."""

    def __init__(self, name: str, inner: Link, process: Process) -> None:
        self._name = name
        self._inner = inner
        self._process = process

    async def send(self, message: Message[AnswerT]) -> AnswerT:
        await self._process.goes_on()
        if self._process.cut_off_from[self._name]:
            raise HostUnreachable(f"no way to {self._name}")
        try:
            return await self._inner.send(message)
        finally:
            await self._process.goes_on()

    async def close(self) -> None:
        return None


def hosts_of(hosts: Hosts, process: Process) -> Hosts:
    """The same hosts, as a process reaches them."""
    own = Hosts()
    for name in hosts.names:
        own.add(name, LinkOfProcess(name, hosts.link(name), process))
    return own
