"""The host agent: does commands with a current generation on its host. It never decides who owns a guest."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib.metadata import version as version_of
from typing import Protocol, TypeVar, cast
from weakref import WeakValueDictionary

import msgspec

from cumulet.agent.fence import NO_ROOM, Fence, Mark
from cumulet.host import messages as m
from cumulet.host.driver import Driver, DriverError, GuestReport, HostFacts
from cumulet.host.joining import PROTOCOL
from cumulet.host.telling import Heard, Told
from cumulet.host.wiring import InForce, NotDone, Wiring

AnswerT = TypeVar("AnswerT")
_VERSION = version_of("cumulet")


class HostLease(Protocol):
    """`agent.lease.Lease` of a host with a watchdog, or `Unleased`."""

    @property
    def seconds(self) -> float | None:
        """How long the lease lasts; None: there is none."""
        ...

    @property
    def valid(self) -> bool:
        """Whether guests may run."""
        ...

    @property
    def held(self) -> bool:
        """Whether it is valid and a living watchdog will end the guests when it is not."""
        ...

    async def renew(self, session: str, number: int, heard: int | None) -> None: ...
    async def welcomed(self) -> None:
        """The control plane has heard this agent and recorded its facts."""
        ...


class Unleased:
    """The lease of a host without a watchdog: its guests may always run, so nobody may assume that they have ended."""

    seconds: float | None = None
    valid = True
    held = False

    async def renew(self, session: str, number: int, heard: int | None) -> None:
        return None

    async def welcomed(self) -> None:
        return None


WELCOME_SECONDS = 10.0
"""How long a command that lets a guest run waits for the welcome."""


def _with_mark(report: GuestReport, mark: Mark) -> GuestReport:
    return msgspec.structs.replace(report, generation=mark.generation, step=mark.step)


class Agent:
    """Answers messages for one host."""

    def __init__(
        self, *, name: str, driver: Driver, fence: Fence, lease: HostLease | None = None, session: str | None = None
    ) -> None:
        """`session` names this start of the agent. Without one there is no welcome, and no command waits for it."""
        self.name = name
        self.driver = driver
        self.session = session
        self._welcomed = asyncio.Event()
        if session is None:
            self._welcomed.set()
        self._fence = fence
        self._lease: HostLease = lease or Unleased()
        self._unheard = f"LEASE_EXPIRED: {name} has not been heard by the control plane"
        self._busy: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By server id: held while one of its commands is done. An entry lasts while somebody holds or awaits it."""
        self._told: Wiring | None = None
        """The wiring of the highest revision so far."""
        self._without_routers = False
        """Whether the wiring in force lacks its routers, because there was no valid lease."""

    async def handle(self, message: m.Message[AnswerT]) -> AnswerT:
        """The message's answer, or StaleGeneration or VerbFailed."""
        try:
            if not isinstance(message, m.Command):
                return await message.do(self)
            if message.beside_others:
                self._admit(message)
                return cast("AnswerT", await message.do(self))
            if message.lets_run:
                await self._be_welcomed()
            lock = self._busy.setdefault(message.server_id, asyncio.Lock())
            async with lock:
                if message.makes_anew and self._is_new(message):
                    # What is left here of the server is of an earlier operation, and its disk is an old one.
                    await self.driver.destroy(message.server_id)
                self._admit(message)
                return cast("AnswerT", await message.do(self))
        except DriverError as error:
            raise m.VerbFailed(str(error)) from error
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise m.VerbFailed(f"DISK_FULL: the disk of {self.name} is full, nothing can be written there") from error

    async def _be_welcomed(self) -> None:
        try:
            async with asyncio.timeout(WELCOME_SECONDS):
                await self._welcomed.wait()
        except TimeoutError:
            raise m.VerbFailed(f"NOT_WELCOMED: {self.name} does not know yet which guests it still has") from None

    def _admit(self, command: m.Command[object]) -> None:
        """Accept a command, and refuse earlier ones from now on; or refuse it, as `_is_new` does."""
        if self._is_new(command):
            self._fence.set_mark(command.server_id, Mark(command.generation, command.step))

    def _is_new(self, command: m.Command[object]) -> bool:
        """Whether it was not accepted before. StaleGeneration for a command that is out of date: of an earlier
        generation, or of an earlier step of the same one.

        Without a valid lease, every command that needs one is refused, too.
        """
        if command.needs_lease and not self._lease.valid:
            raise m.VerbFailed(self._unheard)
        mark = self._fence.mark(command.server_id)
        told = Mark(command.generation, command.step)
        if told < mark:
            raise m.StaleGeneration(
                f"{command.server_id}: step {command.step} of generation {command.generation} is out of date, "
                f"step {mark.step} of {mark.generation} was accepted",
                mark.generation,
            )
        return told > mark

    # -- `messages.OnHost`

    async def facts(self) -> HostFacts:
        lease = self._lease
        return msgspec.structs.replace(
            await self.driver.facts(),
            session=self.session or "",
            lease_seconds=lease.seconds,
            lease_held=lease.held,
            version=_VERSION,
            protocol=PROTOCOL,
        )

    async def guests(self) -> list[GuestReport]:
        reports = await self.driver.guests()
        self._fence.forget({report.server_id for report in reports})
        return [_with_mark(report, self._fence.mark(report.server_id)) for report in reports]

    async def wire(self, wiring: Wiring) -> InForce:
        """Without a valid lease no routers are made: another host may have them by now.

        Two processes of the control plane that read the records in the same microsecond give the same revision. If
        their wirings differ, the one that comes second counts as the next revision here. Its sender tells it again,
        and the other learns that its wiring is not in force.
        """
        told = self._told
        if told is not None and wiring.revision == told.revision and wiring != told:
            wiring = msgspec.structs.replace(wiring, revision=wiring.revision + 1)
        if told is None or wiring.revision > told.revision:
            self._told = wiring
        stripped = bool(wiring.routers) and not self._lease.valid
        answer = await self.driver.wire(msgspec.structs.replace(wiring, routers=()) if stripped else wiring)
        if answer.revision == wiring.revision:  # Otherwise a later one stays in force.
            self._without_routers = stripped
        undone = (NotDone(subject=router.id, reason=self._unheard) for router in wiring.routers if stripped)
        return msgspec.structs.replace(answer, not_done=(*answer.not_done, *undone))

    async def in_force(self) -> InForce:
        """Without its routers a wiring counts as the revision before, so that the control plane tells it again.

        The answer to `wire` says what is missing, but if the wiring came twice, nobody hears the second answer.
        """
        answer = await self.driver.in_force()
        return msgspec.structs.replace(answer, revision=answer.revision - 1) if self._without_routers else answer

    async def renew_lease(self, session: str, number: int, heard: int | None, agent: str) -> None:
        # An earlier start of this agent gave the answer, earlier than a repeated question makes us believe.
        of_another = agent not in ("", self.session)
        await self._lease.renew(session, number, None if of_another else heard)

    async def welcome(self, session: str, generations: Mapping[str, int]) -> None:
        """Take the generations that were decided while this host was away, before a guest may run."""
        if session != self.session:
            return  # It was meant for an earlier start of this host's agent.
        for server_id, generation in generations.items():
            if generation > self._fence.mark(server_id).generation:
                self._fence.set_mark(server_id, Mark(generation, 0))
        self._welcomed.set()
        await self._lease.welcomed()

    async def tell(self, server_id: str, generation: int, told: Told) -> Heard:
        """StaleGeneration if an operation has begun since: it may have made the guest anew, from later records."""
        accepted = self._fence.mark(server_id).generation
        if generation < accepted:
            text = f"{server_id}: generation {generation} is out of date, {accepted} was accepted"
            raise m.StaleGeneration(text, accepted)
        return await self.driver.tell(server_id, told)

    async def close(self) -> None:
        await self.driver.close()
