"""The product's database in memory, on one connection, whose commits may fail, or succeed without saying so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from random import Random
from typing import Any, TypeVar

from sqlalchemy.exc import OperationalError

from cumulet.db.engine import Database, Tx
from cumulet.testing.simulation.faults import Weather

T = TypeVar("T")

FOR_THE_API: ContextVar[bool] = ContextVar("FOR_THE_API", default=False)
"""Whether what is running is a request's."""


class SimulatedDatabase(Database):
    """One connection, no threads. `written` is called after each commit. Until a run says otherwise, nothing fails."""

    def __init__(self) -> None:
        super().__init__("sqlite://", inline=True)
        self.weather = Weather()
        self.random = Random(0)  # noqa: S311 - a seed that decides everything is the point
        self.written: Callable[[], None] = lambda: None
        self.claims_touched = False
        self.lost: list[tuple[str, str]] = []
        """Server and host of each guest that a commit has called lost."""
        self.faults = 0
        """How many commits have gone wrong."""
        self._connection = self._inline_connection()
        self.driver: Any = self._connection.connection.dbapi_connection

    def read(self, fn: Callable[[Tx], T]) -> T:
        return fn(Tx(self._connection, writable=False, statements=self._statements))

    def _write_inline(self, fn: Callable[[Tx], T]) -> T:
        if self.random.random() < self.weather.commit_fails:
            self.faults += 1
            raise OperationalError("COMMIT", {}, Exception("the database is away"))
        tx = Tx(self._connection, writable=True, statements=self._statements)
        self.driver.execute("BEGIN")
        try:
            result = fn(tx)
        except BaseException:
            self.driver.execute("ROLLBACK")
            raise
        self.driver.execute("COMMIT")
        self.written()
        if FOR_THE_API.get() and self.random.random() < self.weather.dies_at_commit:
            raise asyncio.CancelledError("the API was killed before it could tell anybody")
        tx.committed()
        if self.random.random() < self.weather.commit_unknown:
            self.faults += 1
            raise OperationalError("COMMIT", {}, Exception("the connection was lost at commit"))
        return result
