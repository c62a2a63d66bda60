"""The database: a transaction is a function. SQLite with one writer and group commit, or PostgreSQL, serializable.

`Database.write(fn)` runs `fn(tx)` in a transaction and returns its result once the commit is durable. `fn` may run
more than once (PostgreSQL retries serialization failures), so it must touch nothing but `tx`; what must follow a commit
is registered with `tx.after_commit`. Because every transaction is serializable, a read-then-write inside one function
needs no further lock; across transactions, callers compare generations.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Engine, MetaData
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError

from cumulet.db.fair_queue import OWN, FairQueue, Job, serve
from cumulet.db.giving_way import GivingWay
from cumulet.db.postgresql import notices_of, postgresql_engine
from cumulet.db.prepared import Statements
from cumulet.db.reach import NoAnswer, OutcomeUnknown, asks_for_another_try, connected, is_away
from cumulet.db.sqlite import own_connection, sqlite_engine, transaction
from cumulet.db.transaction import Keeper, Watch, Written, call_watches
from cumulet.db.transaction import Row as Row
from cumulet.db.transaction import Select as Select
from cumulet.db.transaction import Tx as Tx
from cumulet.db.turns import Turns

T = TypeVar("T")
log = logging.getLogger(__name__)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""All tables of all services; each service's `store.py` defines its own on it."""

GROUP_JOBS = 64
"""Most jobs of one group commit. Jobs that fail count."""
GROUP_SECONDS = 0.01
"""For so long at most a group commit takes in further jobs: for as long as the last commit took. A job that is done
waits for others' work no longer than for the disk, and where the disk is slow more jobs share a commit."""
GROUP_LEAST_SECONDS = 0.001
READERS = 4
POSTGRESQL_WRITERS = 4
SERIALIZATION_RETRIES = 20
CALLERS_SECONDS = 30.0
"""How long a request waits for a database in another process, the wait for its turn included. The cloud's own work
waits until the database is back."""
CLOSING_SECONDS = 5.0
"""How long `close` waits for a database in another process."""
ALONE_AFTER_TRIES = 4
"""After so many tries that PostgreSQL could not serialize, a transaction is tried with no other of this process beside
it: a long transaction among many short ones would never succeed."""


