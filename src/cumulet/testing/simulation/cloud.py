"""The cloud under simulation: the product's parts, put together on a virtual clock, and the hands that break them."""

from __future__ import annotations

import asyncio
import atexit
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError

from cumulet.cloud import load_services
from cumulet.compute.sagas import SAGAS
from cumulet.compute.store import flavors
from cumulet.conductor.reconcilers import HostWatch
from cumulet.conductor.runner import Runner
from cumulet.db import schema
from cumulet.db.engine import Database, Tx
from cumulet.host.client import Hosts
from cumulet.host.simulated import World
from cumulet.image import store as image_store
from cumulet.placement.store import allocations, inventories
from cumulet.settings import Settings
from cumulet.testing.simulation.faults import Weather
from cumulet.testing.simulation.hosts import FragileDriver, Machine, UnreliableLink
from cumulet.testing.simulation.invariants import Broken
from cumulet.testing.simulation.virtual_time import VirtualClock, VirtualLoop
from cumulet.web.app import App
from cumulet.web.context import Cloud
from cumulet.web.operation import Caller, Service
from cumulet.web.policy import Policy

T = TypeVar("T")

FLAVORS = (("tiny", 1, 256, 1, 20), ("busy", 1, 1024, 1, 5000), ("large", 2, 2048, 2, 100))
"""(id, vcpus, memory MiB, disk GiB, dirty rate MiB/s)"""
HOST_MEMORY_MIB = 6144
IMAGE_ID = "00000000-0000-4000-8000-000000000001"

PROJECTS = ("red", "blue")
_ROLES = frozenset({"member", "reader", "manager"})
CALLERS = {
    "admin": Caller(
        user_id="admin", user_name="admin", user_domain_id="default", roles=_ROLES | {"admin"}, project_id="operators"
    ),
    **{
        project: Caller(user_id=project, user_name=project, user_domain_id="default", roles=_ROLES, project_id=project)
        for project in PROJECTS
    },
}


@functools.cache
def _services() -> list[Service]:
    return load_services()


@functools.cache
def _policy() -> Policy:
    _services()
    return Policy.load()


class SimulatedDatabase(Database):
    """The product's database in memory, whose commits may fail, or succeed without saying so."""

    weather: Weather
    random: Random
    written: Callable[[Tx], None]

    def _write_inline(self, fn: Callable[[Tx], T]) -> T:
        if self.random.random() < self.weather.commit_fails:
            raise OperationalError("COMMIT", {}, Exception("the database is away"))
        result = super()._write_inline(fn)
        self.read(self.written)
        if self.random.random() < self.weather.commit_unknown:
            raise OperationalError("COMMIT", {}, Exception("the connection was lost at commit"))
        return result


@functools.cache
def _database() -> tuple[SimulatedDatabase, bytes]:
    """One engine for all runs of a process (its statement cache is worth a lot), and the empty schema to go back to."""
    _services()
    database = SimulatedDatabase("sqlite://", inline=True)
    schema.prepare(database)
    return database, _raw(database).serialize()


def _raw(database: Database) -> Any:
    return database.engine.raw_connection().driver_connection


@functools.cache
def _state_dir() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="cumulet-simulation-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


class _Identity:
    """Who is who in a simulation: a token is a name in `CALLERS`."""

    def cached(self, token: str) -> Caller | None:
        return CALLERS.get(token)

    async def authenticate(self, token: str, *, service: str, method: str, path: str) -> Caller | None:
        return CALLERS.get(token)


