"""A long operation is a table of steps; each stands beside its undo, and a line in the table is the point of no return.

Theory of operation. A saga's state is a frozen record, saved after every step in one `operations` row together with the
position, so whoever finds the row can go on. A step is either a *database step* (`def`), run in the very transaction
that saves its result, or a *host step* (`async def`), which is idempotent and may be asked again after a crash. When a
step fails, the row is marked `unwinding` first, then the undo of that step and of each step above it runs: an undo must
be right whether its step ran, half ran or never ran. Below the line (`finals`) nothing is undone: a final is retried
with back-off until it succeeds, and shown as stuck past a cap. Both decisions - unwind, and cross the line - are
compare-and-swaps on the same row, so exactly one of them is ever taken. At most one operation per subject runs (partial
unique index); others may wait in the queue.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, Protocol, TypeGuard, TypeVar

import msgspec
import sqlalchemy as sa

from cumulet.db.engine import Row, Tx, metadata
from cumulet.db.partial_index import index_where, unique_where
from cumulet.errors import Conflict
from cumulet.host.messages import StaleGeneration

if TYPE_CHECKING:
    from cumulet.clock import Clock
    from cumulet.fleet.hosts import Hosts
    from cumulet.settings import Settings
    from cumulet.space import Space
    from cumulet.wake import Wake

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")

operations = sa.Table(
    "operations",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("saga", sa.String(64), nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("subject", sa.String(36), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("state", sa.JSON, nullable=False),
    sa.Column("error", sa.JSON(none_as_null=True)),
    sa.Column("abort_requested", sa.Boolean, nullable=False),
    sa.Column("force_requested", sa.Boolean, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("stuck_cause", sa.Text),
    sa.Column("lease_owner", sa.String(64)),
    sa.Column("lease_beat", sa.BigInteger, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("updated_at_us", sa.BigInteger, nullable=False),
    sa.Column("ended_at_us", sa.BigInteger),
    sa.Index("ix_operations_ended", "ended_at_us"),
    sa.Index("ix_operations_status", "status", "subject"),
)
unique_where(operations, "uq_operations_one_running_per_subject", "subject", where="status IN ('forward', 'unwinding')")
# Of the rows nearly all have ended.
index_where(operations, "ix_operations_unended", "subject", where="ended_at_us IS NULL")


class Status(StrEnum):
    """Of an operation row."""

    QUEUED = "queued"
    FORWARD = "forward"
    UNWINDING = "unwinding"
    DONE = "done"
    UNWOUND = "unwound"

    @property
    def running(self) -> bool:
        return self in (Status.FORWARD, Status.UNWINDING)


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why an operation unwound. `public` may be shown to the server's owner, `private` to administrators."""

    reason: str
    public: str
    private: str = ""


class StepFailed(Exception):
    """A step cannot succeed: unwind. Any other exception from a step is an unexpected failure with the same effect."""

    def __init__(self, reason: str, public: str, private: str = "") -> None:
        super().__init__(private or public)
        self.failure = Failure(reason=reason, public=public, private=private)


class Wishes(msgspec.Struct, frozen=True):
    """What users asked of a running operation."""

    abort: bool
    force: bool


