"""How the control plane reaches hosts: one `Hosts`, for every kind of bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar
from weakref import WeakValueDictionary

from msgspec.structs import replace

from cumulet.host import messages as m
from cumulet.host.diagnostics import GuestCounters
from cumulet.host.driver import GuestReport, HostFacts
from cumulet.host.link import Link
from cumulet.host.wiring import InForce, Wiring
from cumulet.standstill import Standstill

AnswerT = TypeVar("AnswerT")

QUESTION_SECONDS = 5.0
COMMAND_SECONDS = 120.0
MOST_UNANSWERED = 3
"""So many questions in a row a host leaves unanswered while it is at long work; then it counts as gone."""
MOST_REVISIONS = 4
"""So often in a row a host may have a later revision in force than it was told; then it has failed."""
WIRING_SECONDS = 20.0
"""Enough to wire a host with 10,000 ports from the beginning."""


class Hosts:
    """The links to all hosts, by name. Every wait is bounded."""

    def __init__(self) -> None:
        self._links: dict[str, Link] = {}
        self._wiring: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By host: held while it is told its wiring. An entry lasts while somebody holds or awaits it."""
        self._revisions: dict[str, int] = {}
        self._in_force: dict[str, int] = {}
        """The revision of its wiring that each host reported last."""
        self._told: dict[str, tuple[Wiring, InForce]] = {}
        """The last wiring each host was told, and its answer."""
        self.changed = asyncio.Event()
        """Set when a host was added or removed; whoever waits for that clears it."""
        self._has_own = False
        self.lost_bus: Callable[[], float | None] = lambda: None
        """For how many seconds this process has had no bus to hosts on other machines; None: it has it, or needs none.
        """
        self.standstill = Standstill()
        self.hear_bus_lost: list[Callable[[], None]] = []
        """Who is told when the bus is lost."""

    def add(self, name: str, link: Link, *, own: bool = False) -> None:
        """`own`: it is a host of this machine, which no other process reaches, and which needs no bus."""
        self._links[name] = link
        self._has_own = self._has_own or own
        self.changed.set()

    def remove(self, name: str) -> None:
        """Remove a host: it is not asked any more, and what it was told is forgotten."""
        for known in (self._revisions, self._in_force, self._told):
            known.pop(name, None)
        if self._links.pop(name, None) is not None:
            self.changed.set()

    def link(self, name: str) -> Link:
        """The link to a host. KeyError: there is no such host."""
        return self._links[name]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._links)

    async def send(
        self, host: str, message: m.Message[AnswerT], *, seconds: float | None = None, work_seconds: float | None = None
    ) -> AnswerT:
        """Ask or command `host`. HostUnreachable when it is silent or too slow: the outcome is then unknown.

        `work_seconds`: how long the host may be at it, where the message does not say so itself. For so long it is
        waited for, as long as the host answers others' questions.
        """
        link = self._links.get(host)
        if link is None:
            raise m.HostUnreachable(f"{host} is not connected")
        limit = seconds or (QUESTION_SECONDS if isinstance(message, m.Question) else COMMAND_SECONDS)
        work_seconds = work_seconds or message.work_seconds
        try:
            async with asyncio.timeout(limit + (work_seconds or 0.0)) as waiting:
                if work_seconds is None:
                    return await link.send(message)
                async with self._watched(host, waiting):
                    return await link.send(message)
        except TimeoutError as error:
            waited = "any more" if work_seconds is not None else f"in {limit:g} s"
            raise m.HostUnreachable(f"{host} did not answer {type(message).__name__} {waited}") from error
        except m.StaleGeneration as error:
            error.host = host
            raise

    @asynccontextmanager
    async def _watched(self, host: str, waiting: asyncio.Timeout) -> AsyncIterator[None]:
        """Within this, `waiting` ends soon if the host answers nothing any more."""
        loop = asyncio.get_running_loop()
        watching: list[asyncio.Task[None]] = []

        def begin() -> None:  # Only for who takes long.
            watching.append(loop.create_task(self._watch(host, waiting), name="still-there"))

        first = loop.call_later(COMMAND_SECONDS / 2, begin)
        try:
            yield
        finally:
            first.cancel()
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)

    async def _watch(self, host: str, waiting: asyncio.Timeout) -> None:
        unanswered = 0
        while unanswered < MOST_UNANSWERED:
            try:
                await self.send(host, m.AskFacts())
            except m.HostUnreachable:
                unanswered += 1
            except m.HostError:
                unanswered = 0  # It refuses to say, and is there.
            else:
                unanswered = 0
            await asyncio.sleep(QUESTION_SECONDS)
        waiting.reschedule(asyncio.get_running_loop().time())

    async def wire(
        self, host: str, describe: Callable[[int], Awaitable[Wiring]], *, now_us: int, again: bool = True
    ) -> InForce:
        """Tell a host its wiring. `describe` reads it from the records, for the revision that it is given.

        Each host is told one wiring at a time, so a wiring that was read later has a higher revision and stays in
        force. Nothing is kept of a host that is removed meanwhile. Unless `again`, a host that was told the same last,
        perhaps while this waited, is not told it again. VerbFailed: it has a later one in force each time.
        """
        async with self._wiring.setdefault(host, asyncio.Lock()):
            told_by = self._links.get(host)
            revision = max(self._revisions.get(host, 0) + 1, now_us)
            for _ in range(MOST_REVISIONS):
                wiring = await describe(revision)
                told = None if again else self.told(host)
                if told is not None and replace(told[0], revision=revision) == wiring:
                    return told[1]
                self._told.pop(host, None)
                answer = await self.send(host, m.ApplyWiring(wiring=wiring), seconds=WIRING_SECONDS)
                known = self._links.get(host) is told_by
                if known:
                    self._revisions[host] = max(revision, answer.revision)
                    self._in_force[host] = answer.revision
                if answer.revision <= revision:
                    if known:
                        self._told[host] = (wiring, answer)
                    return answer
                revision = answer.revision + 1  # Our clock was set back since the last control plane told it.
            raise m.VerbFailed(f"WIRING_OVERTAKEN: {host} has a later wiring in force each time than it was told")

    async def in_force(self, host: str) -> InForce:
        """The wiring that is in force on a host."""
        asked = self._links.get(host)
        answer = await self.send(host, m.AskWiring())
        if self._links.get(host) is asked:
            self._in_force[host] = answer.revision
        return answer

    def told(self, host: str) -> tuple[Wiring, InForce] | None:
        """The last wiring this process told the host, and its answer. None if the host has another revision in force.

        Then another process told it, which may have read the records earlier or later.
        """
        told = self._told.get(host)
        return told if told is not None and self._in_force.get(host) == told[0].revision else None

    def has_started(self, host: str) -> None:
        """The host's agent has started anew, and was not told its wiring yet."""
        self._in_force.pop(host, None)

    async def facts(self, host: str) -> HostFacts:
        return await self.send(host, m.AskFacts())

    async def guests(self, host: str) -> list[GuestReport]:
        return await self.send(host, m.AskGuests())

    async def console_output(self, host: str, server_id: str, *, max_bytes: int) -> bytes:
        """The newest output of the guest's serial console, at most `max_bytes`."""
        return await self.send(host, m.ConsoleOutput(server_id=server_id, max_bytes=max_bytes))

    async def diagnostics(self, host: str, server_id: str) -> GuestCounters:
        return await self.send(host, m.Diagnostics(server_id=server_id))

    def bus_is_lost(self) -> None:
        """Tell who wants to hear that the bus was lost, in this event loop."""
        for hear in self.hear_bus_lost:
            hear()

    def cut_off_seconds(self) -> float | None:
        """For how long this process has reached no host; None: it reaches some, or needs no bus for that."""
        return None if self._has_own else self.lost_bus()

    async def close(self) -> None:
        for link in self._links.values():
            await link.close()
