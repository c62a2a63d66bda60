"""Processes of a control plane that has several: an API alone, a conductor alone, the bus; on one PostgreSQL.

`cumulet up` has made the cloud. Each process sees the cloud's state folder (keys, authority, images); several machines
share it by a file system. Each may be killed, paused or cut off at any moment: when the lease of a conductor has run
out, another one goes on with its operations.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from cumulet.bus.nats import SERVER_NAME
from cumulet.ca import CertificateAuthority
from cumulet.clock import Clock, SystemClock
from cumulet.compute import joined_hosts
from cumulet.conductor.presence import CUT_OFF, Presence
from cumulet.db.engine import Database
from cumulet.db.health import problem_of
from cumulet.fleet.hosts import Hosts
from cumulet.fleet.nats_server import BusUser, NatsServer, UsersFile
from cumulet.fleet.nats_server import NoNatsServer as NoNatsServer
from cumulet.processes.api import Api, shared_clock, shared_database, start_api
from cumulet.processes.conductor import Conductor
from cumulet.processes.health import HealthServer
from cumulet.processes.parts import PARTS, SAGAS
from cumulet.processes.remote_hosts import LOOK_SECONDS, RemoteHosts
from cumulet.settings import Settings

log = logging.getLogger(__name__)

Place = tuple[str, int]
"""An address and a port."""


@asynccontextmanager
async def api_alone(settings: Settings, own: Path) -> AsyncIterator[Api]:
    """`own`: a folder of this process alone. Raises OtherState."""
    async with AsyncExitStack() as stack:
        hosts = Hosts()
        stack.push_async_callback(hosts.close)
        yield await start_api(PARTS, settings, hosts, stack, own=own)


@asynccontextmanager
async def conductor_alone(
    settings: Settings, *, clock: Clock | None = None, health: Place | None = None
) -> AsyncIterator[Conductor]:
    """A conductor, one of several. `health`: where it answers `processes.health`. Raises OtherState and
    SettingRefused."""
    async with AsyncExitStack() as stack:
        db = await shared_database(settings, stack)
        shared = await shared_clock(db, clock or SystemClock(), stack)
        hosts = Hosts()
        stack.push_async_callback(hosts.close)
        authority = CertificateAuthority.load_or_create(settings.state_dir / "ca")
        remote = RemoteHosts(db=db, clock=shared, settings=settings, hosts=hosts, authority=authority)
        stack.push_async_callback(remote.stop)
        await remote.start(None)
        name = f"conductor-{shared.uuid()}"
        conductor = Conductor(PARTS, SAGAS, db=db, clock=shared, settings=settings, hosts=hosts, name=name, alone=False)
        stack.push_async_callback(conductor.stop)
        await conductor.start()
        presence = Presence(db=db, clock=shared, role="conductor", name=name, bus=remote.bus_state)
        await _say_that_it_lives(presence, db, stack, health)
        yield conductor


@asynccontextmanager
async def bus_alone(settings: Settings, own: Path, *, health: Place | None = None) -> AsyncIterator[NatsServer]:
    """A NATS server that admits the members of the cloud. `own`: a folder of this process alone. Raises OtherState and
    NoNatsServer."""
    async with AsyncExitStack() as stack:
        db = await shared_database(settings, stack)
        authority = CertificateAuthority.load_or_create(settings.state_dir / "ca")
        server = NatsServer(
            own, authority.issue_bus(SERVER_NAME), address=settings.listen_address, port=settings.bus_port or -1
        )
        stack.push_async_callback(server.stop)
        await server.start(await _users(db))
        await _go_on_admitting(db, server, lambda: "serves" if server.runs else CUT_OFF, stack, health)
        yield server


@asynccontextmanager
async def bus_users_alone(
    settings: Settings, file: Path, pid_file: Path | None, *, health: Place | None = None
) -> AsyncIterator[Path]:
    """Keeps the users of an operator's own NATS server, which this process does not run. Gives the folder with the
    certificate and key for that server. Raises OtherState, and OSError for a file that cannot be written."""
    users = UsersFile(file, pid_file)
    async with AsyncExitStack() as stack:
        db = await shared_database(settings, stack)
        shown = CertificateAuthority.load_or_create(settings.state_dir / "ca").issue_bus(SERVER_NAME)
        await asyncio.to_thread(users.admit, await _users(db))
        await _go_on_admitting(db, users, lambda: "keeps users" if users.problem is None else CUT_OFF, stack, health)
        yield shown.certificate.parent


async def _go_on_admitting(
    db: Database, server: NatsServer | UsersFile, bus: Callable[[], str], stack: AsyncExitStack, health: Place | None
) -> None:
    """Tell the server of members as they come and go. `bus`: its state, for `Presence`."""
    following = asyncio.create_task(_follow(db, server), name="bus-users")
    stack.callback(following.cancel)
    shared = await shared_clock(db, SystemClock(), stack)
    presence = Presence(db=db, clock=shared, role="bus", name=f"bus-{shared.uuid()}", bus=bus)
    await _say_that_it_lives(presence, db, stack, health)


async def _say_that_it_lives(presence: Presence, db: Database, stack: AsyncExitStack, health: Place | None) -> None:
    stack.push_async_callback(presence.stop)
    await presence.start()
    if health is None:
        return

    async def healthy() -> str | None:
        return await problem_of(db)

    async def ready() -> str | None:
        return await healthy() or presence.problem()

    server = HealthServer(healthy, ready)
    await server.listen(*health)
    stack.push_async_callback(server.close)


async def _users(db: Database) -> list[BusUser]:
    return [BusUser(identity=one.identity, host=one.name) for one in await db.read_async(joined_hosts.members)]


async def _follow(db: Database, server: NatsServer | UsersFile) -> None:
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            server.admit(await _users(db))
        except Exception:  # Until the database answers again, the members stay as they were.
            log.exception("who may be on the bus could not be looked up, will retry")
