"""A cloud that runs on a thread of this process, and what a test can do with it: faults, time, personas, reset."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import ssl
import tempfile
import threading
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import msgspec
import sqlalchemy as sa

from cumulet.compute.host_watch import HostWatch
from cumulet.compute.hosts_in_memory import HostsInMemory
from cumulet.conductor.saga import Status, operations, request_abort
from cumulet.db.engine import Tx
from cumulet.host.driver import GuestState
from cumulet.identity.bootstrap import CLOUDS
from cumulet.image.files import image_folder
from cumulet.part import Part
from cumulet.processes.all import start_cloud
from cumulet.processes.embedded_cloud import EmbeddedCloud
from cumulet.settings import Settings
from cumulet.testing.client import ENDED, Client, JsonObject
from cumulet.testing.clock import AdvanceableClock
from cumulet.testing.databases import own_database
from cumulet.testing.faults import Faults, one_of
from cumulet.testing.personas import make_user, project_and_role
from cumulet.testing.snapshot import records_and_files

if TYPE_CHECKING:
    from openstack.connection import Connection

    from cumulet.testing.connections import Connections
    from cumulet.testing.reachability import Network

T = TypeVar("T")
FAST_ARGON2_MEMORY_KIB = 64
"""A test's passwords are random and live for seconds: their hashes need not be slow."""
MEMORY = Path("/dev/shm")  # noqa: S108  # as in shm_overview(7)
ROOM_IN_MEMORY_MIB = 2048
MOST_HOSTS = 1000
HANGS_SECONDS = 5.0
"""Simulated hosts of one cloud."""