class Database:
    """A connection to SQLite or PostgreSQL. Thread-safe; `close` waits for what was queued, for a PostgreSQL not longer
    than `CLOSING_SECONDS`."""

    def __init__(self, url: str, *, inline: bool = False) -> None:
        """`url`: ``sqlite:///FILE``, ``sqlite://`` or ``postgresql://...``. `inline`: all on the caller's thread."""
        self.url = make_url(url)
        self.kind = self.url.get_backend_name()
        """``sqlite`` or ``postgresql``."""
        self.is_sqlite = self.kind == "sqlite"
        self.embedded = self.is_sqlite
        """The database is in this process, and no other process uses it. A lookup by key costs less than changing
        threads."""
        made = sqlite_engine if self.is_sqlite else postgresql_engine
        self._engine = made(self.url, _json_dumps)
        self._statements = Statements(self._engine.dialect) if self.is_sqlite else None
        memory = self.is_sqlite and not self.url.database
        self._inline = inline
        self._local = threading.local()
        self.keeper: Keeper | None = None
        self.computed: Callable[[str, float], None] | None = None
        """Told, on a thread of ours, for which lane it has computed (`fair_queue`), and how many seconds."""
        self.busy: Callable[[], bool] = lambda: False
        """Whether others have work that comes before that of a thread which reads: the event loop."""
        self._name = secrets.token_hex(8)
        """Tells what it has committed from what other processes have."""
        self._kept: dict[str, object] = {}
        self._watches: tuple[Watch, ...] = ()
        self._reader_connections: list[Connection] = []
        self._closed = False
        self._memory_lock = threading.RLock() if memory else None
        # One lane never has all threads. On SQLite it has one: the threads compute in this process, so two of them
        # would not be faster, and would slow down other lanes.
        self._reads = FairQueue(most_at_once=1 if self.embedded else READERS - 1)
        self._writes = FairQueue(most_at_once=POSTGRESQL_WRITERS - 1)
        self._turns = Turns()
        self.threads: list[threading.Thread] = []
        """They end at `close`."""
        if not inline:
            if self.is_sqlite:
                # The first connection gives a new file its write-ahead log. If two did that at once, SQLite would
                # refuse one of them without waiting.
                self._start("db-write", 1, self._sqlite_writer, own_connection(self._engine))
            else:
                write = self._write_serializable
                self._start("db-write", POSTGRESQL_WRITERS, serve, self._writes, write, self._computed)
            self._start("db-read", 1 if memory else READERS, self._serve_reads)
        self._inline_writer: Connection | None = None
        self._commit_seconds = GROUP_SECONDS
        """What the last commit took, on SQLite."""

    def _start(self, name: str, number: int, target: Callable[..., None], *arguments: Any) -> None:
        for n in range(number):
            thread = threading.Thread(target=target, args=arguments, name=f"{name}-{n}", daemon=True)
            thread.start()
            self.threads.append(thread)

    def _serve_reads(self) -> None:
        self._local.pause = GivingWay(self._others_work)
        serve(self._reads, self.read, self._computed)

    def _others_work(self) -> bool:
        """Whether what a thread that reads must not hold up is under way. A PostgreSQL computes elsewhere."""
        return self.busy() or (self.embedded and self._writes.busy)

    def _computed(self, lane: str, seconds: float) -> None:
        if self.computed is not None and lane not in OWN:
            self.computed(lane, seconds)

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine, for schema creation and migrations only."""
        return self._engine

    # -- reading

    def read(self, fn: Callable[[Tx], T]) -> T:
        """Run `fn` on a consistent snapshot, on the calling thread. It runs again if PostgreSQL asks for that, or if
        the connection of this thread was lost."""
        anew = False
        for attempt in range(SERIALIZATION_RETRIES):
            try:
                return self._read_once(fn)
            except DBAPIError as error:
                gone = error.connection_invalidated and not anew
                last = attempt == SERIALIZATION_RETRIES - 1
                if self.embedded or last or not (gone or asks_for_another_try(error)):
                    raise
                anew = anew or gone
        raise AssertionError("unreachable")

    def _read_once(self, fn: Callable[[Tx], T]) -> T:
        if not (self.embedded or self._inline or hasattr(self._local, "pause")):
            # Not a thread of ours. There may be more of these than the pool has connections, so they keep none.
            with self._own_reader() as connection, transaction(connection):
                return fn(self._tx(connection, writable=False))
        with self._memory_lock or contextlib.nullcontext():
            connection = self._reader()
            try:
                with transaction(connection):
                    return fn(self._tx(connection, writable=False))
            except DBAPIError as error:
                if error.connection_invalidated and not self._inline:
                    self._local.reader = None
                    self._reader_connections.remove(connection)
                raise

    async def read_async(self, fn: Callable[[Tx], T]) -> T:
        if self._inline:
            return self.read(fn)
        job = Job(fn)
        self._reads.put(job)
        result: T = await self._result(job, NoAnswer)
        return result

    async def look_up(self, fn: Callable[[Tx], T]) -> T:
        """As `read_async`, for a few lookups by key: an embedded database is read on this thread."""
        return self.read(fn) if self.embedded else await self.read_async(fn)

    def _reader(self) -> Connection:
        if self._inline:
            return self._inline_connection()
        connection: Connection | None = getattr(self._local, "reader", None)
        if connection is None:
            connection = self._local.reader = self._own_reader()
            self._reader_connections.append(connection)
        return connection

    def _own_reader(self) -> Connection:
        """On PostgreSQL a reader has one snapshot. If it took part in serializing, it would only make others fail."""
        if self.is_sqlite:
            return own_connection(self._engine)
        return own_connection(self._engine.execution_options(isolation_level="REPEATABLE READ"))

    def _tx(self, connection: Connection, *, writable: bool = True) -> Tx:
        statements, watches = self._statements, self._watches if writable else ()
        return Tx(
            connection,
            writable=writable,
            statements=statements,
            keeper=self.keeper,
            watches=watches,
            writer=self._name,
            kept=self._kept,
            pause=None if writable else getattr(self._local, "pause", None),
        )

    def watch(self, tables: frozenset[str], callback: Callable[[], None]) -> Watch:
        """Call `callback` on the thread that committed after each commit of this process that wrote to one of `tables`.

        It must not block. `unwatch` ends it. Of what other processes write, `hear_written` has to be told.
        """
        self._watches = (*self._watches, (tables, callback))
        return self._watches[-1]

    def unwatch(self, watch: Watch) -> None:
        self._watches = tuple(one for one in self._watches if one is not watch)

    def hear_written(self, words: str) -> None:
        """What was said on `transaction.WRITTEN`: whoever watches tables that another process wrote to is called."""
        written = msgspec.json.decode(words, type=Written)
        if written.writer != self._name:
            call_watches(self._watches, written.tables)

    def notices(
        self, channels: Iterable[str]
    ) -> contextlib.AbstractAsyncContextManager[AsyncIterator[tuple[str, str]]]:
        """While it is entered: what is said on these channels (`Tx.say`), each with its channel, on a connection of its
        own, of PostgreSQL. It raises when that connection is lost."""
        return notices_of(self._engine, self.url, channels)

    # -- writing

    def write(self, fn: Callable[[Tx], T]) -> T:
        """Run `fn` in a write transaction; returns after the commit is durable. Not for the event loop's thread."""
        if self._inline:
            return self._write_inline(fn)
        job = Job(fn)
        self._writes.put(job)
        result: T = job.future.result()
        return result

    async def write_async(self, fn: Callable[[Tx], T]) -> T:
        if self._inline:
            return self._write_inline(fn)
        job = Job(fn)
        self._writes.put(job)
        result: T = await self._result(job, OutcomeUnknown)
        return result

    async def _result(self, job: Job, once_begun: type[OperationalError]) -> Any:
        """The result of a queued job. `once_begun`: the error when a job has begun and does not answer in time."""
        answer = asyncio.wrap_future(job.future)
        if self.embedded or job.lane in OWN:
            return await answer
        try:
            async with asyncio.timeout(CALLERS_SECONDS) as waiting:
                return await answer
        except TimeoutError as late:
            if not waiting.expired():
                raise
            kind = NoAnswer if job.future.cancelled() else once_begun
            raise kind("", {}, late) from None

    def _inline_connection(self) -> Connection:
        if self._inline_writer is None:
            self._inline_writer = own_connection(self._engine)
        return self._inline_writer

    def _write_inline(self, fn: Callable[[Tx], T]) -> T:
        connection = self._inline_connection()
        with transaction(connection):
            tx = self._tx(connection)
            result = fn(tx)
            tx.finish()
        tx.committed()
        return result

    def _sqlite_writer(self, connection: Connection) -> None:
        while (job := self._writes.get()) is not None:
            for finished, tx, result in self._commit_group(connection, job):
                tx.committed()
                finished.future.set_result(result)
        connection.close()

    def _commit_group(self, connection: Connection, first: Job) -> list[tuple[Job, Tx, Any]]:
        """Run what is queued, each in a savepoint, and commit all at once: one fsync for many requests."""
        ended = time.perf_counter()
        last_begins = ended + min(GROUP_SECONDS, max(GROUP_LEAST_SECONDS, self._commit_seconds))
        job: Job | None = first
        tried = 0
        done: list[tuple[Job, Tx, Any]] = []
        try:
            with self._memory_lock or contextlib.nullcontext(), transaction(connection, immediate=True):
                while job is not None:
                    tried += 1
                    begun, used = time.perf_counter(), time.thread_time()
                    try:
                        tx = self._tx(connection)
                        # From here on the job cannot be cancelled; its caller may still stop waiting for it.
                        if job.future.set_running_or_notify_cancel():
                            with tx.savepoint():
                                result = job.fn(tx)
                                tx.finish()
                            done.append((job, tx, result))
                    except BaseException as error:
                        job.fail(error)
                        if not connection.connection.dbapi_connection.in_transaction:  # type: ignore[union-attr]
                            raise  # SQLite has rolled back the other jobs of this group too
                    finally:
                        ended = time.perf_counter()
                        self._writes.done(job, ended - begun)
                        self._computed(job.lane, time.thread_time() - used)
                    job = self._writes.get(wait=False) if tried < GROUP_JOBS and ended < last_begins else None
        except BaseException as error:
            if not tried:  # the transaction could not begin
                self._writes.done(first, 0.0)
                first.fail(error)
            for waiting, _, _ in done:
                waiting.fail(error)
            return []
        self._commit_seconds = time.perf_counter() - ended
        return done

    def _write_serializable(self, fn: Callable[[Tx], T]) -> T:
        for attempt in range(SERIALIZATION_RETRIES):
            try:
                with self._turns.alone() if attempt >= ALONE_AFTER_TRIES else self._turns.beside_others():
                    return self._write_once(fn)
            except DBAPIError as error:
                if not asks_for_another_try(error) or attempt == SERIALIZATION_RETRIES - 1:
                    raise
        raise AssertionError("unreachable")

    def _write_once(self, fn: Callable[[Tx], T]) -> T:
        with connected(self._engine) as connection:
            with connection.begin() as begun:
                tx = self._tx(connection)
                result = fn(tx)
                tx.finish()
                try:
                    begun.commit()
                except DBAPIError as error:
                    if not is_away(error):
                        raise
                    raise OutcomeUnknown("COMMIT", {}, error.orig or error) from error
            tx.committed()
            return result

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._writes.close()
        self._reads.close()
        # A PostgreSQL may never answer. What it was asked last is done or not, as after a kill: the connections are
        # left to the end of the process, and so are the threads that wait.
        until = None if self.embedded else time.monotonic() + CLOSING_SECONDS
        for thread in self.threads:
            thread.join(None if until is None else max(0.0, until - time.monotonic()))
        if any(thread.is_alive() for thread in self.threads):
            log.warning("the database has not answered for %g s: what it was asked last may be done", CLOSING_SECONDS)
            return
        for connection in self._reader_connections:
            connection.close()
        if self._inline_writer is not None:
            self._inline_writer.close()
        self._engine.dispose()


def _json_dumps(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def database_file(url: str) -> Path | None:
    """The SQLite file behind `url`, or None."""
    parsed = make_url(url)
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


@contextlib.contextmanager
def opened(url: str, *, inline: bool = False) -> Iterator[Database]:
    database = Database(url, inline=inline)
    try:
        yield database
    finally:
        database.close()
