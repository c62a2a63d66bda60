"""Simulated machines that crash, agents that die, and the unreliable way to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

from cumulet.host import messages as m
from cumulet.host.agent import Agent, MemoryFence
from cumulet.host.driver import DriverError, Endpoint, Guest, GuestState, MigrationParameters, MigrationPhase
from cumulet.host.lease import Lease
from cumulet.host.simulated import Copy, SimulatedDriver, SimulatedGuest
from cumulet.testing.simulation.faults import Weather
from cumulet.testing.simulation.virtual_time import VirtualLoop

CLOCK_RATE_ERROR = 0.01
WATCHDOG_LATE_SECONDS = 0.5
"""How long after the end of a lease the last guest is gone: a look, a kill, and some scheduling."""
AGENT_RESTART_SECONDS = 0.3
CONNECTION_LOST_SECONDS = 2.0
"""How long it takes at most to learn that a connection is dead."""
MONITOR_SECONDS = 5.0
"""How long an agent waits for a hypervisor's process to answer."""
FOR_EVER_US = 2**62


class FragileDriver(SimulatedDriver):
    """The simulated hypervisor, whose guests may crash or hang and whose machine may lose power or have a bad disk."""

    changed: Callable[[], None]

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self.disk = Disk()
        self._hung: dict[str, asyncio.Future[bool]] = {}
        """By guest: whether its process, at the end, goes on. What it was told meanwhile it does then, in turn."""
        self._queued: set[asyncio.Future[Any]] = set()

    # -- processes that hang

    def hang(self, server_id: str) -> None:
        """Its process is stopped: it answers nobody, and its copy stands still, whichever side of it this is."""
        if server_id not in self._hung:
            self._hung[server_id] = asyncio.get_running_loop().create_future()
        for copy in self._copies_with(server_id):
            copy.stand_still(self._clock.now_us(), FOR_EVER_US)

    def go_on(self, server_id: str) -> None:
        self._end_hang(server_id, goes_on=True)

    def heal(self) -> None:
        for server_id in list(self._hung):
            self.go_on(server_id)
        for copy in self.copies().values():
            copy.stand_still(self._clock.now_us(), self._clock.now_us())

    def copies(self) -> dict[str, Copy]:
        """Those under way from here."""
        return {server_id: copy for server_id, copy in self._copies.items() if copy.outcome is None}

    def _copies_with(self, server_id: str) -> list[Copy]:
        """As source or as destination."""
        fragile = [driver for driver in self._world.drivers.values() if isinstance(driver, FragileDriver)]
        found = [(driver, driver.copies().get(server_id)) for driver in fragile]
        return [copy for driver, copy in found if copy is not None and self.name in (driver.name, copy.destination)]

    def _end_hang(self, server_id: str, *, goes_on: bool) -> None:
        hung = self._hung.pop(server_id, None)
        if hung is not None:
            hung.set_result(goes_on)
            for copy in self._copies_with(server_id):
                copy.stand_still(self._clock.now_us(), self._clock.now_us())

    async def told(self, server_id: str, verb: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Let the guest's process do something. A hung one does it as soon as it goes on, if anybody waits or not."""
        hung = self._hung.get(server_id)
        if hung is None:
            return await verb(*arguments, **named)
        queued = asyncio.ensure_future(self._once_it_goes_on(hung, verb, *arguments, **named))
        self._queued.add(queued)
        queued.add_done_callback(self._forget)
        try:
            async with asyncio.timeout(MONITOR_SECONDS):
                return await asyncio.shield(queued)
        except TimeoutError:
            raise DriverError(f"the process of guest {server_id} does not answer") from None

    async def _once_it_goes_on(
        self, hung: asyncio.Future[bool], verb: Callable[..., Any], *arguments: Any, **named: Any
    ) -> Any:
        if not await asyncio.shield(hung):
            raise DriverError("the process has ended")
        return await verb(*arguments, **named)

    def _forget(self, queued: asyncio.Future[Any]) -> None:
        self._queued.discard(queued)
        if not queued.cancelled():
            queued.exception()  # Whoever waited has heard it; if nobody did, nobody does.

    async def start_copy(self, server_id: str, endpoint: Endpoint, parameters: MigrationParameters) -> None:
        await super().start_copy(server_id, endpoint, parameters)
        peer = self._world.drivers[endpoint.address]
        if isinstance(peer, FragileDriver) and server_id in peer._hung:
            peer.hang(server_id)

    async def create(self, guest: Guest, *, run: bool = True) -> Guest:
        self._replaced(guest.server_id)
        return await super().create(guest, run=run)

    async def prepare_incoming(self, guest: Guest, *, source_host: str, parameters: MigrationParameters) -> Endpoint:
        self._replaced(guest.server_id)
        return await super().prepare_incoming(guest, source_host=source_host, parameters=parameters)

    def _replaced(self, server_id: str) -> None:
        """A destination that nobody needs any more gives way to another process."""
        found = self._guests.get(server_id)
        if found is not None and found.state is GuestState.INCOMING and not found.incoming_complete:
            self._end_hang(server_id, goes_on=False)

    async def destroy(self, server_id: str) -> None:
        self._end_hang(server_id, goes_on=False)
        await super().destroy(server_id)

    # -- crashes

    def crash_guest(self, server_id: str) -> None:
        """Its process dies: what it held in memory is gone; its disk stays, once it has been copied whole."""
        self._end_hang(server_id, goes_on=False)
        found = self._guests[server_id]
        self._drop_copy(server_id, MigrationPhase.FAILED, "the guest crashed")
        if found.state is GuestState.INCOMING and not (found.incoming_complete or found.disk_whole):
            del self._guests[server_id]
        elif found.state is not GuestState.SUSPENDED:
            found.halt(GuestState.STOPPED, self._clock.now_us())
        self._save(found)

    def lose_power(self) -> None:
        for server_id in list(self._guests):
            self.crash_guest(server_id)

    def fail_copies(self) -> None:
        """The disk fails, and so do copies, but in post-copy."""
        for server_id in self.copies():
            self.fail_copy(server_id)

    def fail_copy(self, server_id: str) -> None:
        """One that stood still for the switch lets its guest run on by itself: QEMU 7.2 does not, others may."""
        copy = self.copies().get(server_id)
        if copy is None or copy.post_copy_at is not None:
            return
        self._finish(copy, MigrationPhase.FAILED, "input/output error")
        found = self._guests[server_id]
        if copy.told and not found.paused_by_user:
            found.run(self._clock.now_us())
            self._save(found)

    def running(self) -> list[str]:
        return [server_id for server_id, found in self._guests.items() if found.state is GuestState.RUNNING]

    def starved(self) -> list[str]:
        """Guests that stand still for ever: the rest of their memory is lost, and nobody has booted them anew."""
        return [server_id for server_id, found in self._guests.items() if found.starved]

    def present(self) -> dict[str, GuestState]:
        return {server_id: found.state for server_id, found in self._guests.items()}

    def _save(self, found: SimulatedGuest) -> None:
        super()._save(found)
        self.changed()


class Disk:
    """Of one machine: well, slow, or failing, each as often as it was said and not taken back."""

    def __init__(self) -> None:
        self.failing = 0
        self.slow = 0

    async def touch(self, random: Random) -> None:
        if self.slow:
            await asyncio.sleep(random.uniform(0.2, 6.0))
        if self.failing and random.random() < 0.8:
            raise DriverError("input/output error")


VERBS = frozenset(
    {
        "create", "destroy", "start", "stop", "reboot", "pause", "unpause", "suspend", "resume", "prepare_incoming",
        "resume_destination", "start_copy", "force_complete", "cancel_copy", "resume_source", "stand_by", "stand_down",
        "take_in", "begin_post_copy", "recover_incoming", "recover_copy", "give_up_memory",
    }
)  # fmt: skip
_ON_DISK = frozenset({"create", "destroy", "start", "reboot", "suspend", "resume", "prepare_incoming", "take_in"})
_KILLS = frozenset({"create", "destroy", "prepare_incoming"})
"""What ends the process it finds, or makes another, and so waits for none."""


class UnreliableDriver:
    """Every verb of the inner driver may fail before it did anything, or after it did everything, or take long."""

    def __init__(self, inner: FragileDriver, weather: Weather, random: Random) -> None:
        self._inner = inner
        self._weather = weather
        self._random = random

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._inner, name)
        if name not in VERBS:
            return verb

        async def unreliable(guest: Guest | str, *arguments: Any, **named: Any) -> Any:
            if name in _ON_DISK:
                await self._inner.disk.touch(self._random)
            if self._random.random() < self._weather.verb_hangs:
                await asyncio.sleep(self._random.uniform(1.0, 20.0))
            if name == "begin_post_copy" and self._random.random() < self._weather.switch_fails:
                self._inner.fail_copy(str(guest))
            if self._random.random() < self._weather.verb_fails_before:
                raise DriverError(f"{name} failed before it began")
            if name in _KILLS:
                answer = await verb(guest, *arguments, **named)
            else:
                server_id = guest.server_id if isinstance(guest, Guest) else guest
                answer = await self._inner.told(server_id, verb, guest, *arguments, **named)
            if self._random.random() < self._weather.verb_fails_after:
                raise DriverError(f"{name} failed after it was done")
            return answer

        return unreliable


