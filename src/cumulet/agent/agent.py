"""The host agent: does what a command with a current generation says, here. It never decides who owns a guest."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from cumulet.agent.fence import Fence, Mark
from cumulet.host import messages as m
from cumulet.host.driver import Driver, DriverError


class HostLease(Protocol):
    """`agent.lease.Lease`, of a host that has a watchdog."""

    @property
    def valid(self) -> bool: ...
    async def renew(self, session: str, number: int, heard: int | None) -> None: ...


WELCOME_SECONDS = 10.0
"""How long a command that lets a guest run waits for the control plane to have welcomed this agent."""
_RUNNING = (m.Create, m.Start, m.Reboot, m.Unpause, m.Resume, m.ResumeDestination, m.ResumeSource)

# These may come while another command for the same guest is at work: they are what ends it.
_CONCURRENT = (m.CopyProgress, m.ForceComplete, m.CancelCopy)


class Agent:
    """Answers messages for one host."""

    def __init__(
        self, *, name: str, driver: Driver, fence: Fence, lease: HostLease | None = None, session: str | None = None
    ) -> None:
        """`session` names this start of it; without one it has nobody to welcome it, and waits for nobody."""
        self.name = name
        self.driver = driver
        self.session = session
        self._welcomed = asyncio.Event()
        if session is None:
            self._welcomed.set()
        self._fence = fence
        self._lease = lease
        self._busy: dict[str, asyncio.Lock] = {}

    async def handle(self, message: m.Message) -> Any:
        """The answer of `messages.ANSWERS`, or StaleGeneration or VerbFailed."""
        try:
            if isinstance(message, m.Question):
                return await self._answer(message)
            if isinstance(message, _CONCURRENT):
                self._admit(message)
                return await self._do(message)
            if isinstance(message, _RUNNING):
                await self._be_welcomed()
            lock = self._busy.setdefault(message.server_id, asyncio.Lock())
            async with lock:
                self._admit(message)
                return await self._do(message)
        except DriverError as error:
            raise m.VerbFailed(str(error)) from error

    async def _be_welcomed(self) -> None:
        try:
            async with asyncio.timeout(WELCOME_SECONDS):
                await self._welcomed.wait()
        except TimeoutError:
            raise m.VerbFailed(f"NOT_WELCOMED: {self.name} does not know yet which guests it still has") from None

    def _welcome(self, session: str, generations: Mapping[str, int]) -> None:
        """What was decided while this host was away is known from here on, before any guest is let run."""
        if session != self.session:
            return  # Meant for an earlier agent of this host, which has been away since.
        for server_id, generation in generations.items():
            if generation > self._fence.mark(server_id).generation:
                self._fence.set_mark(server_id, Mark(generation, False))
        self._welcomed.set()

    def _admit(self, command: m.Command) -> None:
        """Refuse what is out of date: an earlier generation, or one at which the guest was destroyed here already.

        Without a lease only what ends guests is done: others may be running them by now.
        """
        if self._lease is not None and not isinstance(command, m.Destroy | m.Stop) and not self._lease.valid:
            raise m.VerbFailed(f"LEASE_EXPIRED: {self.name} has not been heard by the control plane")
        mark = self._fence.mark(command.server_id)
        ends = isinstance(command, m.Destroy)
        if command.generation < mark.generation or (command.generation == mark.generation and mark.closed and not ends):
            raise m.StaleGeneration(
                f"{command.server_id}: generation {command.generation} is out of date, {mark.generation} was accepted"
            )
        if command.generation > mark.generation or (ends and not mark.closed):
            self._fence.set_mark(command.server_id, Mark(command.generation, ends))

    async def _answer(self, question: m.Question) -> Any:
        driver = self.driver
        match question:
            case m.AskFacts():
                return msgspec.structs.replace(await driver.facts(), session=self.session or "")
            case m.Welcome(session=session, generations=generations):
                return self._welcome(session, generations)
            case m.RenewLease(session=session, number=number, heard=heard):
                if self._lease is not None:
                    await self._lease.renew(session, number, heard)
                return None
            case m.AskGuests():
                known = self._fence.known()
                return [
                    msgspec.structs.replace(report, generation=known.get(report.server_id, 0))
                    for report in await driver.guests()
                ]
            case m.Observe(server_id=server_id):
                return await driver.observe(server_id)
            case m.AskArrival(server_id=server_id):
                return await driver.arrival(server_id)
            case m.ConsoleOutput(server_id=server_id, max_bytes=max_bytes):
                return await driver.console_output(server_id, max_bytes=max_bytes)
            case m.Diagnostics(server_id=server_id):
                return await driver.diagnostics(server_id)
        raise AssertionError(question)

    async def _do(self, command: m.Command) -> Any:
        driver, guest = self.driver, command.server_id
        match command:
            case m.Create():
                return await driver.create(command.guest, run=command.run)
            case m.Destroy():
                return await driver.destroy(guest)
            case m.Start():
                return await driver.start(guest)
            case m.Stop():
                return await driver.stop(guest, grace_seconds=command.grace_seconds)
            case m.Reboot():
                return await driver.reboot(guest, hard=command.hard)
            case m.Pause():
                return await driver.pause(guest)
            case m.Unpause():
                return await driver.unpause(guest)
            case m.Suspend():
                return await driver.suspend(guest)
            case m.Resume():
                return await driver.resume(guest)
            case m.PrepareIncoming():
                return await driver.prepare_incoming(
                    command.guest, source_host=command.source_host, parameters=command.parameters
                )
            case m.ResumeDestination():
                return await driver.resume_destination(guest)
            case m.StartCopy():
                return await driver.start_copy(guest, command.endpoint, command.parameters)
            case m.CopyProgress():
                return await driver.copy_progress(guest, wait_seconds=command.wait_seconds, seen=command.seen)
            case m.ForceComplete():
                return await driver.force_complete(guest)
            case m.BeginPostCopy():
                return await driver.begin_post_copy(guest)
            case m.RecoverIncoming():
                return await driver.recover_incoming(guest)
            case m.RecoverCopy():
                return await driver.recover_copy(guest, command.endpoint)
            case m.GiveUpMemory():
                return await driver.give_up_memory(guest)
            case m.CancelCopy():
                return await driver.cancel_copy(guest)
            case m.ResumeSource():
                return await driver.resume_source(guest)
            case m.StandBy():
                return await driver.stand_by(guest)
            case m.StandDown():
                return await driver.stand_down(guest)
            case m.TakeIn():
                return await driver.take_in(command.guest)
        raise AssertionError(command)

    async def close(self) -> None:
        await self.driver.close()
