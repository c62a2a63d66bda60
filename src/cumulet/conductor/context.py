"""What a runner gives the steps of an operation: a `saga.Context`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

from cumulet.clock import Clock, sleep_unless_woken
from cumulet.conductor.saga import Wishes
from cumulet.db.engine import Database, Tx
from cumulet.fleet.hosts import Hosts
from cumulet.settings import Settings
from cumulet.space import Space
from cumulet.wake import Wake

T = TypeVar("T")


class Carries(Wake, Protocol):
    """What carries the operation: `runner.Runner`."""

    db: Database
    clock: Clock
    settings: Settings
    hosts: Hosts
    space: Space

    def record_held(self, tx: Tx, operation_id: str, fn: Callable[[Tx], None]) -> Wishes: ...


class StepContext:
    """`saga.Context` for one operation."""

    def __init__(self, runner: Carries, operation_id: str, subject: str, claimed: int) -> None:
        """`claimed`: the revision of the operation when its runner took it."""
        self._runner = runner
        self.claimed = claimed
        self.operation_id = operation_id
        self.subject = subject
        self.step = 0
        self.clock = runner.clock
        self.settings = runner.settings
        self.hosts = runner.hosts
        self.space = runner.space
        self.wake = runner
        self.wish = asyncio.Event()

    async def read(self, fn: Callable[[Tx], T]) -> T:
        if self._runner.db.embedded:
            # A few lookups by key in our own address space: less work than changing threads.
            return self._runner.db.read(fn)
        return await self._runner.db.read_async(fn)

    async def record(self, fn: Callable[[Tx], None]) -> Wishes:
        return await self._runner.db.write_async(lambda tx: self._runner.record_held(tx, self.operation_id, fn))

    async def wait_for_wish(self, seconds: float) -> None:
        await sleep_unless_woken(self.clock, seconds, self.wish)
