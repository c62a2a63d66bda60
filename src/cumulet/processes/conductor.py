"""A conductor, made from parts: it carries their sagas, and while it leads, looks after what they look after."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from cumulet.clock import Clock
from cumulet.conductor.conductor import Conductor
from cumulet.conductor.presence import Presence
from cumulet.conductor.runner import BeforeStep
from cumulet.part import Part, sagas_of
from cumulet.processes.certificates import certificates_of
from cumulet.processes.ground import Ground, Place, say_that_it_lives, shared_ground
from cumulet.processes.remote_hosts import RemoteHosts
from cumulet.settings import Settings
from cumulet.wake import Wake


def conductor_of(
    parts: Sequence[Part],
    ground: Ground,
    *,
    name: str,
    alone: bool,
    before_step: BeforeStep | None = None,
    wake: Wake | None = None,
) -> Conductor:
    """The arguments are those of `Conductor`. Raises SettingRefused."""
    for part in parts:
        if part.require is not None:
            part.require(ground.settings)
    return Conductor(
        sagas_of(parts),
        lambda around: [one for part in parts for one in part.reconcilers(around)],
        lambda around: [one for part in parts for one in part.memories(around)],
        db=ground.db,
        clock=ground.clock,
        settings=ground.settings,
        hosts=ground.hosts,
        space=ground.space,
        name=name,
        alone=alone,
        before_step=before_step,
        wake=wake,
    )


@asynccontextmanager
async def conductor_alone(
    parts: Sequence[Part], settings: Settings, *, clock: Clock | None = None, health: Place | None = None
) -> AsyncIterator[Conductor]:
    """A conductor, one of several. When the lease of one has run out, another goes on with its operations. `health`:
    where it answers `web.health`. Raises OtherState and SettingRefused."""
    async with AsyncExitStack() as stack:
        ground = await shared_ground(settings, stack, clock)
        remote = RemoteHosts(ground, await certificates_of(settings.state_dir, ground.clock, stack))
        stack.push_async_callback(remote.stop)
        await remote.start(None)
        await remote.reached()
        name = f"conductor-{ground.clock.uuid()}"
        conductor = conductor_of(parts, ground, name=name, alone=False)
        stack.push_async_callback(conductor.stop)
        await conductor.start()
        presence = Presence(
            db=ground.db, clock=ground.clock, role="conductor", name=name, bus=remote.bus_state, trouble=remote.trouble
        )
        await say_that_it_lives(presence, ground.db, stack, health)
        yield conductor
