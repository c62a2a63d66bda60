"""The cloud under simulation: the product's parts, put together on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextvars import Context
from random import Random
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from cumulet.conductor.runner import Runner
from cumulet.conductor.saga import operations
from cumulet.db.engine import Tx
from cumulet.drivers.simulated.driver import World
from cumulet.fleet.hosts import Hosts
from cumulet.processes.conductor import Conductor
from cumulet.processes.parts import PARTS, SAGAS
from cumulet.settings import Settings
from cumulet.testing.simulation import claims
from cumulet.testing.simulation.database import FOR_THE_API
from cumulet.testing.simulation.faults import Weather
from cumulet.testing.simulation.foundation import Identity, foundation, request, state_dir
from cumulet.testing.simulation.fragile import FragileDriver
from cumulet.testing.simulation.hosts import Machine, UnreliableLink
from cumulet.testing.simulation.images import Images
from cumulet.testing.simulation.invariants import Broken
from cumulet.testing.simulation.process import DatabaseOfProcess, Process, hosts_of
from cumulet.testing.simulation.virtual_time import VirtualClock, VirtualLoop
from cumulet.web.context import Cloud

NO_ANSWER = 0
"""The status of a request whose API died."""
HOST_MEMORY_MIB = (4096, 6144, 16384)
"""Of a run's hosts: near their limit, and with room."""

SHARED_MACHINES = 0.2
"""In how many runs all hosts share one machine."""
TAKEN_OVER_LEASES = 3.0
"""Within so many leases another conductor has taken an operation over: one to see that it has run out, the rest for
looking every quarter of one, and for commits that fail."""
_HELD = sa.select(operations.c.saga, operations.c.subject, operations.c.lease_owner).where(
    operations.c.ended_at_us.is_(None), operations.c.lease_owner.is_not(None)
)