class TestCloud:
    """A running cloud and the ways into it. Make one with `cloud()`."""

    __test__ = False

    def __init__(
        self, running: EmbeddedCloud, loop: asyncio.AbstractEventLoop, faults: Faults, clock: AdvanceableClock
    ) -> None:
        self._clock = clock
        self.embedded = running
        self.faults = faults
        self._loop = loop
        self._context = ssl.create_default_context(cafile=str(running.authority.certificate_file))
        self._http = httpx.Client(base_url=running.url, verify=self._context, timeout=60)
        self._personas: dict[str, Client] = {}
        self._kept: dict[str, Client] = {}
        self._connections: Connections | None = None
        self._passwords: dict[str, str] = {}
        self._logged_in_at = self.clock.monotonic()
        self._ended = False
        faults.know(running.runner.sagas, self.hosts)
        self._remember()

    def __repr__(self) -> str:
        return f"<TestCloud {self.url}, hosts {', '.join(self.hosts)}{', ended' if self._ended else ''}>"

    @property
    def url(self) -> str:
        """``https://127.0.0.1:PORT``"""
        return self.embedded.url

    @property
    def auth_url(self) -> str:
        return f"{self.url}/identity/v3"

    @property
    def clouds_yaml(self) -> Path:
        """The file with the credentials of `cumulet` (administrator) and `demo`."""
        return self.embedded.settings.state_dir / "clouds.yaml"

    @property
    def cacert(self) -> Path:
        return self.embedded.authority.certificate_file

    @property
    def clock(self) -> AdvanceableClock:
        return self._clock

    @property
    def hosts(self) -> tuple[str, ...]:
        return self.embedded.hosts.names

    @property
    def network(self) -> Network:
        """Whether packets reach a port: ``cloud.network.reachable(one, two, "tcp", 22)``."""
        from cumulet.testing.reachability import Network

        self._refuse_ended()
        return Network(self.embedded.db)

    def connection(self, name: str = "demo") -> Connection:
        """An openstacksdk Connection as the clouds.yaml entry `name`: ``demo`` or ``cumulet`` (the administrator).

        `reset` and the end of the cloud close it. ValueError for another name.
        """
        self._refuse_ended()
        one_of("entry of clouds.yaml", name, CLOUDS)
        if self._connections is None:
            from cumulet.testing.connections import Connections

            self._connections = Connections(self.clouds_yaml)
        return self._connections.make(name)

    def await_(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the cloud's own loop. RuntimeError once the cloud has ended."""
        if self._ended:
            coroutine.close()
        self._refuse_ended()
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def idle(self) -> None:
        """Wait until no long operation is under way."""
        self.await_(self.embedded.runner.idle())

    def reconcile(self) -> None:
        """Reconcile each host now, as the timer would."""
        for host in self.hosts:
            self.await_(self.embedded.conductor.reconciler(HostWatch).round(host))

    def guests(self, host: str) -> dict[str, GuestState]:
        """What the hypervisor of `host` says: server id -> state. ValueError for a host that does not exist."""
        one_of("host", host, self.hosts)
        return {report.server_id: report.state for report in self.await_(self.embedded.hosts.guests(host))}

    async def end_of_looks(self) -> None:
        """Wait for whoever has asked hosts about their guests and may act on the answer; not for hosts that hang."""
        asking = self.embedded.conductor.reconciler(HostWatch)._asking
        while asking:
            _, hang = await asyncio.wait(asking.values(), timeout=HANGS_SECONDS)
            if hang:
                break

    def kill_conductor(self) -> None:
        """Stop the conductor as kill -9 would: it writes nothing more. Hosts still do what they were asked.

        `reset` starts it again. May be called from any thread.
        """
        self._refuse_ended()
        runner = self.embedded.runner
        runner._stopping = True

        def cancel() -> None:
            for task in (*runner._tasks.values(), runner._sweeper):
                if task is not None:
                    task.cancel()

        self._loop.call_soon_threadsafe(cancel)

    async def _revive_conductor(self) -> None:
        self.embedded.runner._stopping = False
        await self.embedded.runner.start()

    # -- callers

    def anonymous(self) -> Client:
        return Client(self._http, None)

    def login(self, user: str, password: str, **scope: Any) -> Client:
        """A client with a token from the password; `scope` as in Identity v3, e.g. ``project={"name": ...}``."""
        auth: JsonObject = {
            "identity": {
                "methods": ["password"],
                "password": {"user": {"name": user, "domain": {"id": "default"}, "password": password}},
            }
        }
        if scope:
            auth["scope"] = scope
        answer = self.anonymous().request("POST", "/identity/v3/auth/tokens", {"auth": auth})
        if answer.status != 201:
            raise PermissionError(answer.text)
        token = answer["token"]
        return Client(
            self._http,
            answer.headers["X-Subject-Token"],
            project_id=token.get("project", {}).get("id"),
            user_id=token["user"]["id"],
        )

    def persona(self, name: str) -> Client:
        """`admin`, or a user made through Identity: ``member``, ``manager``, ``reader``, ``norole`` in one project,
        ``other_member``, ``other_manager``, ``other_reader`` in another. The same one each time it is asked for.
        ValueError for a name of another form, or whose role is none of `personas.ROLES`."""
        if name not in self._personas:
            if name == "admin":
                self._personas[name] = self.login(
                    "admin",
                    self.embedded.passwords.by_user["admin"],
                    project={"name": "admin", "domain": {"id": "default"}},
                )
            else:
                project, role = project_and_role(name)
                self._personas[name] = self.user(name, project=project, roles=(role,))
        return self._personas[name]

    def user(self, name: str, *, project: str, roles: tuple[str, ...]) -> Client:
        """Make a user with `roles` in `project` (made if missing) through Identity v3 and log in as them.

        ValueError for a name that Identity refuses, or that another user has already, and for no roles at all.
        """
        password = f"pw-{self.embedded.clock.uuid()}"
        project_id = make_user(self.persona("admin"), name, password, project=project, roles=roles)
        self._passwords[name] = password
        return self.login(name, password, project={"id": project_id})

    # -- starting over

    def reset(self) -> None:
        """Return to the state after the start, or at the last `keep`: records, guests, faults, the time of day.

        The monotonic clock does not go back, because tasks sleep until its times.
        RuntimeError once the cloud has ended.
        """
        self._refuse_ended()
        if self._connections is not None:
            self._connections.close()
        self.faults.clear()
        if self.embedded.runner._stopping:
            self.await_(self._revive_conductor())
        self.embedded.db.write(self._abort_all)
        self.idle()
        if wrong := self._read_hosts():
            raise AssertionError(f"what was known of hosts was not what had been committed: {', '.join(wrong)}")
        for host in self.hosts:
            for server_id in self.guests(host):
                self.await_(self._destroy(host, server_id))
        self.await_(self.end_of_looks())
        self.embedded.db.write(self._snapshot.restore)
        self.clock.return_to_now()
        self._read_hosts()
        self.embedded.identity._ended.clear()  # Tokens that ended since are valid again.
        self.embedded.db.write(self.embedded.identity.changed)
        self.await_(self.embedded.identity.logins.forget())
        self._image_files.restore()
        self._personas = dict(self._kept)
        self._renew_kept()

    def _renew_kept(self) -> None:
        """Give kept personas new tokens in time: a long suite, or `advance`, takes longer than a token lasts."""
        if self.clock.monotonic() - self._logged_in_at < self.embedded.settings.token_life_seconds / 2:
            return
        self._logged_in_at = self.clock.monotonic()
        for name, client in self._kept.items():
            password = self.embedded.passwords.by_user["admin"] if name == "admin" else self._passwords[name]
            client.token = self.login(name, password, project={"id": client.project_id}).token

    def _refuse_ended(self) -> None:
        if self._ended:
            raise RuntimeError(ENDED)

    def _read_hosts(self) -> list[str]:
        keeper = self.embedded.db.keeper
        return self.await_(keeper.load(self.embedded.db)) if isinstance(keeper, HostsInMemory) else []

    def _abort_all(self, tx: Tx) -> None:
        for row in tx.all(sa.select(operations.c.id).where(operations.c.status == Status.FORWARD)):
            request_abort(tx, self.embedded.runner, row.id)

    def keep(self, *personas: str) -> None:
        """Make these personas, and let `reset` return to the cloud as it is now: they and their tokens stay good."""
        for name in personas:
            self.persona(name)
        self._refuse_ended()
        self._kept = dict(self._personas)
        self._remember()

    def _remember(self) -> None:
        folder = image_folder(self.embedded.settings.state_dir)
        self._snapshot, self._image_files = records_and_files(self.embedded.db, folder)

    async def _destroy(self, host: str, server_id: str) -> None:
        world = self.embedded.world
        assert world is not None
        await world.drivers[host].destroy(server_id)

    def close(self) -> None:
        self._ended = True
        if self._connections is not None:
            self._connections.close()
        self._http.close()


def in_memory() -> Path | None:
    """A folder in memory, if there is room: a commit waits milliseconds for a disk, for records that live seconds."""
    if not os.access(MEMORY, os.W_OK | os.X_OK) or shutil.disk_usage(MEMORY).free < ROOM_IN_MEMORY_MIB << 20:
        return None
    return MEMORY


def _host_names(count: int) -> tuple[str, ...]:
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"hosts is a whole number, not {count!r}")
    if not 1 <= count <= MOST_HOSTS:
        raise ValueError(f"hosts is from 1 to {MOST_HOSTS}, not {count}")
    return tuple(f"host{n}" for n in range(1, count + 1))


