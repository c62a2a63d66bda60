"""What each process of a control plane stands on, and how it says that it lives."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import msgspec

from cumulet.clock import Clock, SystemClock
from cumulet.conductor.presence import Presence
from cumulet.db.engine import Database
from cumulet.db.full_disk import Reserve
from cumulet.db.shared import shared_clock, shared_database
from cumulet.fleet.hosts import Hosts
from cumulet.processes.same_cloud import require_same_cloud
from cumulet.settings import Settings
from cumulet.space import Space
from cumulet.web.health import answer_health

Place = tuple[str, int]
"""An address and a port."""


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """What parts are put together on. `space`: promises on the state folder's file system."""

    settings: Settings
    db: Database
    clock: Clock
    hosts: Hosts
    space: Space = msgspec.field(default_factory=Space)


async def shared_ground(settings: Settings, stack: AsyncExitStack, clock: Clock | None = None) -> Ground:
    """That of one process among several, on the database of a cloud that `cumulet up` has prepared; `stack` ends it.

    `settings.state_dir` has the cloud's keys, certificate authority and images; every process of the cloud sees it.
    OtherState: the database cannot be shared, nothing was prepared in it, or it is of another cloud.
    """
    space = Space(reserve_is_given=not Reserve(settings.state_dir).spare())
    db = await shared_database(settings, stack)
    await asyncio.to_thread(require_same_cloud, settings.state_dir, settings.database_url)
    hosts = Hosts()
    stack.push_async_callback(hosts.close)
    clock = await shared_clock(db, clock or SystemClock(), stack)
    return Ground(settings=settings, db=db, clock=clock, hosts=hosts, space=space)


async def say_that_it_lives(presence: Presence, db: Database, stack: AsyncExitStack, health: Place | None) -> None:
    """In the records, and at `health` to whoever asks (`web.health`), until `stack` ends it."""
    stack.push_async_callback(presence.stop)
    await presence.start()
    if health is not None:
        stack.push_async_callback((await answer_health(health, db, presence)).close)
