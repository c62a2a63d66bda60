"""What tells hosts something when the records change: the reconcilers of wirings and of metadata."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from functools import partial

from cumulet.clock import Clock
from cumulet.db.engine import Database
from cumulet.db.transaction import Watch
from cumulet.periodic import Periodic

log = logging.getLogger(__name__)


class Teller(Periodic):
    """Woken by commits, and by a timer. Each is told by a task of its own, so that a slow host delays no other."""

    def __init__(self, *, name: str, clock: Clock, seconds: float, db: Database) -> None:
        super().__init__(name=name, clock=clock, seconds=seconds)
        self._db = db
        self._telling: dict[str, asyncio.Task[None]] = {}
        """By what is told: the task that tells it."""
        self._watched: Sequence[Watch] = ()

    @abstractmethod
    def _watch_commits(self, hear: Callable[[], None]) -> Sequence[Watch]:
        """Have `hear` called after the commits that matter."""

    async def start(self) -> None:
        if self.seconds is not None and not self._watched:
            self._watched = self._watch_commits(partial(self._hear, asyncio.get_running_loop()))
        await super().start()

    async def stop(self) -> None:
        await super().stop()
        await asyncio.gather(*self._telling.values(), return_exceptions=True)

    def kill(self) -> None:
        super().kill()
        for watch in self._watched:
            self._db.unwatch(watch)
        self._watched = ()
        for telling in self._telling.values():
            telling.cancel()

    def _hear(self, loop: asyncio.AbstractEventLoop) -> None:
        """Somebody has written what matters. From any thread."""
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._woken.set)

    def _begin(self, key: str, telling: Coroutine[object, object, None]) -> None:
        self._telling[key] = task = asyncio.create_task(telling, name=f"{self._name}-{key}")
        task.add_done_callback(partial(self._ended, key))

    def _ended(self, key: str, telling: asyncio.Task[None]) -> None:
        del self._telling[key]
        if not telling.cancelled() and (error := telling.exception()) is not None:
            log.error("%s: %s could not be told, will retry", self._name, key, exc_info=error)
            self._failed(key)

    def _failed(self, key: str) -> None:
        """Telling it has failed, by a defect."""