class SimulatedCloud:
    """Everything one run has."""

    def __init__(self, loop: VirtualLoop, random: Random, weather: Weather, say: Callable[[str], None]) -> None:
        self.loop = loop
        self.random = random
        self.weather = weather
        self.say = say
        self._broken: Broken | None = None
        self.settings = Settings(
            state_dir=_state_dir(),
            database_url="sqlite://",
            host_names=tuple(f"host{n}" for n in range(1, random.choice((2, 2, 3, 4)) + 1)),
            host_silent_seconds=2.0,
            lease_seconds=2.0,
            migration_progress_timeout_seconds=5.0,
            migration_timeout_seconds_per_gib=8.0,
            simulated_speed=1.0,
            simulated_vcpus=16,
            simulated_memory_mib=HOST_MEMORY_MIB,
            simulated_disk_gib=64,
        )
        self.clock = VirtualClock(loop, random)
        self.db, empty = _database()
        _raw(self.db).deserialize(empty)
        self.db.weather, self.db.random, self.db.written = Weather(), random, self._check_capacity
        self.world = World()
        self.hosts = Hosts()
        self.machines: dict[str, Machine] = {}
        for name in self.settings.host_names:
            driver = FragileDriver(
                name=name, world=self.world, clock=self.clock, settings=self.settings, directory=None
            )
            driver.changed = self._check_running
            machine = self.machines[name] = Machine(name, driver, weather, random)
            self.hosts.add(name, UnreliableLink(machine, weather, random))
        self.networks: dict[str, str] = {}
        self.runners: list[Runner] = []
        self.watch: HostWatch | None = None
        self._conductors = random.choice((1, 1, 2))
        self._down: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        rows = [
            {
                "flavor_id": name, "name": name, "vcpus": vcpus, "memory_mib": memory, "disk_gib": disk,
                "ephemeral_gib": 0, "swap_mib": 0, "rxtx_factor": 1.0, "is_public": True, "disabled": False,
                "extra_specs": {"cumulet:dirty_rate_mib_s": str(rate)}, "created_at_us": self.clock.now_us(),
            }
            for name, vcpus, memory, disk, rate in FLAVORS
        ]  # fmt: skip
        self.db.write(lambda tx: tx.execute(sa.insert(flavors), rows))
        self.db.write(lambda tx: image_store.add(tx, _image(self.clock.now_us())))
        storm = {name: getattr(self.weather, name) for name in self.weather.__slots__}
        self.weather.calm()
        for _ in range(self._conductors):
            await self._start_conductor()
        context = Cloud(
            settings=self.settings, db=self.db, clock=self.clock, state_dir=self.settings.state_dir, wake=_Wake(self),
            hosts=self.hosts, identity=_Identity(), policy=_policy(),
        )  # fmt: skip
        self.app = App(context, _services())
        for project in PROJECTS:
            self.networks[project] = await self._network(project)
        for name, chance in storm.items():
            setattr(self.weather, name, chance)
        self.db.weather = self.weather
        self.say(f"hosts {', '.join(self.machines)}; {self._conductors} conductor(s); {_said(self.weather)}")

    async def _network(self, project: str) -> str:
        """A network with a subnet, so that servers have ports whose bindings move with them; its id."""
        _, made = await self.request(project, "POST", "/network/v2.0/networks", {"network": {"name": project}})
        network_id: str = made["network"]["id"]
        subnet = {"network_id": network_id, "cidr": "10.0.0.0/16", "ip_version": 4}
        status, _ = await self.request(project, "POST", "/network/v2.0/subnets", {"subnet": subnet})
        assert status == 201
        return network_id

    async def _start_conductor(self) -> None:
        clock = VirtualClock(self.loop, self.random)
        runner = Runner(
            db=self.db, clock=clock, settings=self.settings, hosts=self.hosts, sagas=SAGAS,
            name=f"runner-{clock.uuid()[:8]}", alone=self._conductors == 1,
        )  # fmt: skip
        if self.watch is None:
            self.watch = HostWatch(db=self.db, clock=self.clock, settings=self.settings, hosts=self.hosts)
            await self.watch.start()
        while True:
            try:
                await runner.start()
                break
            except DBAPIError:
                # A process that cannot reach its database at start ends, and is started again.
                await asyncio.sleep(0.5)
        self.runners.append(runner)

    # -- invariants that hold always

    def raise_broken(self) -> None:
        if self._broken is not None:
            raise self._broken

    def _break(self, problem: str) -> None:
        if self._broken is None:
            self._broken = Broken(problem)
            self.say(f"BROKEN NOW: {problem}")

    def _check_running(self) -> None:
        where: dict[str, str] = {}
        for name, machine in self.machines.items():
            for server_id in machine.driver.running():
                if server_id in where:
                    self._break(f"two running copies of {server_id}: on {where[server_id]} and on {name}")
                where[server_id] = name

    def _check_capacity(self, tx: Tx) -> None:
        used = sa.func.sum(allocations.c.used)
        over = tx.first(
            sa.select(inventories.c.provider_id, inventories.c.resource_class, used)
            .join(
                allocations,
                sa.and_(
                    allocations.c.provider_id == inventories.c.provider_id,
                    allocations.c.resource_class == inventories.c.resource_class,
                ),
            )
            .group_by(inventories.c.provider_id, inventories.c.resource_class)
            .having(used > (inventories.c.total - inventories.c.reserved) * inventories.c.allocation_ratio)
        )
        if over is not None:
            self._break(f"allocations exceed capacity: {over._asdict()}")

    # -- faults

    def draw_fault(self, random: Random) -> str | None:
        """Maybe break something; says what."""
        weather = self.weather
        machine = random.choice(list(self.machines.values()))
        pause = random.uniform(0.0, 6.0)
        kinds: tuple[tuple[float, Callable[[], str]], ...] = (
            (weather.conductor_crash, lambda: self._crash_conductor(random, pause)),
            (weather.agent_crash, lambda: self._crash_agent(machine, pause)),
            (weather.host_crash, lambda: self._crash_host(machine, pause)),
            (weather.guest_crash, lambda: self._crash_guest(machine, random)),
            (weather.partition, lambda: self._cut_off(machine, pause)),
            (weather.clock_jump, lambda: self._jump(random)),
        )
        for chance, do in kinds:
            if random.random() < chance:
                return do()
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

    async def request(self, caller: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One request through the real dispatcher; answers status and JSON."""
        content = msgspec.json.encode(body) if body is not None else b""
        path, _, query = path.partition("?")
        headers = [(b"x-auth-token", caller.encode()), (b"openstack-api-version", b"compute 2.96")]
        if content:
            headers += [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        scope = {
            "type": "http", "http_version": "1.1", "method": method, "scheme": "https", "path": path,
            "raw_path": path.encode(), "query_string": query.encode(), "headers": headers,
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 443),
        }  # fmt: skip
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        answer = b"".join(message.get("body", b"") for message in sent[1:])
        return sent[0]["status"], msgspec.json.decode(answer) if answer else None


def _kill(runner: Runner) -> None:
    """As kill -9: it gets no word in. Its tasks are cancelled where they wait; what it asked of hosts goes on."""
    runner._stopping = True
    tasks = [*runner._tasks.values(), *([runner._sweeper] if runner._sweeper is not None else [])]
    for task in tasks:
        task.cancel()


def _image(now_us: int) -> image_store.Image:
    return image_store.Image(
        id=IMAGE_ID, name="image", owner=None, status="active", visibility="public", disk_format="raw",
        container_format="bare", min_disk=0, min_ram=0, protected=False, os_hidden=False, size=1, virtual_size=1,
        checksum="0" * 32, os_hash_value="0" * 128, upload_id=None, created_at_us=now_us, updated_at_us=now_us,
    )  # fmt: skip


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
