"""An operation that a host refuses as out of date although its runner holds it: the records are those of a backup.

See `compute.restored`.
"""

from __future__ import annotations

import logging
from typing import TypeVar

import msgspec

from cumulet.compute import operations
from cumulet.compute.boot import Boot
from cumulet.compute.deletion import Deletion
from cumulet.compute.moves import Moving
from cumulet.compute.operations import OnHost
from cumulet.compute.rebuild import Rebuilding
from cumulet.compute.resize_outcome import Outcome
from cumulet.compute.restored import BEHIND, CAUGHT_UP, is_believed
from cumulet.compute.store import get_server, update_server
from cumulet.conductor import findings
from cumulet.conductor.saga import Context, DatabaseStep
from cumulet.db.engine import Tx
from cumulet.host.driver import GuestState
from cumulet.host.messages import HostError, StaleGeneration

log = logging.getLogger(__name__)
S = TypeVar("S", bound=OnHost | Boot | Deletion | Moving | Outcome)


async def overtaken(context: Context, state: S, stale: StaleGeneration) -> DatabaseStep[S] | None:
    """`Saga.overtaken` of compute's operations: the operation goes on with a generation that the host accepts.

    Not where that could cost the only copy of a guest which came after the records: what runs where the server is
    recorded is its guest, what there is elsewhere may be newer. Who deletes or rebuilds a server has decided about it.
    """
    accepted, host = stale.accepted, stale.host
    if accepted is None or host is None:
        return None
    if accepted < state.generation or not is_believed(accepted, state.generation):
        return None
    if not isinstance(state, Deletion | Rebuilding):
        try:
            there = await operations.observe(context, host, state.server_id) is not GuestState.ABSENT
        except HostError:
            return None
        server = await context.read(lambda tx: get_server(tx, state.server_id, deleted=True))
        is_its_own = server.host == host and not isinstance(state, Boot)  # A boot has only just claimed the host.
        if there is not is_its_own:
            return None

    def past(tx: Tx, context: Context, state: S) -> S:
        now_us, server = context.clock.now_us(), get_server(tx, state.server_id, deleted=True)
        generation = max(accepted, server.generation) + 1
        update_server(tx, server, now_us=now_us, generation=generation)
        findings.note(tx, "operations", BEHIND, CAUGHT_UP, now_us=now_us, host=host, subject=server.id)
        log.warning("%s is ahead of the records of server %s: generation %d", host, server.id, generation)
        return msgspec.structs.replace(state, generation=generation)

    return past