class Watchdog:
    """As `host.watchdog`: what ends when the lease does, whatever the agent does. It is also the lease's note.

    Time is the machine's own, which runs a little fast or slow. It looks as seldom as it may: late, and not too late.
    """

    def __init__(self, loop: VirtualLoop, random: Random, fence: Callable[[], None]) -> None:
        self._loop = loop
        self._random = random
        self._fence = fence
        self._rate = random.uniform(1 - CLOCK_RATE_ERROR, 1 + CLOCK_RATE_ERROR)
        self._started_at = random.uniform(0.0, 1e6)
        self._ends_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.fired = 0

    def now(self) -> float:
        return self._started_at + self._loop.now * self._rate

    def left(self) -> float:
        return self._ends_at - self.now()

    def end_at(self, at: float) -> None:
        self._ends_at = at
        if self._timer is None:
            self._look()

    def forget(self) -> None:
        """The machine boots: a lease of another boot is none."""
        self._ends_at = 0.0

    def _look(self) -> None:
        left = self.left()
        if left > 0:
            late = self._random.uniform(0.0, WATCHDOG_LATE_SECONDS)
            self._timer = self._loop.call_at(self._loop.now + left / self._rate + late, self._look)
            return
        self._timer = None
        self.fired += 1
        self._fence()