def _checked(given: Settings) -> Settings:
    try:
        msgspec.convert(msgspec.structs.asdict(given), Settings)
    except msgspec.ValidationError as error:
        raise ValueError(f"a setting is not so: {error}") from None
    return given


@contextlib.contextmanager
def cloud(
    *, hosts: int = 2, state: Path | None = None, more_parts: Sequence[Part] = (), **settings: Any
) -> Iterator[TestCloud]:
    """A whole cloud with simulated hosts on a thread of this process, until the block ends.

    hosts: how many (1 to `MOST_HOSTS`), called host1, host2, ...
    state: its folder, to start on what it left (default: a temporary one, of simulated hosts in memory if it has room);
    more_parts: services beside Cumulet's own (`cumulet.part`);
    settings: fields of `cumulet.settings.Settings`, e.g. ``simulated_speed=10.0``.

    TypeError and ValueError name the argument that cannot be.
    """
    if state is not None and not isinstance(state, Path):
        raise TypeError(f"state is a Path, not {state!r}")
    if ours := {"host_names", "state_dir"} & settings.keys():
        raise TypeError(f"{ours.pop()} is no setting of a test's cloud: use the arguments hosts and state")
    if wrong := [part for part in more_parts if not isinstance(part, Part)]:
        raise TypeError(f"more_parts are of cumulet.part.Part, not {wrong[0]!r}")
    with contextlib.ExitStack() as stack:
        place = None if settings.get("driver") == "qemu" else in_memory()
        folder = state or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cumulet-", dir=place)))
        url = settings.get("database_url") or stack.enter_context(own_database(folder, temporary=state is None))
        chosen: JsonObject = {
            "state_dir": folder,
            "database_url": url,
            "listen_port": 0,
            "driver": "simulated",
            "host_names": _host_names(hosts),
            "hosts_port": 0,
            "bus_port": 0,
            "argon2_memory_kib": FAST_ARGON2_MEMORY_KIB,
            "machine_on_public": False,
            **settings,
        }
        given = _checked(Settings(**chosen))
        faults = Faults()
        loop = stack.enter_context(_loop_on_thread())
        clock = AdvanceableClock()
        starting = start_cloud(given, clock=clock, before_step=faults.before_step, more_parts=more_parts)
        running = _on(loop, starting)
        stack.callback(lambda: _on(loop, running.stop()))
        found = TestCloud(running, loop, faults, clock)
        stack.callback(found.close)
        yield found


def _on(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run_coroutine_threadsafe(coroutine, loop).result(120)


@contextlib.contextmanager
def _loop_on_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=_run_loop, args=(loop,), name="cumulet-cloud", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        # As `asyncio.run` does: threads of `asyncio.to_thread` would be left otherwise.
        asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
