"""The cloud under simulation: the product's parts, put together on a virtual clock, and the hands that break them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from cumulet.compute.automatic_restart import AutomaticRestart
from cumulet.compute.sagas import SAGAS
from cumulet.compute.store import hosts
from cumulet.conductor.reconcilers import HostWatch, Leftovers
from cumulet.conductor.runner import Runner
from cumulet.db.engine import Tx
from cumulet.host.client import Hosts
from cumulet.host.simulated import World
from cumulet.settings import Settings
from cumulet.testing.simulation.faults import Weather
from cumulet.testing.simulation.foundation import Identity, foundation, request, state_dir
from cumulet.testing.simulation.hosts import FragileDriver, Machine, UnreliableLink
from cumulet.testing.simulation.invariants import Broken
from cumulet.testing.simulation.virtual_time import VirtualClock, VirtualLoop
from cumulet.web.context import Cloud

HOST_MEMORY_MIB = (4096, 6144, 16384)
"""Of a run's machines: near their limit, and with room."""

_SERVICE = sa.select(hosts.c.service_uuid).where(hosts.c.name == sa.bindparam("of_name"))
_OVER = """
SELECT i.provider_id, i.resource_class, sum(a.used)
FROM inventories i JOIN allocations a ON a.provider_id = i.provider_id AND a.resource_class = i.resource_class
GROUP BY i.provider_id, i.resource_class
HAVING sum(a.used) > (i.total - i.reserved) * i.allocation_ratio
"""


