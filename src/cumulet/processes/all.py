"""What `cumulet up` runs: a whole cloud in one process - database, services, conductor, hosts, HTTPS."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa

from cumulet import rootless
from cumulet.ca import CertificateAuthority
from cumulet.clock import Clock, SystemClock
from cumulet.conductor.presence import Presence
from cumulet.conductor.runner import BeforeStep, Runner
from cumulet.conductor.saga import Status, operations, request_abort
from cumulet.db import schema
from cumulet.db.engine import Database, Tx, database_file
from cumulet.db.full_disk import Reserve
from cumulet.drivers.simulated.driver import World
from cumulet.fleet.hosts import Hosts
from cumulet.identity import bootstrap as identity_bootstrap
from cumulet.identity.service import Identity
from cumulet.network.bootstrap import public_gateways
from cumulet.part import FirstStart, OtherState, Part, hosts_offer_of
from cumulet.processes import local_hosts
from cumulet.processes.api import issue_server, serve_api, shared_clock
from cumulet.processes.conductor import Conductor
from cumulet.processes.images import images_into, images_of
from cumulet.processes.remote_hosts import ANY_ADDRESS, RemoteHosts
from cumulet.settings import Settings
from cumulet.space import Space
from cumulet.web.context import Cloud
from cumulet.web.policy import Policy
from cumulet.web.server import Server

if TYPE_CHECKING:
    from cumulet.fleet.local_agents import AgentProcesses

END_MOVES_SECONDS = 20.0
MOVED = (
    "the records of this cloud were copied to {place}, and go on there: start with --database; to go back to what is "
    "here, and lose what came since, run `cumulet database keep` first"
)


class EmbeddedCloud(msgspec.Struct, kw_only=True):
    """A running cloud. `url` has no trailing slash."""

    settings: Settings
    clock: Clock
    db: Database
    identity: Identity
    conductor: Conductor
    hosts: Hosts
    context: Cloud
    server: Server
    authority: CertificateAuthority
    passwords: identity_bootstrap.Passwords
    world: World | None
    reach: str | None
    """A sentence on how floating IPs are reached from this machine; None: there is nothing to say."""
    _agents: AgentProcesses | None
    _closing: AsyncExitStack = msgspec.field(default_factory=AsyncExitStack)

    def __repr__(self) -> str:
        """Without settings and parts, which hold passwords."""
        return f"<EmbeddedCloud {self.url}>"

    @property
    def runner(self) -> Runner:
        return self.conductor.runner

    @property
    def url(self) -> str:
        settings, address = self.settings, self.server.address
        if settings.tls_certificate_file is not None and settings.public_url is not None:
            return settings.public_url  # An operator's own certificate is not for this machine's addresses.
        if address in ANY_ADDRESS:
            address = "127.0.0.1"
        return f"https://{f'[{address}]' if ':' in address else address}:{self.server.port}"

    def clouds_yaml(self) -> str:
        """The text of clouds.yaml: credentials of `cumulet` and `demo`."""
        return (self.settings.state_dir / "clouds.yaml").read_text(encoding="utf-8")

    @classmethod
    async def start(
        cls,
        settings: Settings,
        *,
        clock: Clock | None = None,
        before_step: BeforeStep | None = None,
        more_parts: Sequence[Part] = (),
    ) -> EmbeddedCloud:
        """Start everything; returns when it serves. The caller holds the state folder's lock.

        `clock`: the clock of this cloud, if no other process shares it. By default the clock is the database's, where
        other processes may share that. `more_parts`: services beside Cumulet's own.
        """
        async with AsyncExitStack() as stack:
            cloud = await cls._assemble(settings, clock, before_step, tuple(more_parts), stack)
            cloud._closing = stack.pop_all()
            return cloud

    @classmethod
    async def _assemble(
        cls,
        settings: Settings,
        clock: Clock | None,
        before_step: BeforeStep | None,
        more_parts: tuple[Part, ...],
        stack: AsyncExitStack,
    ) -> EmbeddedCloud:
        """Start part by part. If one cannot start, those before it are stopped in reverse order."""
        _own_folder(settings)
        db = Database(settings.database_url)
        stack.push_async_callback(asyncio.to_thread, db.close)
        if (elsewhere := schema.moved_to(db)) is not None:
            raise OtherState(MOVED.format(place=elsewhere))
        if clock is None:  # Nobody shares SQLite, so the clock is this machine's.
            clock = SystemClock() if db.embedded else await shared_clock(db, SystemClock(), stack)
        identity_service = Identity(db=db, clock=clock, settings=settings, state_dir=settings.state_dir)
        stack.callback(identity_service.close)
        clouds_file = settings.state_dir / "clouds.yaml"
        first_passwords = identity_bootstrap.begin(identity_service, clouds_file)
        from cumulet.processes.parts import PARTS, catalog_of, sagas_of  # while the passwords are hashed

        parts = (*PARTS, *more_parts)
        authority = CertificateAuthority.load_or_create(settings.state_dir / "ca")
        schema.prepare(db)
        passwords = identity_bootstrap.prepare(db, identity_service, first_passwords, catalog_of(parts))
        for part in parts:
            if part.mend is not None:
                part.mend(db, settings, clock)
        (settings.state_dir / "driver").write_text(f"{settings.driver}\n", encoding="utf-8")

        hosts = Hosts()
        stack.push_async_callback(hosts.close)
        for_hosts = issue_server(settings, authority, settings.state_dir)
        space = Space()
        images = (images_of(db, settings), images_into(db, settings, clock, space))
        world, agents = await local_hosts.connect(settings, clock, hosts, authority, for_hosts, *images, stack)
        name = f"conductor-{clock.uuid()}"
        conductor = Conductor(
            parts,
            sagas_of(parts),
            db=db,
            clock=clock,
            settings=settings,
            hosts=hosts,
            name=name,
            alone=db.embedded,
            before_step=before_step,
            space=space,
        )
        remote = RemoteHosts(db=db, clock=clock, settings=settings, hosts=hosts, authority=authority)
        presence = Presence(db=db, clock=clock, role="up", name=name, bus=remote.bus_state)
        context = Cloud(
            presence=presence,
            door=remote.door() if rootless.inside() is None else None,
            settings=settings,
            db=db,
            clock=clock,
            state_dir=settings.state_dir,
            wake=conductor.runner,
            hosts=hosts,
            hosts_offer=hosts_offer_of(parts),
            identity=identity_service,
            policy=Policy.load(settings.policy_file),
            space=space,
        )
        stack.push_async_callback(conductor.stop)
        stack.push_async_callback(remote.stop)
        await remote.start(None if context.door is None else images)
        await conductor.start()
        await asyncio.to_thread(_seed_once, parts, settings, db, clock)
        gateways = await db.read_async(public_gateways)
        reach = await asyncio.to_thread(local_hosts.join_public, settings, agents, gateways)
        served = await serve_api(parts, context, authority, stack, own=settings.state_dir)
        if not db.embedded:  # On SQLite there are no other processes.
            stack.push_async_callback(presence.stop)
            await presence.start()
        cloud = cls(
            settings=settings,
            clock=clock,
            db=db,
            identity=identity_service,
            conductor=conductor,
            hosts=hosts,
            context=context,
            server=served.server,
            authority=authority,
            passwords=passwords,
            world=world,
            reach=reach,
            _agents=agents,
        )
        identity_bootstrap.write_clouds_yaml(
            clouds_file, auth_url=f"{cloud.url}/identity/v3", cacert=served.certificate.authority,
            passwords=passwords.by_user, region=settings.region,
        )  # fmt: skip
        return cloud

    async def stop(self) -> None:
        """Stop the API, then the conductor, then the hosts. Real guests go on only with the setting `leave_guests`."""
        await self.server.stop()
        if self._agents is not None and not self.settings.leave_guests:
            await self._end_moves()
            await self.conductor.stop()  # It would record the stopped guests as a fault.
            await self._agents.stop_guests(self.hosts)
        await self._closing.aclose()
        if self._agents is not None and self._agents.networks is not None and not self.settings.leave_guests:
            await asyncio.to_thread(self._agents.networks.remove)

    async def _end_moves(self) -> None:
        """End moves first, by abort or by completion: a guest in a move has two processes, and no verb stops both."""

        def abort(tx: Tx) -> None:
            moving = sa.select(operations.c.id).where(
                operations.c.saga.in_(("live-migration", "resize", "snapshot", "shelve"))
            )
            for row in tx.all(moving.where(operations.c.status == Status.FORWARD)):
                request_abort(tx, self.runner, row.id)

        await self.db.write_async(abort)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_MOVES_SECONDS):
                await self.runner.idle()


def _own_folder(settings: Settings) -> None:
    """The state folder, and the database in it, are for the cloud's own user."""
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings.state_dir.chmod(0o700)
    file = database_file(settings.database_url)
    if file is not None:
        file.touch(mode=0o600)
    Reserve(settings.state_dir).fill()


def _seed_once(parts: Sequence[Part], settings: Settings, db: Database, clock: Clock) -> None:
    """Make what a new cloud begins with. If a start was killed meanwhile, the next one does it."""
    marker = settings.state_dir / "seeded"
    if marker.exists():
        return
    if not settings.bare:
        projects = db.read(identity_bootstrap.first_projects)
        boots = settings.driver != "simulated"
        start = FirstStart(db=db, clock=clock, settings=settings, projects=projects, boots=boots)
        for part in parts:
            if part.seed is not None:
                part.seed(start)
    marker.touch(mode=0o600)
