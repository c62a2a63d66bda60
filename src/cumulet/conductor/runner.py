"""Carries sagas: takes a lease on an operation, goes on where its row says, saves every step, retries in the open.

Any runner can take over any operation: nothing that matters is in process memory. A message that an operation waits is
only a hint; the sweep finds every one that nobody holds. A lease stores no time: whoever holds an operation keeps
changing its `lease_beat`. For an observer the lease has run out once it has seen the same beat for `lease_seconds` of
its own monotonic clock. So no two wall clocks are ever compared. Who has lost the bus gives back what it holds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from cumulet.clock import Clock
from cumulet.conductor import findings
from cumulet.conductor.beats import Beats
from cumulet.conductor.carried import (
    BACK_OFF_FIRST_SECONDS,
    CHANGE,
    FOUND,
    HELD,
    RENEW,
    RUNNING,
    STUCK_AFTER_ATTEMPTS,
    TAKE,
    WAITING,
    Aborted,
    Carried,
    LeaseLost,
    carried_of,
    due_after,
    failure_of,
    saved,
)
from cumulet.conductor.context import StepContext
from cumulet.conductor.giving_back import OPERATIONS, give_back
from cumulet.conductor.saga import (
    Failure,
    Final,
    Saga,
    Status,
    StepFailed,
    Wishes,
    is_database_step,
    is_host_step,
    operations,
)
from cumulet.conductor.without_bus import WithoutBus
from cumulet.db.engine import Database, Row, Tx
from cumulet.db.fair_queue import before_all_else
from cumulet.errors import ApiError
from cumulet.fleet.hosts import Hosts
from cumulet.host.messages import BusLost, StaleGeneration
from cumulet.settings import Settings
from cumulet.space import Space

log = logging.getLogger(__name__)
T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

MOST_OVERTAKEN = 3
"""So often in a row a step above the line goes past what a host has accepted; then it has failed."""

State = msgspec.Struct
BeforeStep = Callable[[str, str, State], Awaitable[None]]
"""Called with (saga, step, state) before each host step; what it raises is the step's failure. For scripted faults."""


