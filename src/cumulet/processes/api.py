"""An API, made from parts: services over HTTPS, beside other processes on one PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from cumulet.compute.images_of_hosts import images_for_hosts
from cumulet.conductor.presence import Presence
from cumulet.db.schema import OtherState
from cumulet.db.shared import NOTHING_PREPARED
from cumulet.identity.bootstrap import first_projects
from cumulet.identity.service import Identity
from cumulet.part import Part
from cumulet.processes.certificates import certificates_of
from cumulet.processes.ground import say_that_it_lives, shared_ground
from cumulet.processes.remote_hosts import RemoteHosts
from cumulet.processes.serving import Api, cloud_of, serve_api
from cumulet.settings import Settings
from cumulet.wake import SaidToConductors
from cumulet.web.policy import Policy


@asynccontextmanager
async def api_alone(parts: Sequence[Part], settings: Settings, own: Path) -> AsyncIterator[Api]:
    """An API, one of several. `own` is a folder of this process alone: its audit trail is a chain that one process
    writes, and its certificate names its own addresses. Raises OtherState.

    A conductor carries the operations that requests begin. It is told of them; if a notice is lost, its next sweep
    finds them, after at most a quarter of `lease_seconds`.
    """
    async with AsyncExitStack() as stack:
        ground = await shared_ground(settings, stack)
        if not await ground.db.read_async(first_projects):
            raise OtherState(NOTHING_PREPARED)
        identity = Identity(db=ground.db, clock=ground.clock, settings=settings, state_dir=settings.state_dir)
        stack.callback(identity.close)
        certificates = await certificates_of(settings.state_dir, ground.clock, stack)
        remote = RemoteHosts(ground, certificates)
        name = f"api-{ground.clock.uuid()}"
        presence = Presence(
            db=ground.db, clock=ground.clock, role="api", name=name, bus=remote.bus_state, trouble=remote.trouble
        )
        cloud = cloud_of(
            parts,
            ground,
            identity=identity,
            policy=Policy.load(settings.policy_file),
            certificates=certificates,
            wake=SaidToConductors(),
            presence=presence,
            door=None if settings.bus is None else remote.door(),
        )
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
        if settings.bus is not None:
            stack.push_async_callback(remote.stop)
            await remote.start(images_for_hosts(settings, ground.db, ground.clock, ground.space))
        api = await serve_api(parts, cloud, certificates, stack, own=own)
        await say_that_it_lives(presence, ground.db, stack, None)
        yield api