class SimulatedCloud:
    """Everything one run has."""

    def __init__(self, loop: VirtualLoop, random: Random, weather: Weather, say: Callable[[str], None]) -> None:
        self.loop = loop
        self.random = random
        self.weather = weather
        self.say = say
        self._broken: Broken | None = None
        fenced = random.random() < 0.5
        self.settings = Settings(
            state_dir=state_dir(),
            database_url="sqlite://",
            host_names=tuple(f"host{n}" for n in range(1, random.choice((2, 2, 3, 4)) + 1)),
            host_silent_seconds=2.0,
            lease_seconds=4.0 if fenced else 2.0,
            fence_silent_hosts=fenced,
            restart_servers_of_lost_hosts=random.random() < 0.4,
            migration_progress_timeout_seconds=5.0,
            migration_timeout_seconds_per_gib=8.0,
            simulated_speed=1.0,
            simulated_vcpus=16,
            simulated_memory_mib=random.choice(HOST_MEMORY_MIB),
            simulated_disk_gib=64,
        )
        self.clock = VirtualClock(loop, random)
        self.foundation = foundation()
        self.db = self.foundation.db
        self.db.driver.deserialize(self.foundation.first_state)
        self.db.weather, self.db.random, self.db.written = Weather(), random, self._check_capacity
        self.networks = self.foundation.networks
        self.world = World()
        self.hosts = Hosts()
        self.machines: dict[str, Machine] = {}
        for name in self.settings.host_names:
            driver = FragileDriver(
                name=name, world=self.world, clock=self.clock, settings=self.settings, directory=None
            )
            driver.changed = self._check_running
            machine = self.machines[name] = Machine(
                name, driver, weather, random, loop=loop,
                lease_seconds=self.settings.lease_seconds if self.settings.fence_silent_hosts else None,
            )  # fmt: skip
            self.hosts.add(name, UnreliableLink(machine, weather, random))
        self.runners: list[Runner] = []
        self.watch: HostWatch | None = None
        self.restart: AutomaticRestart
        self.leftovers: Leftovers
        self._watcher: Runner | None = None
        """In whose process the watch lives."""
        self._conductors = random.choice((1, 1, 2))
        self._down: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        storm = {name: getattr(self.weather, name) for name in self.weather.__slots__}
        self.weather.calm()
        for _ in range(self._conductors):
            await self._start_conductor()
        context = Cloud(
            settings=self.settings, db=self.db, clock=self.clock, state_dir=self.settings.state_dir, wake=_Wake(self),
            hosts=self.hosts, identity=Identity(), policy=self.foundation.policy,
        )  # fmt: skip
        self.app = self.foundation.app_of(context)
        for name, chance in storm.items():
            setattr(self.weather, name, chance)
        self.db.weather = self.weather
        self.say(f"hosts {', '.join(self.machines)}; {self._conductors} conductor(s); {_said(self.weather)}")

    async def _start_conductor(self) -> None:
        clock = VirtualClock(self.loop, self.random)
        runner = Runner(
            db=self.db, clock=clock, settings=self.settings, hosts=self.hosts, sagas=SAGAS,
            name=f"runner-{clock.uuid()[:8]}", alone=self._conductors == 1,
        )  # fmt: skip
        watching = self._watcher is None
        if watching:
            self._watcher = runner
        while True:
            try:
                if watching:
                    await self._start_watch(runner)
                await runner.start()
                break
            except DBAPIError:
                # A process that cannot reach its database at start ends, and is started again.
                if watching:
                    self._kill_watch()
                await asyncio.sleep(0.5)
        self.runners.append(runner)

    async def _start_watch(self, runner: Runner) -> None:
        """Beside one conductor only, as in `cumulet.cloud`: hosts, and what follows when they are lost."""
        self.watch = HostWatch(db=self.db, clock=runner.clock, settings=self.settings, hosts=self.hosts)
        self.restart = AutomaticRestart(
            db=self.db, clock=runner.clock, settings=self.settings, wake=_Wake(self), lost=self.watch.lost
        )
        self.leftovers = Leftovers(db=self.db, clock=runner.clock, settings=self.settings)
        await self.watch.start()
        self.restart.start()
        self.leftovers.start()

    def _kill_watch(self) -> None:
        if self.watch is not None:
            for task in (*self.watch._tasks, self.restart._task, self.leftovers._task):
                if task is not None:
                    task.cancel()
            self.watch = None

    # -- invariants that hold always

    def raise_broken(self) -> None:
        if self._broken is not None:
            raise self._broken

    def _break(self, kind: str, problem: str) -> None:
        if self._broken is None:
            self._broken = Broken(kind, problem)
            self.say(f"BROKEN NOW: {problem}")

    def _check_running(self) -> None:
        where: dict[str, str] = {}
        for name, machine in self.machines.items():
            for server_id in machine.driver.running():
                if server_id in where:
                    self._break("double run", f"two running copies of {server_id}: on {where[server_id]} and on {name}")
                where[server_id] = name

    def _check_capacity(self) -> None:
        """After every commit that wrote a claim or an inventory."""
        if not self.db.capacity_touched:
            return
        self.db.capacity_touched = False
        over = self.db.driver.execute(_OVER).fetchone()
        if over is not None:
            self._break("over capacity", f"allocations exceed capacity: {over}")

    # -- faults

    def draw_fault(self, random: Random) -> tuple[str, str] | None:
        """Maybe break something; says what kind of thing, and the story."""
        weather = self.weather
        machine = random.choice(list(self.machines.values()))
        pause = random.uniform(0.0, 9.0)
        kinds: tuple[tuple[str, Callable[[], str]], ...] = (
            ("conductor_crash", lambda: self._crash_conductor(random, pause)),
            ("agent_crash", lambda: self._crash_agent(machine, pause)),
            ("host_crash", lambda: self._crash_host(machine, pause)),
            ("guest_crash", lambda: self._crash_guest(machine, random)),
            ("partition", lambda: self._cut_off(machine, pause)),
            ("clock_jump", lambda: self._jump(random)),
            ("host_lost", lambda: self._lose_host(machine, random)),
        )
        for kind, do in kinds:
            if random.random() < getattr(weather, kind):
                return kind, do()
        return None

    def _later(self, pause: float, do: Callable[[], Any]) -> None:
        async def wait() -> None:
            await asyncio.sleep(pause)
            result = do()
            if asyncio.iscoroutine(result):
                await result

        task = asyncio.ensure_future(wait())
        self._down.add(task)
        task.add_done_callback(self._down.discard)

    def _crash_conductor(self, random: Random, pause: float) -> str:
        if not self.runners:
            return "a conductor was to crash, but none is up"
        runner = self.runners.pop(random.randrange(len(self.runners)))
        _kill(runner)
        if runner is self._watcher:
            self._watcher = None
            self._kill_watch()
        self._later(pause, self._start_conductor)
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
        """An administrator switches a machine off for good, and only then says so; much later it comes back."""
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
        """As often as it takes."""
        row = self.db.read(lambda tx: tx.first(_SERVICE, {"of_name": name}))
        assert row is not None
        while True:
            status, _ = await self.request(
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
        machine.cut_off = True

        def mend() -> None:
            machine.cut_off = False

        self._later(pause, mend)
        return f"{machine.name} is cut off for {pause:.1f} s"

    def _jump(self, random: Random) -> str:
        if not self.runners:
            return "a clock was to jump, but no conductor is up"
        runner = random.choice(self.runners)
        clock = runner.clock
        assert isinstance(clock, VirtualClock)
        clock.wrong_by_us = random.randint(-20_000_000, 20_000_000)
        return f"the clock of {runner.name} is wrong by {clock.wrong_by_us / 1e6:.1f} s"

    async def heal(self) -> None:
        """Whoever is down comes back now; clocks are right again."""
        for runner in self.runners:
            assert isinstance(runner.clock, VirtualClock)
            runner.clock.wrong_by_us = 0
        if self._down:
            await asyncio.gather(*self._down)

    # -- requests

    async def request(
        self, caller: str, method: str, path: str, body: Any = None, *, version: str = "2.96"
    ) -> tuple[int, Any]:
        """One request through the real dispatcher; answers status and JSON."""
        return await request(self.app, caller, method, path, body, version=version)


def _kill(runner: Runner) -> None:
    """As kill -9: it gets no word in. Its tasks are cancelled where they wait; what it asked of hosts goes on."""
    runner._stopping = True
    tasks = [*runner._tasks.values(), *([runner._sweeper] if runner._sweeper is not None else [])]
    for task in tasks:
        task.cancel()


class _Wake:
    """After a commit, any conductor that is up is told; which one is chance, and none may be."""

    def __init__(self, cloud: SimulatedCloud) -> None:
        self._cloud = cloud

    def operation(self, tx: Tx, operation_id: str) -> None:
        tx.after_commit(lambda: self._tell(operation_id))

    def _tell(self, operation_id: str) -> None:
        if self._cloud.runners:
            self._cloud.random.choice(self._cloud.runners).poke(operation_id)


def _said(weather: Weather) -> str:
    chances = [f"{name} {getattr(weather, name):.2f}" for name in weather.__slots__ if getattr(weather, name)]
    return "faults: " + (", ".join(chances) or "none")