class Context(Protocol):
    """What a step may reach. Database steps use `clock` and `settings` only, and the transaction they are given."""

    @property
    def clock(self) -> Clock: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def operation_id(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def step(self) -> int:
        """The number of the host step that runs (`Saga.number_of`), which its commands carry."""
        ...

    @property
    def hosts(self) -> Hosts: ...

    @property
    def space(self) -> Space:
        """What is promised of this process's file system."""
        ...

    @property
    def wake(self) -> Wake:
        """For operations that begin others."""
        ...

    async def read(self, fn: Callable[[Tx], T]) -> T:
        """Read the database."""
        ...

    async def record(self, fn: Callable[[Tx], None]) -> Wishes:
        """Write progress in a transaction that holds only while the lease does; answers what users wish by now."""
        ...

    async def wait_for_wish(self, seconds: float) -> None:
        """Sleep, or less when a user asks for something."""
        ...


DatabaseStep = Callable[[Tx, Context, S], S]
HostStep = Callable[[Context, S], Awaitable[S]]
Do = DatabaseStep[S] | HostStep[S]


def nothing(tx: Tx, context: Context, state: S) -> S:
    """The undo of a step that leaves nothing behind."""
    return state


@dataclass(frozen=True, slots=True)
class Step(Generic[S]):
    """Above the line: `do` beside its `undo`. `status` is what the API's record shows meanwhile; `events` are those
    that its history shows from then on."""

    do: Do[S]
    undo: Do[S]
    status: str = ""
    events: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.do.__name__


@dataclass(frozen=True, slots=True)
class Final(Generic[S]):
    """Below the line: only forward."""

    do: Do[S]
    status: str = ""
    events: tuple[str, ...] = ()
    saved: bool = True
    """Whether the operation is saved before the next step begins. If not, that is a step on a host, too: a runner that
    takes over repeats both."""

    @property
    def name(self) -> str:
        return self.do.__name__


@dataclass(frozen=True, slots=True, kw_only=True)
class Saga(Generic[S]):
    """A long operation on a subject of some `kind`, such as ``server``, whose id names it among all subjects.

    `unwound` records the failure in the last transaction of an unwinding. `afterwards` runs in the process that has
    carried it to its end, once that is saved. Nobody repeats it: it is for what a reconciler finds, too, if it is late.
    """

    name: str
    kind: str
    state: type[S]
    steps: tuple[Step[S], ...]
    finals: tuple[Final[S], ...]
    unwound: Callable[[Tx, Context, S, Failure], None]
    record_status: Callable[[Tx, Context, S, str], None] | None = None
    record_events: Callable[[Tx, Context, S, Sequence[str]], None] | None = None
    """Both in the transaction that saves the step before; for the very first step if that is a database step."""
    afterwards: Callable[[Context, S], Awaitable[None]] | None = None
    overtaken: Callable[[Context, S, StaleGeneration], Awaitable[DatabaseStep[S] | None]] | None = None
    """Asked where a host refuses a step as out of date, though its runner may still hold the operation: what brings
    its state, and the records, past what the host has accepted. None: nothing does, the step has failed."""

    @property
    def plan(self) -> tuple[Step[S] | Final[S], ...]:
        return (*self.steps, *self.finals)

    def may_unwind_at(self, position: int) -> bool:
        """Whether undos can take back all that was done before `position`. What has no steps only goes forward."""
        return bool(self.steps) and position <= len(self.steps)

    def next(self, status: Status, position: int) -> Do[S] | None:
        """What is to be done, or undone, next; None: it has ended."""
        if status is Status.FORWARD:
            return self.plan[position].do if position < len(self.plan) else None
        return self.steps[position].undo if position >= 0 else None

    def show(self, tx: Tx, context: Context, state: S, position: int) -> None:
        """On the way forward: record what the API shows of the step at `position`, unless the step before had that,
        too."""
        step = self.plan[position]
        before = self.plan[position - 1].status if position > 0 else ""
        if self.record_status is not None and step.status and step.status != before:
            self.record_status(tx, context, state, step.status)
        if self.record_events is not None and step.events:
            self.record_events(tx, context, state, step.events)

    def number_of(self, status: Status, position: int) -> int:
        """The number of the next step. It rises on the way forward, and keeps rising while that is unwound."""
        return position if status is Status.FORWARD else 2 * len(self.steps) - position


def is_host_step(do: Do[S]) -> TypeGuard[HostStep[S]]:
    return inspect.iscoroutinefunction(do)


def is_database_step(do: Do[S]) -> TypeGuard[DatabaseStep[S]]:
    return not inspect.iscoroutinefunction(do)


_INSERT = sa.insert(operations)
IS_RUNNING = operations.c.status.in_((Status.FORWARD, Status.UNWINDING))
_RUNNING = sa.select(operations).where(operations.c.subject == sa.bindparam("of_subject"), IS_RUNNING)
_SUBJECTS = sa.select(operations.c.subject).where(IS_RUNNING)


def first_row(
    saga: Saga[S], operation_id: str, subject: str, state: S, now_us: int, status: Status
) -> dict[str, object]:
    return {
        "id": operation_id,
        "saga": saga.name,
        "kind": saga.kind,
        "subject": subject,
        "status": status,
        "position": 0,
        "state": msgspec.to_builtins(state),
        "abort_requested": False,
        "force_requested": False,
        "attempts": 0,
        "lease_beat": 0,
        "revision": 0,
        "created_at_us": now_us,
        "updated_at_us": now_us,
    }


def begin_many(tx: Tx, wake: Wake, saga: Saga[S], begun: Sequence[tuple[str, str, S]], *, now_us: int) -> None:
    """Start operations on subjects that this transaction has just made: none of them can have another operation.

    `begun`: each operation's id, its subject and its first state.
    """
    rows = [first_row(saga, id, subject, state, now_us, Status.FORWARD) for id, subject, state in begun]
    tx.execute(_INSERT, rows)
    for operation_id, _, _ in begun:
        wake.operation(tx, operation_id)


def begin(
    tx: Tx, wake: Wake, saga: Saga[S], *, operation_id: str, subject: str, state: S, now_us: int, queue: bool = False
) -> str:
    """Start an operation in the caller's transaction; returns its id.

    Conflict when the subject has a running one; with `queue`, waits its turn instead and asks the running one to abort.
    """
    running = running_operation(tx, subject)
    if running is not None and not queue:
        raise Conflict("Another operation is running on it.", reason="OPERATION_RUNNING")
    status = Status.FORWARD if running is None else Status.QUEUED
    tx.run(_INSERT, first_row(saga, operation_id, subject, state, now_us, status))
    if running is not None:
        request_abort(tx, wake, running.id)
    wake.operation(tx, operation_id)
    return operation_id


def running_operation(tx: Tx, subject: str) -> Row | None:
    """The row of the subject's running operation, or None."""
    return tx.first(_RUNNING, {"of_subject": subject})


def subjects_of_running(tx: Tx) -> set[str]:
    """The subjects of all running operations."""
    return {row.subject for row in tx.all(_SUBJECTS, {})}


def request_abort(tx: Tx, wake: Wake, operation_id: str) -> None:
    """Ask a running operation to unwind if it has not crossed its line. Its runner reads the column."""
    tx.execute(sa.update(operations).where(operations.c.id == operation_id).values(abort_requested=True))
    wake.operation(tx, operation_id)


def request_force(tx: Tx, wake: Wake, operation_id: str) -> None:
    """Ask a running operation to complete by force (live migration: pause the guest, or post-copy)."""
    tx.execute(sa.update(operations).where(operations.c.id == operation_id).values(force_requested=True))
    wake.operation(tx, operation_id)
