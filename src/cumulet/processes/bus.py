"""The bus of a control plane with several processes: a NATS server that admits the members of the cloud."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from cumulet.bus.nats_connection import SERVER_NAME
from cumulet.clock import Clock, SystemClock
from cumulet.conductor.presence import CUT_OFF, Presence
from cumulet.db.engine import Database
from cumulet.db.full_disk import Reserve
from cumulet.db.shared import shared_clock, shared_database
from cumulet.fleet.nats_server import NatsServer, UsersFile
from cumulet.processes.bus_users import BusUsers
from cumulet.processes.certificates import certificates_of
from cumulet.processes.ground import Place, say_that_it_lives
from cumulet.processes.remote_hosts import BUS, LOOK_SECONDS
from cumulet.settings import Settings

log = logging.getLogger(__name__)


@asynccontextmanager
async def bus_alone(
    settings: Settings, own: Path, *, clock: Clock | None = None, health: Place | None = None
) -> AsyncIterator[NatsServer]:
    """A NATS server that admits the members of the cloud. `own`: a folder of this process alone. Raises OtherState and
    NoNatsServer."""
    async with AsyncExitStack() as stack:
        Reserve(settings.state_dir).spare()
        db = await shared_database(settings, stack)
        shared = await shared_clock(db, clock or SystemClock(), stack)
        certificates = await certificates_of(settings.state_dir, shared, stack)
        again = partial(certificates.authority.issue_bus, SERVER_NAME)
        server = NatsServer(own, issued := again(), address=settings.listen_address, port=settings.bus_port or -1)
        certificates.keep(BUS, issued, again, lambda _: server.reload())
        stack.push_async_callback(server.stop)
        await server.start(await db.read_async(BusUsers().read))
        await _go_on_admitting(db, shared, server, lambda: "serves" if server.runs else CUT_OFF, stack, health)
        yield server


@asynccontextmanager
async def bus_users_alone(
    settings: Settings, file: Path, pid_file: Path | None, *, health: Place | None = None
) -> AsyncIterator[Path]:
    """Keeps the users of an operator's own NATS server, which this process does not run. Gives the folder with the
    certificate and key for that server. Raises OtherState, and OSError for a file that cannot be written."""
    users = UsersFile(file, pid_file)
    async with AsyncExitStack() as stack:
        Reserve(settings.state_dir).spare()
        db = await shared_database(settings, stack)
        shared = await shared_clock(db, SystemClock(), stack)
        certificates = await certificates_of(settings.state_dir, shared, stack)
        again = partial(certificates.authority.issue_bus, SERVER_NAME)
        certificates.keep(BUS, shown := again(), again, users.renewed)
        await asyncio.to_thread(users.admit, await db.read_async(BusUsers().read))
        await _go_on_admitting(
            db, shared, users, lambda: "keeps users" if users.problem is None else CUT_OFF, stack, health
        )
        yield shown.certificate.parent


async def _go_on_admitting(
    db: Database,
    clock: Clock,
    server: NatsServer | UsersFile,
    bus: Callable[[], str],
    stack: AsyncExitStack,
    health: Place | None,
) -> None:
    """Tell the server of members as they come and go. `bus`: its state, for `Presence`."""
    following = asyncio.create_task(_follow(db, server), name="bus-users")
    stack.callback(following.cancel)
    presence = Presence(db=db, clock=clock, role="bus", name=f"bus-{clock.uuid()}", bus=bus)
    await say_that_it_lives(presence, db, stack, health)


async def _follow(db: Database, server: NatsServer | UsersFile) -> None:
    members, told = BusUsers(), ""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            await asyncio.to_thread(server.admit, await db.read_async(members.read))
            told = ""
        except Exception as problem:  # Until the database answers again, or its disk has room, they stay as they were.
            if repr(problem) != told:
                log.exception("who may be on the bus could not be looked up or told, will retry")
            told = repr(problem)
