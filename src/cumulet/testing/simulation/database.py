"""The product's database in memory, on one connection. A commit may fail, or succeed without an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from random import Random
from typing import Any, TypeVar
from zlib import crc32

from sqlalchemy.exc import OperationalError

from cumulet.db.engine import Database, Tx
from cumulet.db.transaction import Keeper, Watch
from cumulet.testing.simulation import life
from cumulet.testing.simulation.at_once import AtOnce
from cumulet.testing.simulation.faults import Weather

T = TypeVar("T")

FOR_THE_API: ContextVar[bool] = ContextVar("FOR_THE_API", default=False)
"""Whether the running code belongs to a request."""


class TxBesideOthers(Tx):
    """A transaction of one of several processes on the database, as with PostgreSQL."""

    __slots__ = ("tell",)
    tell: Callable[[str, str], None]

    @property
    def alone(self) -> bool:
        return False

    def say(self, channel: str, words: str) -> None:
        self.after_commit(lambda: self.tell(channel, words))


class Memory:
    """What a process keeps of the database in memory. If it is alone, the whole cloud shares it."""

    def __init__(self) -> None:
        self.keeper: Keeper | None = None
        self.watches: tuple[Watch, ...] = ()
        self.kept: dict[str, object] = {}


class SimulatedDatabase(Database):
    """One connection, no threads. `written` is called after each commit. Until a run says otherwise, nothing fails."""

    def __init__(self) -> None:
        super().__init__("sqlite://", inline=True)
        self.weather = Weather()
        self.random = Random(0)  # noqa: S311 - a seed that decides everything is the point
        self.written: Callable[[], None] = lambda: None
        self.refused: Callable[[str], None] = lambda words: None
        """Called with SQLite's words when it refuses a statement: no fault of a run does that."""
        self.writer = ""
        """The process whose transaction runs; empty: none of the control plane."""
        self.claims_touched = False
        self.floating_touched = False
        """Whether a commit wrote to a table that floating IPs depend on."""
        self.trunks_touched = False
        """Whether a commit wrote to trunks, or to what their invariants say of ports."""
        self.host_marked = False
        """Whether a commit changed whether a host answers."""
        self.done_again: list[str] = []
        """Operations that were changed after they had ended, or whose steps went back."""
        self.at_once = AtOnce()
        self.lost: list[tuple[str, str]] = []
        """Server and host of each guest that a commit recorded as lost."""
        self.faults = 0
        """How many commits failed, or succeeded without an answer."""
        self.listeners: list[Callable[[str, str], None]] = []
        """What is told of each notice, once it is durable."""
        self._connection = self._inline_connection()
        self.driver: Any = self._connection.connection.dbapi_connection
        self._learn_functions()

    def _learn_functions(self) -> None:
        """Those of PostgreSQL that processes use which share a database."""
        self.driver.create_function("concat", -1, lambda *values: "".join(map(str, values)))
        self.driver.create_function("hashtextextended", 2, lambda text, seed: crc32(f"{seed} {text}".encode()))

    def forget_what_was_seen(self) -> None:
        """Begin the next run."""
        self.claims_touched = self.host_marked = self.floating_touched = self.trunks_touched = False
        self.lost.clear()
        self.done_again.clear()
        self.listeners.clear()
        self.at_once.forget()

    def read(self, fn: Callable[[Tx], T], *, memory: Memory | None = None, alone: bool = True) -> T:
        return fn(self._begun(writable=False, memory=memory or Memory(), alone=alone))

    def write_as(self, writer: str, fn: Callable[[Tx], T], *, memory: Memory, alone: bool) -> T:
        """Run the block as a process of this name."""
        self.writer = writer
        try:
            return self._write(fn, memory, alone=alone)
        finally:
            self.writer = ""

    def _begun(self, *, writable: bool, memory: Memory, alone: bool) -> Tx:
        kind = Tx if alone else TxBesideOthers
        tx = kind(
            self._connection,
            writable=writable,
            statements=self._statements,
            keeper=memory.keeper,
            watches=memory.watches,
            writer=self.writer,
            kept=memory.kept,
        )
        if isinstance(tx, TxBesideOthers):
            tx.tell = self._tell
        return tx

    def _tell(self, channel: str, words: str) -> None:
        for listener in tuple(self.listeners):
            listener(channel, words)

    def _write_inline(self, fn: Callable[[Tx], T]) -> T:
        return self._write(fn, Memory(), alone=True)

    def _write(self, fn: Callable[[Tx], T], memory: Memory, *, alone: bool) -> T:
        if self.random.random() < self.weather.commit_fails:
            self.faults += 1
            raise OperationalError("COMMIT", {}, Exception("the database is away"))
        tx = self._begun(writable=True, memory=memory, alone=alone)
        self.driver.execute("BEGIN")
        try:
            result = fn(tx)
            tx.finish()
        except BaseException as error:
            if isinstance(error, OperationalError):
                self.refused(str(error.orig))
            self.driver.execute("ROLLBACK")
            raise
        self.driver.execute("COMMIT")
        self.written()
        if FOR_THE_API.get() and self.random.random() < self.weather.dies_at_commit:
            life.end()
            if alone:  # The API shares its process with the rest of the control plane, which lives and hears of it.
                tx.committed()
            raise asyncio.CancelledError("the API was killed before it could tell anybody")
        tx.committed()
        if self.random.random() < self.weather.commit_unknown:
            self.faults += 1
            raise OperationalError("COMMIT", {}, Exception("the connection was lost at commit"))
        return result
