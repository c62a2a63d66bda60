"""The timer of reconcilers: a round every so many seconds, and at once when woken, even if the last one failed."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from typing import Protocol

from cumulet.clock import Clock, sleep_unless_woken

log = logging.getLogger(__name__)


class Reconciler(Protocol):
    """What looks after something for as long as it is started."""

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Stop, and wait until it has."""
        ...

    def kill(self) -> None:
        """As if its process had died: the round ends where it is waiting."""
        ...


class Periodic(ABC):
    """Does its `round` every `seconds` (None: never), and whenever `woken` is set. Rounds never overlap."""

    def __init__(self, *, name: str, clock: Clock, seconds: float | None, woken: asyncio.Event | None = None) -> None:
        self._name = name
        self._clock = clock
        self.seconds = seconds
        """A change counts from the next start on."""
        self._woken = woken or asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def round(self) -> None:
        """Look once. It takes no input, so one that failed is made good by the next."""

    async def start(self) -> None:
        if self.seconds is not None:
            self._task = asyncio.create_task(self._watch(self.seconds), name=self._name)

    async def stop(self) -> None:
        self.kill()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def kill(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _watch(self, seconds: float) -> None:
        while True:
            await sleep_unless_woken(self._clock, seconds, self._woken)
            try:
                await self.round()
            except Exception:
                log.exception("%s failed, will retry", self._name)
