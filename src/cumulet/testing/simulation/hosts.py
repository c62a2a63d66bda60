"""Simulated machines that lose power, agents that die, watchdogs, and the unreliable way to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

from cumulet.agent.agent import Agent
from cumulet.agent.fence import Mark, MemoryFence
from cumulet.agent.simulated_lease import SimulatedLease
from cumulet.drivers.simulated.network import SimulatedNetwork
from cumulet.host import messages as m
from cumulet.host.looking import Look
from cumulet.host.wiring import Router, Wiring
from cumulet.testing.simulation.faults import Weather
from cumulet.testing.simulation.fragile import FragileDriver, UnreliableDriver
from cumulet.testing.simulation.virtual_time import VirtualLoop

CLOCK_RATE_ERROR = 0.01
WATCHDOG_LATE_SECONDS = 0.5
"""After so long from the end of a lease the last guest has ended: a look, a kill, and some scheduling."""
AGENT_RESTART_SECONDS = 0.3
GONE_SECONDS = 4.0
"""The longest time to learn that an agent has lost the connection that brought it the request (`bus.nats`)."""
CONNECTION_LOST_SECONDS = 2.0
"""The longest time to learn that a connection is dead."""


class Watchdog:
    """As `agent.watchdog`: what ends when the lease does, whatever the agent does. It is also the lease's note.

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
        """The machine boots: a lease from before does not count."""
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


class HostNetwork(SimulatedNetwork):
    """The wiring an agent was told. What is in force stays in the machine's kernel when the agent dies."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine

    def apply(self, wiring: Wiring) -> None:
        super().apply(wiring)
        if self.wiring is wiring:
            self._machine.serve(wiring.routers)


class Machine:
    """One host: a hypervisor that outlives its agent, a fence on its disk, an agent that may be dead.

    `lease_seconds` None: it has no watchdog.
    """

    def __init__(
        self,
        name: str,
        driver: FragileDriver,
        weather: Weather,
        random: Random,
        *,
        loop: VirtualLoop,
        lease_seconds: float | None,
    ) -> None:
        self.name = name
        self.driver = driver
        self.fence = MemoryFence()
        driver.generation_of = lambda server_id: self.fence.mark(server_id).generation
        self.cut_off = 0
        """How many partitions cut it off now."""
        self.unheard = 0
        """How many partitions now lose all that it sends, and half of what is sent to it."""
        self.connections = 1
        """How often it has connected to the bus."""
        self.off_the_bus = 0
        """How many times the bus cut it off and it has not connected again."""
        self.powered = True
        self.boots = 1
        self._weather = weather
        self._random = random
        self._loop = loop
        self._lease_seconds = lease_seconds
        self.watchdog = Watchdog(loop, random, self.lose_lease) if lease_seconds is not None else None
        # In the order of arrival. A set would not keep it, and the seed has to decide everything.
        self._at_work: dict[asyncio.Task[object], None] = {}
        self._awaited: dict[asyncio.Future[object], None] = {}
        """The futures of the requests that it works on."""
        self.cannot_unplug: set[tuple[str, str]] = set()
        """Servers and ports that it was told to unplug, and answered that it cannot."""
        self.started = 0
        self.routers: tuple[Router, ...] = ()
        """The routers that its kernel serves now."""
        self.wired: Callable[[], None] = lambda: None
        """Called when these have changed."""
        self._looked: dict[str, Mark] = {}
        """By server: the generation and step of the last look that was answered."""
        self.done_late: Callable[[str], None] = lambda what: None
        """Called when a command that came after such an answer, and is of an earlier step, was done all the same."""
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
        self.driver.network = HostNetwork(self)  # An agent knows its wiring only from what it was told.
        self.agent = Agent(
            name=self.name, driver=reliable, fence=self.fence, lease=lease, session=f"{self.name}, start {self.started}"
        )

    def kill_agent(self) -> None:
        """Kill the agent. Its own work stops half-way; the hypervisor's goes on."""
        self.agent = None
        for task in list(self._at_work):
            task.cancel()
        self.driver.lose_agent()

    def serve(self, routers: tuple[Router, ...]) -> None:
        self.routers = routers
        self.wired()

    def lose_power(self) -> None:
        self.kill_agent()
        self.driver.lose_power()
        self.serve(())
        self.boots += 1
        if self.watchdog is not None:
            self.watchdog.forget()

    def lose_lease(self) -> None:
        """The lease has run out. The watchdog kills the agent with its work, and every guest's process; routers end."""
        if self.agent is not None:
            self.kill_agent()
            self._loop.call_later(AGENT_RESTART_SECONDS, self.start_agent)
        self.driver.lose_power()
        self.end_routers()

    def end_routers(self) -> None:
        self.serve(())

    def power_off(self) -> None:
        """An administrator switches the machine off; nothing starts here until it is switched on."""
        self.powered = False
        self.lose_power()

    def power_on(self) -> None:
        self.powered = True
        self.start_agent()

    async def deliver(self, message: m.Message[object]) -> Any:
        """Let the agent handle a message; HostUnreachable if it dies meanwhile."""
        if self.agent is None or self.off_the_bus:
            raise m.HostUnreachable(f"no agent of {self.name} listens")
        task = asyncio.ensure_future(self.agent.handle(message))
        self._at_work[task] = None
        answer = self._loop.create_future()
        self._awaited[answer] = None
        if isinstance(message, m.Command):
            late = _mark(message) < self._looked.get(message.server_id, Mark(0, 0))
            task.add_done_callback(lambda done: self._judge(done, message, late=late))
        task.add_done_callback(lambda done: self._answer(done, answer))
        try:
            return await answer
        finally:
            del self._awaited[answer]

    def _judge(self, done: asyncio.Task[object], command: m.Command[object], *, late: bool) -> None:
        """An operation that is undone relies on a look: what it has told before is over, or is refused (`Look`)."""
        if done.cancelled() or done.exception() is not None:
            return
        if late:
            self.done_late(f"{type(command).__name__} of {command.server_id[:8]} after a later step had looked")
        elif isinstance(command, Look):
            self._looked[command.server_id] = max(_mark(command), self._looked.get(command.server_id, Mark(0, 0)))

    def _answer(self, done: asyncio.Task[object], answer: asyncio.Future[object]) -> None:
        del self._at_work[done]
        error = m.HostUnreachable(f"the agent of {self.name} died") if done.cancelled() else done.exception()
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(done.result())

    def leave_bus(self) -> None:
        """The bus cuts it off. Its work goes on, but its answers are lost."""
        self.off_the_bus += 1
        self.connections += 1

    def join_bus(self) -> None:
        self.off_the_bus -= 1

    def lose_connections(self) -> None:
        """It is cut off: callers learn that before their answer arrives."""
        for answer in self._awaited:
            lost = self._random.uniform(0.0, CONNECTION_LOST_SECONDS)
            self._loop.call_later(lost, self._lose, answer)

    def _lose(self, answer: asyncio.Future[object]) -> None:
        if not answer.done():
            answer.set_exception(m.HostUnreachable(f"connection to {self.name} lost"))


