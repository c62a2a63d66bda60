"""Runners on one database and a virtual clock, and stories that are told with them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random

import msgspec
import pytest
import sqlalchemy as sa

from cumulet.conductor.runner import (
    Runner,
)
from cumulet.conductor.saga import (
    Context,
    Final,
    Saga,
    Step,
    begin,
    nothing,
    operations,
)
from cumulet.db import schema
from cumulet.db.engine import Database, Row, Tx
from cumulet.fleet.hosts import Hosts
from cumulet.settings import Settings
from cumulet.testing.simulation.virtual_time import VirtualClock, VirtualLoop

LEASE_SECONDS = 8.0
TRY_SECONDS = 0.001
"""How long one takes: without it a runner that makes no pause would never let the time go on."""


class Told(msgspec.Struct, frozen=True):
    """A state, as of a rescue."""

    password: str = "dragon"


class World:
    """Runners on one database, and a saga of one step, which hangs or fails as long as that is said here."""

    def __init__(self, loop: VirtualLoop, folder: Path) -> None:
        self.clock = VirtualClock(loop, Random(1))
        self.database = Database("sqlite://", inline=True)
        schema.prepare(self.database)
        self.settings = Settings(state_dir=folder, database_url="sqlite://", lease_seconds=LEASE_SECONDS)
        self.broken = True
        self.hangs = False
        self.tried: list[float] = []
        self.may_be_undone(False)

    def may_be_undone(self, may: bool) -> None:
        """Whether the step is above the line."""
        self.saga = Saga(
            name="trying",
            kind="server",
            state=Told,
            steps=(Step(self._try, undo=nothing),) if may else (),
            finals=() if may else (Final(self._try),),
            unwound=lambda tx, context, state, failure: None,
        )

    async def _try(self, context: Context, state: Told) -> Told:
        self.tried.append(self.clock.monotonic())
        await self.clock.sleep(TRY_SECONDS)
        await self.meanwhile(context)
        if self.hangs:
            await asyncio.Event().wait()
        if self.broken:
            raise OSError("the disk is full")
        return state

    async def meanwhile(self, context: Context) -> None:
        """What a story does in the step."""

    def runner(self, name: str, *, alone: bool = True) -> Runner:
        return Runner(
            db=self.database,
            clock=self.clock,
            settings=self.settings,
            hosts=Hosts(),
            sagas={self.saga.name: self.saga},
            name=name,
            alone=alone,
        )

    def taken_by(self, other: str) -> None:
        """As if another runner had seen no beat of the lease for as long as it takes."""
        raised = {"lease_beat": operations.c.lease_beat + 1, "revision": operations.c.revision + 1}
        self.database.write(lambda tx: tx.execute(sa.update(operations).values(lease_owner=other, **raised)))

    def begin(self, runner: Runner, operation_id: str = "one") -> None:
        def write(tx: Tx) -> None:
            begin(tx, runner, self.saga, operation_id=operation_id, subject=operation_id, state=Told(), now_us=0)

        self.database.write(write)

    def row(self, operation_id: str = "one") -> Row:
        found = self.database.read(lambda tx: tx.first(sa.select(operations).where(operations.c.id == operation_id)))
        assert found is not None
        return found


Story = Callable[[World], Coroutine[object, object, None]]
Play = Callable[[Story], None]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    def run(story: Story) -> None:
        loop = VirtualLoop()
        asyncio.set_event_loop(loop)
        world = World(loop, tmp_path)
        try:
            loop.run_until_complete(story(world))
        finally:
            asyncio.set_event_loop(None)
            world.database.close()

    return run
