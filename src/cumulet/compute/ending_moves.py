"""The end of a cloud whose guests end with it: moves end first, because no verb stops both processes of a guest."""

from __future__ import annotations

import asyncio
import contextlib

import sqlalchemy as sa

from cumulet.conductor.runner import Runner
from cumulet.conductor.saga import Status, operations, request_abort
from cumulet.db.engine import Database, Tx

END_MOVES_SECONDS = 20.0
_MOVING = sa.select(operations.c.id).where(
    operations.c.saga.in_(("live-migration", "resize", "snapshot", "shelve")),
    operations.c.status == Status.FORWARD,
)


async def end_moves(db: Database, runner: Runner) -> None:
    """End moves, and whatever else has two processes of a guest, by abort or by completion."""

    def abort(tx: Tx) -> None:
        for row in tx.all(_MOVING):
            request_abort(tx, runner, row.id)

    await db.write_async(abort)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_MOVES_SECONDS):
            await runner.idle()