def _mark(command: m.Command[object]) -> Mark:
    return Mark(command.generation, command.step)


class UnreliableLink:
    """A `host.link.Link` that delays, loses, repeats and reorders messages. A partition loses them in both
    directions."""

    def __init__(self, machine: Machine, weather: Weather, random: Random) -> None:
        self._machine = machine
        self._weather = weather
        self._random = random
        self._late: set[asyncio.Task[None]] = set()

    async def send(self, message: m.Message[object]) -> Any:
        try:
            return await self._send(message)
        except m.VerbFailed:
            if isinstance(message, m.Unplug):
                self._machine.cannot_unplug.add((message.server_id, message.port_id))
            raise

    async def _send(self, message: m.Message[object]) -> Any:
        if self._random.random() < self._weather.twice:
            late = asyncio.ensure_future(self._again(message, self._random.uniform(0.0, 10.0), self._machine.boots))
            self._late.add(late)
            late.add_done_callback(self._late.discard)
        await self._travel()
        self._refuse_too_long("MESSAGE")
        connection = self._machine.connections
        answer = await self._machine.deliver(message)
        if self._machine.connections != connection:
            await asyncio.sleep(self._random.uniform(0.0, GONE_SECONDS))
            raise m.HostUnreachable(f"{self._machine.name} has connected anew")
        await self._travel(back=True)
        self._refuse_too_long("ANSWER")
        return answer

    def _refuse_too_long(self, what: str) -> None:
        if self._random.random() < self._weather.too_long:
            raise m.VerbFailed(f"{what}_TOO_LONG: the bus takes less in one message")

    async def _travel(self, *, back: bool = False) -> None:
        random, weather = self._random, self._weather
        await asyncio.sleep(random.expovariate(1 / 0.001))
        if random.random() < weather.slow:
            await asyncio.sleep(random.uniform(0.05, 5.0))
        gone = self._machine.cut_off or (self._machine.unheard and (back or random.random() < 0.5))
        if gone or random.random() < weather.lost:
            await asyncio.sleep(random.uniform(0.0, CONNECTION_LOST_SECONDS))
            raise m.HostUnreachable(f"connection to {self._machine.name} lost")

    async def _again(self, message: m.Message[object], delay: float, boot: int) -> None:
        """Deliver a message late, but not after the machine's next boot, which ends its connections."""
        await asyncio.sleep(delay)
        if not self._machine.cut_off and self._machine.boots == boot:
            try:
                await self._machine.deliver(message)
            except m.HostError:
                return  # nobody waits for this answer

    async def close(self) -> None:
        return None