class SimulatedCloud:
    """Everything one run has."""

    def __init__(self, loop: VirtualLoop, random: Random, weather: Weather, say: Callable[[str], None]) -> None:
        self.loop = loop
        self.random = random
        self.weather = weather
        self.say = say
        self._broken: Broken | None = None
        fenced = random.random() < 0.7
        self.shared = random.random() < SHARED_MACHINES
        """Whether all hosts are one machine's."""
        number, memory_mib = random.choice((2, 2, 3, 4)), random.choice(HOST_MEMORY_MIB)
        self.settings = Settings(
            state_dir=state_dir(),
            database_url="sqlite://",
            host_names=tuple(f"host{n}" for n in range(1, number + 1)),
            host_silent_seconds=2.0,
            lease_seconds=random.choice((2.0, 4.0)),
            fence_silent_hosts=fenced,
            restart_servers_of_lost_hosts=random.random() < 0.7,
            migration_progress_timeout_seconds=5.0,
            migration_timeout_seconds_per_gib=8.0,
            migration_bandwidth_mib_s=random.choice((150, 400, 1500)),
            simulated_speed=1.0,
            simulated_vcpus=16,
            simulated_memory_mib=memory_mib * (number if self.shared else 1),
            simulated_disk_gib=64,
        )
        self.clock = VirtualClock(loop, random)
        self.foundation = foundation()
        self.db = self.foundation.db
        self.db.driver.deserialize(self.foundation.first_state)
        self.db.weather, self.db.random, self.db.written = weather, random, self._check_written
        self.db.lost.clear()
        self.networks = self.foundation.networks
        self.world = World()
        self.images = Images(self.db, self.clock, self.settings)
        self.world.take = self.images.take
        self.hosts = Hosts()
        self.machines: dict[str, Machine] = {}
        for name in self.settings.host_names:
            driver = FragileDriver(
                name=name, world=self.world, clock=self.clock, settings=self.settings, directory=None
            )
            driver.changed = self._check_running
            driver.copying = self._check_move
            driver.sharing = len(self.settings.host_names) if self.shared else 1
            machine = self.machines[name] = Machine(
                name, driver, weather, random, loop=loop,
                lease_seconds=self.settings.lease_seconds if self.settings.fence_silent_hosts else None,
            )  # fmt: skip
            self.hosts.add(name, UnreliableLink(machine, weather, random))
        self.conductors: list[Conductor] = []
        self.started_at: dict[str, float] = {}
        """By name of a conductor that is up: since when."""
        self.died_at: dict[str, float] = {}
        self._claimants: set[str] = set()
        """Whoever had a claim when one was looked at last."""
        self._moves: set[str] = set()
        """Whose copies have begun."""
        self._conductors = random.choice((1, 1, 2, 3))
        self._api_is_up = True
        self._requests: dict[asyncio.Task[tuple[int, Any]], None] = {}

    async def start(self) -> None:
        for _ in range(self._conductors):
            await self.start_conductor()
        context = Cloud(
            settings=self.settings, db=self.db, clock=self.clock, state_dir=self.settings.state_dir, wake=_Wake(self),
            hosts=self.hosts, identity=Identity(), policy=self.foundation.policy,
        )  # fmt: skip
        self.app = self.foundation.app_of(context)
        self.say(f"hosts {', '.join(self.machines)}; {self._conductors} conductor(s)")

    async def start_conductor(self) -> None:
        process = Process(self.loop, self.random)
        name = f"conductor-{process.uuid()[:8]}"
        while True:
            conductor = Conductor(
                PARTS,
                SAGAS,
                db=DatabaseOfProcess(self.db, process),
                clock=process,
                settings=self.settings,
                hosts=hosts_of(self.hosts, process),
                name=name,
                alone=self._conductors == 1,
                wake=_Wake(self),
            )
            try:
                await conductor.start()
                break
            except DBAPIError:
                # A process that cannot reach its database at start ends, and is started again.
                _kill(conductor)
                await asyncio.sleep(0.5)
        self.conductors.append(conductor)
        self.started_at[name] = self.loop.now

    def kill_conductor(self, conductor: Conductor) -> None:
        """As kill -9."""
        self.conductors.remove(conductor)
        name = conductor.runner.name
        del self.started_at[name]
        self.died_at[name] = self.loop.now
        _kill(conductor)

    @property
    def runners(self) -> list[Runner]:
        return [conductor.runner for conductor in self.conductors]

    # -- invariants that hold always

    def raise_broken(self) -> None:
        self._check_taken_over()
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

    def _check_move(self, move: str) -> None:
        """What two hosts know each other by in a move is for its one copy, and no other trusts it."""
        if move in self._moves:
            self._break("key used twice", f"another copy has begun with what was made for the move {move[:8]}")
        self._moves.add(move)

    def _check_written(self) -> None:
        """After every commit."""
        self._check_claims()
        while self.db.lost:
            server_id, host = self.db.lost.pop()
            if server_id in self.machines[host].driver.present():
                self._break("wrong record", f"{host} is said to have lost the guest of {server_id}, and has it")

    def _check_taken_over(self) -> None:
        """Now and then: what a dead conductor held is taken over by one that has been up for long enough."""
        up_since = min(self._up_since(), default=None)
        if up_since is None:
            return
        for row in self.db.read(lambda tx: tx.all(_HELD, {})):
            waits = self.loop.now - max(up_since, self.died_at.get(row.lease_owner, self.loop.now))
            if waits > TAKEN_OVER_LEASES * self.settings.lease_seconds:
                self._break("not taken over", f"{row.saga} of {row.subject[:8]} waits {waits:.1f} s for a conductor")

    def _up_since(self) -> Iterator[float]:
        """Of each conductor that is up and goes on: since when it has been looking."""
        for runner in self.runners:
            assert isinstance(runner.clock, Process)
            if runner.clock.going_since is not None:
                yield max(self.started_at[runner.name], runner.clock.going_since)

    def _check_claims(self) -> None:
        """After every commit that wrote a claim, an inventory, or what a server is or where."""
        if not self.db.claims_touched:
            return
        self.db.claims_touched = False
        guests = {name: machine.driver.described() for name, machine in self.machines.items()}
        driver = self.db.driver
        problems = (
            *claims.broken(driver),
            *claims.wrong_guests(driver, guests),
            *(claims.counted_twice(driver, self.settings.simulated_memory_mib) if self.shared else ()),
            *claims.begun_off_dead_hosts(driver, self._claimants),
        )
        for kind, problem in problems:
            self._break(kind, problem)

    # -- requests

    def kill_api(self) -> int:
        """Requests under way end where they wait; nobody is told of what they did. Answers how many they were."""
        self._api_is_up = False
        for task in self._requests:
            task.cancel()
        return len(self._requests)

    def start_api(self) -> None:
        self._api_is_up = True

    async def request(
        self, caller: str, method: str, path: str, body: Any = None, *, version: str = "2.96"
    ) -> tuple[int, Any]:
        """One request through the real dispatcher; answers status and JSON, or `NO_ANSWER` and None."""
        if not self._api_is_up:
            return NO_ANSWER, None
        faults = self.db.faults
        task = Context().run(asyncio.ensure_future, self._serve(caller, method, path, body, version))
        self._requests[task] = None
        task.add_done_callback(self._requests.pop)
        await asyncio.wait({task})
        if task.cancelled():
            return NO_ANSWER, None
        status, answer = task.result()
        if status == 500 and self.db.faults == faults:
            self._break("unexpected answer", f"500 to {method} {path}: {answer}")
        return status, answer

    async def _serve(self, caller: str, method: str, path: str, body: Any, version: str) -> tuple[int, Any]:
        FOR_THE_API.set(True)
        return await request(self.app, caller, method, path, body, version=version)


def _kill(conductor: Conductor) -> None:
    """As kill -9: it gets no word in. Its tasks are cancelled where they wait; what it asked of hosts goes on."""
    runner = conductor.runner
    runner._stopping = True
    tasks = [*runner._tasks.values(), *([runner._sweeper] if runner._sweeper is not None else [])]
    for task in tasks:
        task.cancel()
    conductor.leadership.kill()


class _Wake:
    """After a commit, any conductor that is up is told; which one is chance, and none may be."""

    def __init__(self, cloud: SimulatedCloud) -> None:
        self._cloud = cloud

    def operation(self, tx: Tx, operation_id: str) -> None:
        tx.after_commit(lambda: self._tell(operation_id))

    def _tell(self, operation_id: str) -> None:
        if self._cloud.runners:
            Context().run(self._cloud.random.choice(self._cloud.runners).poke, operation_id)
