"""What `cumulet up` runs: a whole cloud in one process - database, services, conductor, hosts, HTTPS."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from cumulet import rootless
from cumulet.clock import Clock
from cumulet.compute.images_of_hosts import images_for_hosts
from cumulet.conductor.presence import Presence
from cumulet.conductor.runner import BeforeStep
from cumulet.fleet.public_network import join_public
from cumulet.identity.bootstrap import first_projects, write_clouds_yaml
from cumulet.network.bootstrap import public_gateways
from cumulet.part import Part, seed_once
from cumulet.processes.conductor import conductor_of
from cumulet.processes.embedded_cloud import EmbeddedCloud
from cumulet.processes.ground import say_that_it_lives
from cumulet.processes.local_hosts import connect_real, connect_simulated
from cumulet.processes.prepared import Prepared, prepare_cloud
from cumulet.processes.remote_hosts import RemoteHosts
from cumulet.processes.same_cloud import note_cloud
from cumulet.processes.serving import cloud_of, serve_api
from cumulet.settings import Settings
from cumulet.web.policy import Policy


async def start_cloud(
    settings: Settings,
    *,
    clock: Clock | None = None,
    before_step: BeforeStep | None = None,
    more_parts: Sequence[Part] = (),
) -> EmbeddedCloud:
    """Start everything; returns when it serves. The caller holds the state folder's lock.

    `clock`: the clock of this cloud, if no other process shares it. By default the clock is the database's, where
    other processes may share that. `more_parts`: services beside Cumulet's own. If a part of it cannot start, those
    before it are stopped in reverse order.
    """
    async with AsyncExitStack() as stack:
        cloud = await _run(await prepare_cloud(settings, clock, more_parts, stack), before_step, stack)
        cloud._closing = stack.pop_all()
        return cloud


async def _run(made: Prepared, before_step: BeforeStep | None, stack: AsyncExitStack) -> EmbeddedCloud:
    parts, ground, certificates = made.parts, made.ground, made.certificates
    settings, db, clock = ground.settings, ground.db, ground.clock
    images = images_for_hosts(settings, db, clock, ground.space)
    real = settings.driver == "qemu"
    agents = await connect_real(ground, certificates, images, stack) if real else None
    world = None if real else connect_simulated(ground, images[1], stack)
    name = f"conductor-{clock.uuid()}"
    conductor = conductor_of(parts, ground, name=name, alone=db.embedded, before_step=before_step)
    remote = RemoteHosts(ground, certificates)
    presence = Presence(db=db, clock=clock, role="up", name=name, bus=remote.bus_state, trouble=remote.trouble)
    cloud = cloud_of(
        parts,
        ground,
        identity=made.identity,
        policy=Policy.load(settings.policy_file),
        certificates=certificates,
        wake=conductor.runner,
        presence=presence,
        door=remote.door() if rootless.inside() is None else None,
    )
    stack.push_async_callback(conductor.stop)
    stack.push_async_callback(remote.stop)
    await remote.start(None if cloud.door is None else images)
    await remote.reached()
    await conductor.start()
    await asyncio.to_thread(seed_once, parts, settings, db, clock, first_projects)
    note_cloud(settings.state_dir, db)
    local, gateways = None if agents is None else agents.networks, await db.read_async(public_gateways)
    reach = await asyncio.to_thread(join_public, settings, local, gateways)
    served = await serve_api(parts, cloud, certificates, stack, own=settings.state_dir)
    if not db.embedded:  # On SQLite there are no other processes.
        await say_that_it_lives(presence, db, stack, None)
    running = EmbeddedCloud(
        settings=settings,
        clock=clock,
        db=db,
        identity=made.identity,
        conductor=conductor,
        hosts=ground.hosts,
        context=cloud,
        server=served.server,
        authority=certificates.authority,
        passwords=made.passwords,
        world=world,
        reach=reach,
        _agents=agents,
    )
    url, shown = f"{running.url}/identity/v3", served.certificate.authority
    write_clouds_yaml(
        made.clouds_file, auth_url=url, cacert=shown, passwords=made.passwords.by_user, region=settings.region
    )
    return running
