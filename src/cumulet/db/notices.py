"""Notices between processes on one PostgreSQL (LISTEN and NOTIFY). They arrive after the sender's commit (`Tx.say`).

They are hints. While a connection is lost, its notices are lost too; then the listener finds the work at its next look.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from cumulet.clock import Clock
from cumulet.db.engine import Database

log = logging.getLogger(__name__)

AGAIN_SECONDS = 2.0
"""Before a lost connection is made again."""


class Listening:
    """Listens on some channels, on a connection of its own, from `start` to `stop`."""

    def __init__(self, *, db: Database, clock: Clock, hear: Mapping[str, Callable[[str], None]]) -> None:
        """`hear`: the name of a channel, in small letters -> a function that the event loop calls with each notice."""
        self._db = db
        self._clock = clock
        self._hear = hear
        self._task: asyncio.Task[None] | None = None
        self.listens = asyncio.Event()
        """Set while the connection listens."""

    async def start(self) -> None:
        if not self._db.is_sqlite:
            self._task = asyncio.create_task(self._go_on(), name="notices")

    async def stop(self) -> None:
        self.kill()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def kill(self) -> None:
        """As the end of its process: from now on it hears nothing."""
        if self._task is not None:
            self._task.cancel()

    async def _go_on(self) -> None:
        while True:
            try:
                await self._listen()
            except Exception as problem:
                log.warning("notices are not heard, will retry: %r", problem)
            await self._clock.sleep(AGAIN_SECONDS)

    async def _listen(self) -> None:
        async with self._db.notices(self._hear) as notices:
            self.listens.set()
            try:
                async for channel, words in notices:
                    self._tell(channel, words)
            finally:
                self.listens.clear()

    def _tell(self, channel: str, words: str) -> None:
        """One notice that cannot be used costs no other: the connection goes on."""
        try:
            self._hear[channel](words)
        except Exception:
            log.exception("a notice on %s failed: %.200r", channel, words)