class Runner:
    """Carries operations of the given sagas. `name` is unique per process start."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        settings: Settings,
        hosts: Hosts,
        sagas: Mapping[str, Saga[Any]],
        name: str,
        alone: bool,
        before_step: BeforeStep | None = None,
        space: Space | None = None,
    ) -> None:
        """`space`: the promises of this process on its file system, where it has other users of it too."""
        self.space = space or Space()
        self.db = db
        self.clock = clock
        self.settings = settings
        self.hosts = hosts
        self.sagas = sagas
        self.name = name
        self._alone = alone
        self._before_step = before_step
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._contexts: dict[str, StepContext] = {}
        self._beats = Beats(clock)
        self._bus = WithoutBus(hosts, settings.lease_seconds, alone=alone)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._stopping = False

    # -- life of the runner

    async def start(self) -> None:
        """Begin. A runner that is alone (embedded: the state folder is locked) takes over every lease at once."""
        self._loop = asyncio.get_running_loop()
        if self._alone:
            await self.db.write_async(lambda tx: tx.execute(sa.update(operations).values(lease_owner=None)))
        await self.sweep()
        self._sweeper = asyncio.create_task(self._keep_sweeping(), name="runner-sweep")

    async def stop(self) -> None:
        """Stop carrying. The next start, or another runner, goes on with what ran."""
        self._stopping = True
        tasks = [*self._tasks.values(), *([self._sweeper] if self._sweeper else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def give_back(self) -> None:
        """End what is carried here, and give it to other runners."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        limit = self.settings.lease_seconds / 4
        if await give_back(self.db, OPERATIONS, {"of_owner": self.name}, seconds=limit, said="what was carried"):
            self._bus.given()

    def operation(self, tx: Tx, operation_id: str) -> None:
        """`web.context.Wake`: look at it once `tx` is durable."""
        tx.after_commit(lambda: self.poke(operation_id))

    def poke(self, operation_id: str) -> None:
        """From any thread: look at this operation now."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._look, operation_id)

    def _look(self, operation_id: str) -> None:
        if self._stopping:
            return
        context = self._contexts.get(operation_id)
        if context is not None:
            context.wish.set()
        if operation_id not in self._tasks:
            task = asyncio.create_task(self._carry(operation_id), name=f"operation-{operation_id}")
            self._tasks[operation_id] = task
            task.add_done_callback(lambda done: self._ended(operation_id, done))

    def _ended(self, operation_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(operation_id, None)
        self._contexts.pop(operation_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("operation %s: runner failed; the sweep looks at it", operation_id, exc_info=error)

    async def idle(self) -> None:
        """Wait until no operation is being carried (for stories and shutdown)."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def _keep_sweeping(self) -> None:
        while True:
            await self._bus.pause(self.clock, self.settings.lease_seconds / 4)
            try:
                await (self.give_back() if self._bus.is_due() else self.sweep())
            except Exception:
                log.exception("sweep failed, will retry")

    async def sweep(self) -> None:
        """Renew what we hold, and look at each running operation that nobody holds."""

        def renew_and_find(tx: Tx) -> Sequence[Row]:
            tx.run(RENEW, {"of_owner": self.name})
            return tx.all(RUNNING, {})

        with before_all_else():
            rows = await self.db.write_async(renew_and_find)
        self._beats.see([row for row in rows if row.lease_owner != self.name])
        for row in rows:
            if row.id not in self._tasks and self._is_free(row):
                self._look(row.id)
            elif (held := self._contexts.get(row.id)) and row.lease_owner != self.name and row.revision > held.claimed:
                # Another has taken it since. What we still do for it is in vain, and in the way if that one dies.
                self._tasks[row.id].cancel()

    def _is_free(self, row: Row) -> bool:
        """Whether no other runner holds it, or the one that does has not renewed its lease for `lease_seconds`."""
        patience = self._bus.patience_seconds(held=row.lease_owner is not None)
        return row.lease_owner == self.name or self._beats.unchanged_seconds(row) >= patience

    # -- carrying one operation

    async def _carry(self, operation_id: str) -> None:
        carried = await self.db.write_async(lambda tx: self._claim_and_begin(tx, operation_id))
        if carried is None:
            return
        saga, context, operation = carried
        self._contexts[operation_id] = context
        try:
            while operation.status.running:
                wait_seconds = operation.due_at - self.clock.monotonic()
                if wait_seconds > 0:
                    await context.wait_for_wish(wait_seconds)
                operation = await self._advance(saga, context, operation)
        except LeaseLost:
            log.info("operation %s: another runner has taken it", operation_id)
            return
        if operation.status is Status.DONE and saga.afterwards is not None:
            await saga.afterwards(context, operation.state)

    def _claim_and_begin(self, tx: Tx, operation_id: str) -> tuple[Saga[State], StepContext, Carried[State]] | None:
        """Take the operation, and in the same transaction run the database steps that are next."""
        claimed = self._claim(tx, operation_id)
        if claimed is None:
            return None
        saga, operation = claimed
        context = StepContext(self, operation.id, operation.subject, operation.revision)
        do = saga.next(operation.status, operation.position)
        if do is not None and is_database_step(do):
            try:
                with tx.savepoint():
                    position = operation.position
                    operation = self._save(tx, saga, context, operation, state=operation.state, position=position)
            except DBAPIError:
                raise
            except Exception:
                # The step fails again in `_advance`, which deals with failures.
                log.debug("operation %s: not begun with its claim", operation_id, exc_info=True)
        return saga, context, operation

    def _claim(self, tx: Tx, operation_id: str) -> tuple[Saga[State], Carried[State]] | None:
        row = tx.first(FOUND, {"of_id": operation_id})
        now = self.clock.now_us()
        if row is None or not Status(row.status).running or not self._is_free(row):
            return None
        if row.lease_owner not in (None, self.name):
            done = f"taken over from {row.lease_owner} at step {row.position + 1}"
            findings.note(tx, "operations", f"{row.saga}-without-conductor", done, now_us=now, subject=row.subject)
        tx.run(TAKE, {"of_id": operation_id, "lease_owner": self.name, "revision": row.revision + 1})
        saga = self.sagas[row.saga]
        return saga, carried_of(row, saga.state, revision=row.revision + 1)

    async def _advance(self, saga: Saga[S], context: StepContext, operation: Carried[S]) -> Carried[S]:
        """Run one host step, or several database steps, and save. An exception leads to unwinding or a later retry.

        A host step after which the saga is not saved runs together with the next one.
        """
        do = saga.next(operation.status, operation.position)
        state, position = operation.state, operation.position
        try:
            while do is not None and is_host_step(do):
                if operation.abort and operation.status is Status.FORWARD and position < len(saga.steps):
                    raise Aborted
                context.step = saga.number_of(operation.status, position)
                if self._before_step is not None:
                    await self._before_step(saga.name, do.__name__, state)
                state = await do(context, state)
                step = saga.plan[position]
                position += 1 if operation.status is Status.FORWARD else -1
                if not isinstance(step, Final) or step.saved:
                    break
                do = saga.plan[position].do
            return await self.db.write_async(
                lambda tx: self._save(tx, saga, context, operation, state=state, position=position)
            )
        except (LeaseLost, asyncio.CancelledError, DBAPIError):
            raise  # After a database error the commit is unknown: the sweep reads the row and goes on from there.
        except Exception as error:
            if isinstance(error, BusLost) and self._bus.comes_back:
                return await self.db.write_async(lambda tx: self._ask_again(tx, operation))
            if not isinstance(error, (StepFailed, ApiError)):
                # A host's error has a coded reason and is expected; anything else is a defect and needs its traceback.
                trace = None if hasattr(error, "reason") else error
                log.warning("operation %s (%s): %r", operation.id, saga.name, error, exc_info=trace)
            if isinstance(error, StaleGeneration) and (past := await self._past(saga, context, operation, error)):
                return past
            return await self._save_failure(saga, operation, failure_of(error))

    def _ask_again(self, tx: Tx, operation: Carried[S]) -> Carried[S]:
        """After the bus was lost: the step is begun again in a second, here or by another runner; or it is aborted."""
        abort, times = self._check_held(tx, operation), operation.unanswered + 1
        due_at = due_after(self.clock, min(times, 4)) if abort == operation.abort else 0.0
        return operation.changed(abort=abort, attempts=operation.attempts, due_at=due_at, unanswered=times)

    async def _past(
        self, saga: Saga[S], context: StepContext, operation: Carried[S], stale: StaleGeneration
    ) -> Carried[S] | None:
        """The operation, as it is asked again after a host was ahead of the records. None: the step has failed.

        Only whoever still holds the operation may do that: to others a host refuses what is out of date.
        """
        above = operation.status is Status.FORWARD and operation.position < len(saga.steps)
        if saga.overtaken is None or (above and operation.attempts >= MOST_OVERTAKEN):
            return None
        catch_up = await saga.overtaken(context, operation.state, stale)
        if catch_up is None:
            return None

        def save(tx: Tx) -> Carried[S]:
            abort, attempts = self._check_held(tx, operation), operation.attempts + 1
            state, due_at = catch_up(tx, context, operation.state), due_after(self.clock, attempts)
            return self._store(tx, operation.changed(abort=abort, state=state, attempts=attempts, due_at=due_at))

        return await self.db.write_async(save)

    def _save(
        self, tx: Tx, saga: Saga[S], context: StepContext, operation: Carried[S], *, state: S, position: int
    ) -> Carried[S]:
        """In one transaction: check the lease, run the database steps that follow, save, end if done."""
        abort = self._check_held(tx, operation)
        status, error = operation.status, operation.error
        plan = saga.plan
        while status is Status.FORWARD and position < len(plan) and is_database_step(do := plan[position].do):
            if abort and saga.may_unwind_at(position):
                status, error = Status.UNWINDING, Aborted().failure
                position = min(position, len(saga.steps) - 1)
                break
            saga.show(tx, context, state, position)
            try:
                with tx.savepoint():
                    state = do(tx, context, state)
                position += 1
            except (StepFailed, ApiError) as problem:
                if isinstance(plan[position], Final):
                    raise
                status, error = Status.UNWINDING, failure_of(problem)
        if status is Status.FORWARD and position < len(plan):
            saga.show(tx, context, state, position)
        while status is Status.UNWINDING and position >= 0 and is_database_step(undo := saga.steps[position].undo):
            state = undo(tx, context, state)
            position -= 1
        if status is Status.FORWARD and position == len(plan):
            status = Status.DONE
        elif status is Status.UNWINDING and position < 0:
            saga.unwound(tx, context, state, cast("Failure", error))
            status = Status.UNWOUND
        changed = operation.changed(status=status, position=position, state=state, error=error, abort=abort)
        return self._store(tx, changed)

    def _store(self, tx: Tx, operation: Carried[S], *, stuck_cause: str | None = None) -> Carried[S]:
        """Save it as it is now; its revision is still the one that its row has."""
        now = self.clock.now_us()
        stored = msgspec.structs.replace(operation, revision=operation.revision + 1)
        if not saved(tx, stored, held_by=self.name, now_us=now, stuck_cause=stuck_cause):
            raise LeaseLost(operation.id)
        if not stored.status.running:
            self._promote(tx, stored.subject, now)
        return stored

    def _promote(self, tx: Tx, subject: str, now_us: int) -> None:
        """The oldest operation that waits for this subject runs now."""
        waiting = tx.first(WAITING, {"of_subject": subject})
        if waiting is not None:
            tx.run(CHANGE, {"of_id": waiting.id, "status": Status.FORWARD, "updated_at_us": now_us})
            self.operation(tx, waiting.id)

    async def _save_failure(self, saga: Saga[S], operation: Carried[S], failure: Failure) -> Carried[S]:
        """After a failed step above the line: unwind. After a failed undo or final: retry; past a cap it is stuck."""
        above = operation.status is Status.FORWARD and operation.position < len(saga.steps)

        def save(tx: Tx) -> Carried[S]:
            self._check_held(tx, operation)
            if above:
                return self._store(tx, operation.changed(status=Status.UNWINDING, error=failure))
            attempts = operation.attempts + 1
            cause = failure.private or failure.public if attempts >= STUCK_AFTER_ATTEMPTS else None
            changed = operation.changed(attempts=attempts, due_at=due_after(self.clock, attempts))
            return self._store(tx, changed, stuck_cause=cause)

        while True:
            try:
                return await self.db.write_async(save)
            except DBAPIError:
                # The database is away: nothing can be decided until it is back.
                log.exception("operation %s: cannot save, will retry", operation.id)
                await self.clock.sleep(BACK_OFF_FIRST_SECONDS * (1 + self.clock.random()))

    def _check_held(self, tx: Tx, operation: Carried[S]) -> bool:
        """LeaseLost unless the row is as this runner saved it; answers whether a user asked to abort."""
        row = tx.first(HELD, {"of_id": operation.id})
        if row is None or row.lease_owner != self.name or row.revision != operation.revision:
            raise LeaseLost(operation.id)
        return bool(row.abort_requested)

    def record_held(self, tx: Tx, operation_id: str, fn: Callable[[Tx], None]) -> Wishes:
        """Run `fn` if we hold the operation; answer its wishes."""
        row = tx.first(HELD, {"of_id": operation_id})
        if row is None or row.lease_owner != self.name:
            raise LeaseLost(operation_id)
        fn(tx)
        return Wishes(abort=row.abort_requested, force=row.force_requested)
