"""Faults of a run: what breaks between two requests, by the run's weather, and how it heals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import sqlalchemy as sa

from cumulet.compute.store import hosts
from cumulet.host.driver import GuestState
from cumulet.testing.simulation.cloud import SimulatedCloud
from cumulet.testing.simulation.fragile import Disk
from cumulet.testing.simulation.hosts import Machine
from cumulet.testing.simulation.process import Process

_SERVICE = sa.select(hosts.c.service_uuid).where(hosts.c.name == sa.bindparam("of_name"))


class Trouble:
    """Breaks parts of a cloud. Each fault ends after a while; `heal` waits for that."""

    def __init__(self, cloud: SimulatedCloud, random: Random) -> None:
        self._cloud = cloud
        machines = list(cloud.machines.values())
        unwatched = [one for one in machines if one.watchdog is None and cloud.settings.fence_silent_hosts]
        self._weak = random.choice(unwatched or machines)
        """Faults hit this machine more often, so that others are there for its servers. If others have watchdogs, it is
        the one without."""
        self._down: set[asyncio.Task[None]] = set()

    def draw(self, random: Random) -> tuple[str, str] | None:
        """Perhaps break something. Returns the kind of fault and its story."""
        weather = self._cloud.weather
        machine = random.choice([self._weak, random.choice(list(self._cloud.machines.values()))])
        pause = random.uniform(0.0, 9.0) * random.choice((1.0, 1.0, 1.0, 2.0))
        kinds: tuple[tuple[str, Callable[[], str]], ...] = (
            ("conductor_crash", lambda: self._crash_conductor(random, pause)),
            ("process_stops", lambda: self._stop_process(random, pause)),
            ("process_cut_off", lambda: self._cut_off_process(machine, random, pause)),
            ("without_database", lambda: self._take_database(random, pause)),
            ("host_reconnects", lambda: self._reconnect(machine, machine.name, random)),
            ("process_reconnects", lambda: self._reconnect_process(random)),
            ("agent_crash", lambda: self._crash_agent(machine, pause)),
            ("host_crash", lambda: self._crash_host(machine, pause)),
            ("guest_crash", lambda: self._crash_guest(machine, random)),
            ("partition", lambda: self._cut_off(machine, pause)),
            ("clock_jump", lambda: self._jump(random)),
            ("host_lost", lambda: self._lose_host(machine, random)),
            ("api_crash", lambda: self._crash_api(random, pause)),
            ("unheard", lambda: self._make_unheard(machine, pause)),
            ("guest_hangs", lambda: self._hang_guest(machine, random, pause)),
            ("copy_stalls", lambda: self._stall_copy(machine, random, pause)),
            ("disk_fails", lambda: self._break_disk(machine, pause)),
            ("disk_slow", lambda: self._slow_disk(machine, pause)),
        )
        for kind, do in kinds:
            if random.random() < getattr(weather, kind):
                return kind, do()
        return None

    def _later(self, pause: float, do: Callable[[], object]) -> None:
        async def wait() -> None:
            await asyncio.sleep(pause)
            result = do()
            if asyncio.iscoroutine(result):
                await result

        task = asyncio.ensure_future(wait())
        self._down.add(task)
        task.add_done_callback(self._down.discard)

    def _count(self, thing: Machine | Disk, name: str, pause: float) -> None:
        """Raise the count `name` by one for a while: faults of one kind may overlap."""
        setattr(thing, name, getattr(thing, name) + 1)
        self._later(pause, lambda: setattr(thing, name, getattr(thing, name) - 1))

    def _crash_conductor(self, random: Random, pause: float) -> str:
        if not self._cloud.conductors:
            return "a conductor was to crash, but none is up"
        conductor = random.choice(self._cloud.conductors)
        runner = conductor.runner
        self._cloud.kill_conductor(conductor)
        self._later(pause, self._cloud.start_conductor)
        return f"{runner.name} is killed, another starts in {pause:.1f} s"

    def _crash_agent(self, machine: Machine, pause: float) -> str:
        machine.kill_agent()
        self._later(pause, machine.start_agent)
        return f"the agent of {machine.name} is killed, back in {pause:.1f} s"

    def _crash_host(self, machine: Machine, pause: float) -> str:
        machine.lose_power()
        self._later(pause, machine.start_agent)
        return f"{machine.name} loses power, back in {pause:.1f} s"

    def _lose_host(self, machine: Machine, random: Random) -> str:
        """An administrator switches a machine off and then forces it down; much later it comes back."""
        if not machine.powered:
            return f"{machine.name} is off already"
        machine.power_off()
        away = random.uniform(2.0, 15.0)

        async def story() -> None:
            await self._force_down(machine.name, down=True)
            await asyncio.sleep(away)
            await self._force_down(machine.name, down=False)
            machine.power_on()

        self._later(0.0, story)
        return f"{machine.name} is switched off, and forced down, for {away:.1f} s"

    async def _force_down(self, name: str, *, down: bool) -> None:
        """Ask until it is done."""
        row = self._cloud.db.read(lambda tx: tx.first(_SERVICE, {"of_name": name}))
        assert row is not None
        while True:
            status, _ = await self._cloud.request(
                "admin", "PUT", f"/compute/v2.1/os-services/{row.service_uuid}", {"forced_down": down}
            )
            if status == 200:
                return
            await asyncio.sleep(0.2)

    def _crash_guest(self, machine: Machine, random: Random) -> str:
        guests = list(machine.driver.present())
        if not guests:
            return f"a guest of {machine.name} was to crash, but there is none"
        server_id = random.choice(guests)
        machine.driver.crash_guest(server_id)
        return f"{server_id[:8]} crashes on {machine.name}"

    def _cut_off(self, machine: Machine, pause: float) -> str:
        self._count(machine, "cut_off", pause)
        machine.lose_connections()
        return f"{machine.name} is cut off for {pause:.1f} s"

    def _make_unheard(self, machine: Machine, pause: float) -> str:
        self._count(machine, "unheard", pause)
        return f"{machine.name} hears half, and is not heard, for {pause:.1f} s"

    def _hang_guest(self, machine: Machine, random: Random, pause: float) -> str:
        """Hang a guest; more often one that moves, at its source or its destination."""
        present = machine.driver.present()
        guests = [*present, *[guest for guest, state in present.items() if state is GuestState.INCOMING] * 3]
        guests += list(machine.driver.copies()) * 3
        if not guests:
            return f"a guest of {machine.name} was to hang, but there is none"
        server_id = random.choice(guests)
        machine.driver.hang(server_id)
        self._later(pause, lambda: machine.driver.go_on(server_id))
        return f"the process of {server_id[:8]} on {machine.name} hangs for {pause:.1f} s"

    def _stall_copy(self, machine: Machine, random: Random, pause: float) -> str:
        copies = machine.driver.copies()
        if not copies:
            return f"a copy from {machine.name} was to stall, but there is none"
        server_id = random.choice(list(copies))
        now_us = self._cloud.clock.now_us()
        copies[server_id].stand_still(now_us, now_us + round(pause * 1_000_000))
        return f"the copy of {server_id[:8]} from {machine.name} stands still for {pause:.1f} s"

    def _break_disk(self, machine: Machine, pause: float) -> str:
        self._count(machine.driver.disk, "failing", pause)
        machine.driver.fail_copies()
        return f"the disk of {machine.name} fails for {pause:.1f} s"

    def _slow_disk(self, machine: Machine, pause: float) -> str:
        self._count(machine.driver.disk, "slow", pause)
        now_us = self._cloud.clock.now_us()
        for copy in machine.driver.copies().values():
            copy.stand_still(now_us, now_us + round(pause * 500_000))
        return f"the disk of {machine.name} is slow for {pause:.1f} s"

    def _crash_api(self, random: Random, pause: float) -> str:
        api = random.choice(self._cloud.apis)
        requests = api.kill()
        self._later(pause, api.start)
        return f"{api.process.name} is killed, with {requests} request(s), back in {pause:.1f} s"

    def _process(self, random: Random) -> Process | None:
        """A random process; more often the conductor that leads."""
        leading = [one.runner.clock for one in self._cloud.conductors if one.leadership.leads]
        found = random.choice([*self._cloud.processes, *leading, *leading])
        return found if isinstance(found, Process) else None

    def _cut_off_process(self, machine: Machine, random: Random, pause: float) -> str:
        process = self._process(random)
        if process is None:
            return "a process was to be cut off, but none is up"
        process.cut_off_from[machine.name] += 1
        self._later(pause, lambda: process.cut_off_from.subtract([machine.name]))
        return f"{process.name} does not reach {machine.name} for {pause:.1f} s"

    def _take_database(self, random: Random, pause: float) -> str:
        """One of several processes on the database does not reach it for a while."""
        process = None if self._cloud.alone else self._process(random)
        if process is None:
            return "a process was to lose its database, but nobody shares one"
        process.lose_database()
        self._later(pause, process.give_back_database)
        return f"{process.name} does not reach the database for {pause:.1f} s"

    def _reconnect(self, one: Machine | Process, name: str, random: Random, *, longest: float = 2.0) -> str:
        """The bus cuts off a slow reader. Its library connects again, a quarter of a second to two seconds later."""
        away = random.uniform(0.25, longest)
        one.leave_bus()
        self._later(away, one.join_bus)
        return f"the bus cuts {name} off, which connects again in {away:.1f} s"

    def _reconnect_process(self, random: Random) -> str:
        """A process may not reach the bus for longer: others do meanwhile."""
        process = self._process(random)
        longest = random.choice((2.0, 30.0))
        return "nobody is up" if process is None else self._reconnect(process, process.name, random, longest=longest)

    def _stop_process(self, random: Random, pause: float) -> str:
        process = self._process(random)
        if process is None:
            return "a process was to be stopped, but none is up"
        process.stop()
        self._later(pause, process.go_on)
        return f"{process.name} is stopped for {pause:.1f} s"

    def _jump(self, random: Random) -> str:
        process = self._process(random)
        if process is None:
            return "a clock was to jump, but nobody is up"
        process.wrong_by_us = random.randint(-20_000_000, 20_000_000)
        return f"the clock of {process.name} is wrong by {process.wrong_by_us / 1e6:.1f} s"

    async def heal(self) -> None:
        """End all faults: what is down or hangs comes back, and clocks are right again."""
        for machine in self._cloud.machines.values():
            machine.driver.heal()
        for process in self._cloud.processes:
            process.wrong_by_us = 0
        if self._down:
            await asyncio.gather(*self._down)
