"""The simulated cloud: the product's parts, joined on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from functools import partial
from random import Random

from sqlalchemy.exc import DBAPIError

from cumulet.compute import host_views
from cumulet.compute import hosts as host_records
from cumulet.compute.hosts_in_memory import HostsInMemory
from cumulet.compute.telling import Tellings
from cumulet.compute.wiring import SECONDS_BETWEEN, Wirings
from cumulet.conductor.conductor import Conductor
from cumulet.conductor.runner import Runner
from cumulet.db.engine import Tx
from cumulet.drivers.simulated.driver import World
from cumulet.fleet.hosts import Hosts
from cumulet.image import left_data
from cumulet.image.left_data import LeftData
from cumulet.processes.conductor import conductor_of
from cumulet.processes.ground import Ground
from cumulet.processes.parts import PARTS, SAGAS
from cumulet.processes.serving import cloud_of
from cumulet.settings import Settings
from cumulet.testing.simulation.always import Always
from cumulet.testing.simulation.apis import Api
from cumulet.testing.simulation.database import Memory
from cumulet.testing.simulation.faults import Weather
from cumulet.testing.simulation.foundation import Answered, Identity, foundation, state_dir
from cumulet.testing.simulation.fragile import FragileDriver
from cumulet.testing.simulation.hosts import Machine, UnreliableLink
from cumulet.testing.simulation.images import Images
from cumulet.testing.simulation.life import LIFE, Life
from cumulet.testing.simulation.process import DatabaseOfProcess, Process, hosts_of
from cumulet.testing.simulation.virtual_time import VirtualClock, VirtualLoop

HOST_SILENT_SECONDS = 2.0
HOST_MEMORY_MIB = (4096, 6144, 16384)
"""Memory of the hosts, one of these in a run: from too little for all servers to enough."""

ROUTED = 0.4
"""The share of runs with routers. Only there are hosts told of changes that no operation waits for."""
DETAILED = 0.2
"""The share of runs, all with routers, in which projects also have QoS policies, metering, names and segments."""
SHARED_MACHINES = 0.2
"""The share of runs in which all hosts share one machine."""
WITHOUT_WATCHDOG = 0.3
"""The share of runs with watchdogs in which one host has none."""
OFFLOAD_SECONDS = (0, 0, -1, 2)
"""How long shelved servers stay on their hosts: not at all, until `shelveOffload` (-1), or two seconds."""


class SimulatedCloud:
    """The cloud of one run."""

    def __init__(
        self,
        loop: VirtualLoop,
        random: Random,
        weather: Weather,
        say: Callable[[str], None],
        *,
        importing: bool = False,
        trunked: bool = False,
        telling: bool = False,
    ) -> None:
        """`importing`: images are imported in this run; their data is in files. `trunked`: there are trunks, if hosts
        have networks. `telling`: hosts are told what changes of servers, and what changes is asked for."""
        self.loop = loop
        self.random = random
        self.weather = weather
        self.say = say
        self.always = Always(self)
        self.importing = importing
        self.telling = telling
        fenced = random.random() < 0.7
        self.shared = random.random() < SHARED_MACHINES
        """Whether all hosts are on one machine."""
        chance = random.random()
        self.routed = chance < ROUTED
        self.detailed = chance < DETAILED
        self.trunked = trunked and self.routed
        number, memory_mib = random.choice((2, 2, 3, 4)), random.choice(HOST_MEMORY_MIB)
        lease_seconds = random.choice((2.0, 4.0))
        self.settings = Settings(
            state_dir=state_dir(),
            database_url="sqlite://",
            host_names=tuple(f"host{n}" for n in range(1, number + 1)),
            host_silent_seconds=HOST_SILENT_SECONDS,
            lease_seconds=lease_seconds,
            host_lease_seconds=2 * lease_seconds + HOST_SILENT_SECONDS,
            fence_silent_hosts=fenced,
            restart_servers_of_lost_hosts=random.random() < 0.7,
            migration_progress_timeout_seconds=5.0,
            migration_timeout_seconds_per_gib=8.0,
            migration_bandwidth_mib_s=random.choice((150, 400, 1500)),
            simulated_speed=1.0,
            simulated_vcpus=16,
            simulated_memory_mib=memory_mib * (number if self.shared else 1),
            simulated_disk_gib=64,
            shelved_offload_time=random.choice(OFFLOAD_SECONDS),
        )
        watched = list(self.settings.host_names) if fenced else []
        if fenced and random.random() < WITHOUT_WATCHDOG:
            watched.remove(random.choice(watched))
        self.clock = VirtualClock(loop, random)
        self.foundation = foundation()
        self.db = self.foundation.db
        self.db.driver.deserialize(self.foundation.first_state)
        self.db.weather, self.db.random, self.db.written = weather, random, self.always.written
        self.db.refused = lambda words: self.always.break_("refused statement", f"the database refuses: {words}")
        self.db.forget_what_was_seen()
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
            driver.changed = self.always.guest_changed
            driver.copying = self.always.copy_begins
            driver.sharing = len(self.settings.host_names) if self.shared else 1
            machine = self.machines[name] = Machine(
                name,
                driver,
                weather,
                random,
                loop=loop,
                lease_seconds=self.settings.host_lease_seconds if name in watched else None,
            )
            machine.wired = self.always.host_wired
            machine.done_late = partial(self.always.break_, "done late")
            self.hosts.add(name, UnreliableLink(machine, weather, random))
        self.conductors: list[Conductor] = []
        self.started_at: dict[str, float] = {}
        """When each conductor that is up has started, by its name."""
        self.died_at: dict[str, float] = {}
        self._conductors = random.choice((1, 1, 2, 3))
        self.alone = self._conductors == 1
        """Whether one process is the whole control plane, with a database of its own."""
        self._memory = Memory()
        """What that process keeps of the database in memory."""
        self.apis: list[Api] = []

    async def start(self) -> None:
        for _ in range(self._conductors):
            await self.start_conductor()
        for number in range(1 if self.alone else self.random.choice((1, 2, 3))):
            process = Process(self.loop, self.random, f"api-{number + 1}")
            context = cloud_of(
                PARTS,
                self._ground_of(process),
                identity=Identity(),
                policy=self.foundation.policy,
                wake=_Wake(self),
            )
            self.apis.append(Api(process, self.foundation.app_of(context), context, self.clear_images))
        self.say(f"hosts {', '.join(self.machines)}; {self._conductors} conductor(s), {len(self.apis)} API(s)")

    def clear_images(self) -> None:
        """As a process does at its start that is the whole control plane: its uploads have died with it."""
        if self.importing and self.alone:
            left_data.clear_alone(self.db, self.settings.state_dir, self.clock.now_us())

    def _ground_of(self, process: Process) -> Ground:
        db = DatabaseOfProcess(self.db, process, self._memory if self.alone else Memory(), alone=self.alone)
        return Ground(settings=self.settings, db=db, clock=process, hosts=hosts_of(self.hosts, process))

    async def start_conductor(self) -> None:
        process = Process(self.loop, self.random)
        name = process.name = f"conductor-{process.uuid()[:8]}"
        while True:
            conductor = conductor_of(PARTS, self._ground_of(process), name=name, alone=self.alone, wake=_Wake(self))
            conductor.runner.sagas = SAGAS  # With the mistake that is planted.
            conductor.reconciler(Wirings).seconds = SECONDS_BETWEEN if self.routed else None
            conductor.reconciler(Tellings).seconds = SECONDS_BETWEEN if self.telling else None
            conductor.reconciler(LeftData).seconds = SECONDS_BETWEEN if self.importing else None
            process.life = Life()
            before = LIFE.set(process.life)
            try:
                await conductor.start()
                break
            except DBAPIError:
                # A process that cannot reach its database at its start ends, and is started again.
                _kill(conductor)
            finally:
                LIFE.reset(before)
            await asyncio.sleep(0.5)
        self.conductors.append(conductor)
        self.started_at[name] = self.loop.now

    def kill_conductor(self, conductor: Conductor) -> None:
        """Kill a conductor as `kill -9` does."""
        self.conductors.remove(conductor)
        name = conductor.runner.name
        del self.started_at[name]
        self.died_at[name] = self.loop.now
        _kill(conductor)

    @property
    def runners(self) -> list[Runner]:
        return [conductor.runner for conductor in self.conductors]

    def wrong_memory(self, tx: Tx) -> list[str]:
        """Hosts whose copies in memory differ from the database, although only this process writes to it."""
        keeper = self._memory.keeper
        if not self.alone or not isinstance(keeper, HostsInMemory):
            return []
        known, recorded = keeper.views(), {view.name: view for view in host_views.views(tx)}
        if keeper.for_routers() != host_records.all_hosts(tx).for_routers:
            return ["the hosts of routers"]
        return sorted(name for name in known.keys() | recorded.keys() if known.get(name) != recorded.get(name))

    @property
    def processes(self) -> list[Process]:
        """The processes of the control plane that are up."""
        running = [runner.clock for runner in self.runners]
        return [clock for clock in running if isinstance(clock, Process)] + [api.process for api in self.apis]

    async def request(
        self, caller: str, method: str, path: str, body: object = None, *, version: str = "2.96"
    ) -> Answered:
        """One request through the real dispatcher of one of the APIs; returns status and JSON, or `NO_ANSWER`."""
        faults = self.db.faults
        status, answer = await self.random.choice(self.apis).request(caller, method, path, body, version)
        if status in (500, 503) and self.db.faults == faults:
            self.always.break_("unexpected answer", f"{status} to {method} {path}: {answer}")
        return status, answer


def _kill(conductor: Conductor) -> None:
    """As `kill -9`: its tasks end where they wait, and write nothing. Hosts finish what they were asked."""
    runner = conductor.runner
    runner._stopping = True
    _life(runner).over = True
    tasks = [*runner._tasks.values(), *([runner._sweeper] if runner._sweeper is not None else [])]
    for task in tasks:
        task.cancel()
    conductor.leadership.kill()
    for memory in conductor.memories:
        memory.kill()
    conductor.elsewhere.kill()


def _life(runner: Runner) -> Life:
    assert isinstance(runner.clock, Process)
    return runner.clock.life


class _Wake:
    """Tells one random conductor after a commit; none, if none is up."""

    def __init__(self, cloud: SimulatedCloud) -> None:
        self._cloud = cloud

    def operation(self, tx: Tx, operation_id: str) -> None:
        tx.after_commit(lambda: self._tell(operation_id))

    def _tell(self, operation_id: str) -> None:
        if self._cloud.runners:
            runner, context = self._cloud.random.choice(self._cloud.runners), Context()
            context.run(LIFE.set, _life(runner))
            context.run(runner.poke, operation_id)
