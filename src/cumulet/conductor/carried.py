"""An operation as a runner carries it: what its row says, and the statements that find, take, renew and save rows."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec
import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.conductor.saga import IS_RUNNING, Failure, Status, StepFailed, operations
from cumulet.db.engine import Row, Tx
from cumulet.errors import ApiError

S = TypeVar("S", bound=msgspec.Struct)

# Every operation runs these many times: they are built once.
_THIS = operations.c.id == sa.bindparam("of_id")
FOUND = sa.select(operations).where(_THIS)
HELD = sa.select(
    operations.c.lease_owner, operations.c.revision, operations.c.abort_requested, operations.c.force_requested
).where(_THIS)
CHANGE = sa.update(operations).where(_THIS)
TAKE = sa.update(operations).where(_THIS).values(lease_beat=operations.c.lease_beat + 1)
_SAVE = TAKE.where(
    operations.c.lease_owner == sa.bindparam("held_by"), operations.c.revision == sa.bindparam("held_revision")
)
RENEW = (
    sa.update(operations)
    .where(operations.c.lease_owner == sa.bindparam("of_owner"), operations.c.ended_at_us.is_(None))
    .values(lease_beat=operations.c.lease_beat + 1)
)
RUNNING = sa.select(operations.c.id, operations.c.lease_owner, operations.c.lease_beat, operations.c.revision).where(
    IS_RUNNING
)
WAITING = (
    sa.select(operations.c.id)
    .where(operations.c.subject == sa.bindparam("of_subject"), operations.c.status == Status.QUEUED)
    .order_by(operations.c.created_at_us, operations.c.id)
)


STUCK_AFTER_ATTEMPTS = 8
BACK_OFF_FIRST_SECONDS = 0.05
BACK_OFF_LAST_SECONDS = 15.0


def due_after(clock: Clock, attempts: int) -> float:
    """When to try again after so many tries, monotonic."""
    delay: float = min(BACK_OFF_FIRST_SECONDS * 2 ** min(attempts, 20), BACK_OFF_LAST_SECONDS)
    return clock.monotonic() + delay * (0.75 + clock.random() / 2)


class LeaseLost(Exception):
    """Another runner has the operation: stop touching it."""


class Aborted(StepFailed):
    """A user asked for it."""

    def __init__(self) -> None:
        super().__init__("ABORTED", "The operation was aborted by a user.")


class Carried(msgspec.Struct, Generic[S], frozen=True):
    """An operation row as this runner last saved it."""

    id: str
    subject: str
    status: Status
    position: int
    state: S
    error: Failure | None
    abort: bool
    attempts: int
    due_at: float
    """When it may go on, on our monotonic clock; another runner that takes it over goes on at once."""
    revision: int
    unanswered: int = 0
    """How often in a row its step asked while the bus was lost."""

    def changed(
        self, *, abort: bool = False, attempts: int = 0, due_at: float = 0.0, unanswered: int = 0, **changes: object
    ) -> Carried[S]:
        """What has become of it. Tries, and the time of the next, count anew unless they are given."""
        return msgspec.structs.replace(
            self, abort=abort, attempts=attempts, due_at=due_at, unanswered=unanswered, **changes
        )


def carried_of(row: Row, state: type[S], *, revision: int) -> Carried[S]:
    """An operation that this runner has just taken: its row was read, and is now of this revision."""
    return Carried(
        id=row.id,
        subject=row.subject,
        status=Status(row.status),
        position=row.position,
        state=msgspec.convert(row.state, state),
        error=msgspec.convert(row.error, Failure) if row.error is not None else None,
        abort=row.abort_requested,
        attempts=row.attempts,
        due_at=0.0,
        revision=revision,
    )


def saved(tx: Tx, operation: Carried[S], *, held_by: str, now_us: int, stuck_cause: str | None) -> bool:
    """Save an operation whose revision is one more than its row's. False: another runner has the row, or changed it."""
    running = operation.status.running
    matched = tx.changed(
        _SAVE,
        {
            "of_id": operation.id,
            "held_by": held_by,
            "held_revision": operation.revision - 1,
            "status": operation.status,
            "position": operation.position,
            # Nobody reads the state of an operation that has ended, and it may hold the guest's secrets.
            "state": msgspec.to_builtins(operation.state) if running else {},
            "error": msgspec.to_builtins(operation.error) if operation.error else None,
            "attempts": operation.attempts,
            "stuck_cause": stuck_cause,
            "revision": operation.revision,
            "updated_at_us": now_us,
            "ended_at_us": None if running else now_us,
        },
    )
    return matched == 1


def failure_of(error: Exception) -> Failure:
    if isinstance(error, StepFailed):
        return error.failure
    if isinstance(error, ApiError):
        return Failure(reason=error.reason or "REFUSED", public=error.public, private=error.private or "")
    return Failure(
        reason=getattr(error, "reason", "INTERNAL"),
        public=getattr(error, "public", "The operation failed on its host."),
        private=f"{type(error).__name__}: {error}",
    )