class SimulatedLease(Lease):
    """`host.lease.Lease`, whose notes cost no time."""

    async def renew(self, session: str, number: int, heard: int | None) -> None:
        self.asked(session, number, heard)


class Machine:
    """One host: a hypervisor that outlives its agent, a fence on its disk, an agent that may be dead.

    `lease_seconds` None: it has no watchdog.
    """

    def __init__(
        self, name: str, driver: FragileDriver, weather: Weather, random: Random, *, loop: VirtualLoop,
        lease_seconds: float | None,
    ) -> None:  # fmt: skip
        self.name = name
        self.driver = driver
        self.fence = MemoryFence()
        self.cut_off = 0
        """How many partitions it is in."""
        self.unheard = 0
        """The same, of those in which what it says is lost, and half of what it is told arrives."""
        self.powered = True
        self.boots = 1
        self._weather = weather
        self._random = random
        self._loop = loop
        self._lease_seconds = lease_seconds
        self.watchdog = Watchdog(loop, random, self.lose_lease) if lease_seconds is not None else None
        # In the order of their coming, which a set would not keep: the seed has to decide everything.
        self._at_work: dict[asyncio.Task[Any], None] = {}
        self._awaited: dict[asyncio.Future[Any], None] = {}
        """The answers to what it is at."""
        self.started = 0
        self.agent: Agent | None = None
        self.start_agent()

    def start_agent(self) -> None:
        if not self.powered or self.agent is not None:
            return
        reliable: Any = UnreliableDriver(self.driver, self._weather, self._random)
        lease = None
        if self.watchdog is not None and self._lease_seconds is not None:
            lease = SimulatedLease(self.watchdog, seconds=self._lease_seconds)
        self.started += 1
        self.agent = Agent(
            name=self.name, driver=reliable, fence=self.fence, lease=lease, session=f"{self.name}, start {self.started}"
        )

    def kill_agent(self) -> None:
        """What it was doing stops half-way; what the hypervisor was doing goes on."""
        self.agent = None
        for task in list(self._at_work):
            task.cancel()

    def lose_power(self) -> None:
        self.kill_agent()
        self.driver.lose_power()
        self.boots += 1
        if self.watchdog is not None:
            self.watchdog.forget()

    def lose_lease(self) -> None:
        """What the watchdog does: kill the agent, with what it is at, and every guest's process."""
        if self.agent is not None:
            self.kill_agent()
            self._loop.call_later(AGENT_RESTART_SECONDS, self.start_agent)
        self.driver.lose_power()

    def power_off(self) -> None:
        """An administrator pulls the plug; nothing starts here until it is put back."""
        self.powered = False
        self.lose_power()

    def power_on(self) -> None:
        self.powered = True
        self.start_agent()

    async def deliver(self, message: m.Message) -> Any:
        """Let the agent handle a message; HostUnreachable if it dies meanwhile."""
        if self.agent is None:
            raise m.HostUnreachable(f"{self.name} has no agent")
        task = asyncio.ensure_future(self.agent.handle(message))
        self._at_work[task] = None
        answer = self._loop.create_future()
        self._awaited[answer] = None
        task.add_done_callback(lambda done: self._answer(done, answer))
        try:
            return await answer
        finally:
            del self._awaited[answer]

    def _answer(self, done: asyncio.Task[Any], answer: asyncio.Future[Any]) -> None:
        del self._at_work[done]
        error = m.HostUnreachable(f"the agent of {self.name} died") if done.cancelled() else done.exception()
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(done.result())

    def cut(self) -> None:
        """Whoever waits for an answer learns of it before the answer is there."""
        self.cut_off += 1
        for answer in self._awaited:
            lost = self._random.uniform(0.0, CONNECTION_LOST_SECONDS)
            self._loop.call_later(lost, self._lose, answer)

    def _lose(self, answer: asyncio.Future[Any]) -> None:
        if not answer.done():
            answer.set_exception(m.HostUnreachable(f"connection to {self.name} lost"))


class UnreliableLink:
    """`host.client.Link`: delays, loses, repeats, reorders; a partition loses everything both ways."""

    def __init__(self, machine: Machine, weather: Weather, random: Random) -> None:
        self._machine = machine
        self._weather = weather
        self._random = random
        self._late: set[asyncio.Task[None]] = set()

    async def send(self, message: m.Message) -> Any:
        if self._random.random() < self._weather.twice:
            late = asyncio.ensure_future(self._again(message, self._random.uniform(0.0, 10.0), self._machine.boots))
            self._late.add(late)
            late.add_done_callback(self._late.discard)
        await self._travel()
        answer = await self._machine.deliver(message)
        await self._travel(back=True)
        return answer

    async def _travel(self, *, back: bool = False) -> None:
        random, weather = self._random, self._weather
        await asyncio.sleep(random.expovariate(1 / 0.001))
        if random.random() < weather.slow:
            await asyncio.sleep(random.uniform(0.05, 5.0))
        gone = self._machine.cut_off or (self._machine.unheard and (back or random.random() < 0.5))
        if gone or random.random() < weather.lost:
            await asyncio.sleep(random.uniform(0.0, CONNECTION_LOST_SECONDS))
            raise m.HostUnreachable(f"connection to {self._machine.name} lost")

    async def _again(self, message: m.Message, delay: float, boot: int) -> None:
        """Late, though not later than the machine's next boot: that ends its connections."""
        await asyncio.sleep(delay)
        if not self._machine.cut_off and self._machine.boots == boot:
            try:
                await self._machine.deliver(message)
            except m.HostError:
                return  # nobody waits for this answer

    async def close(self) -> None:
        return None
