"""What has become of a guest, as its host says at the end of an undo."""

from __future__ import annotations

import logging

from cumulet.compute import hosts as host_records
from cumulet.compute.operations import OnHost, command, unless_down
from cumulet.conductor.saga import Context
from cumulet.host import messages as m
from cumulet.host.driver import GuestState
from cumulet.host.looking import SINCE_PROTOCOL, Look

log = logging.getLogger(__name__)


async def look(context: Context, state: OnHost) -> GuestState | None:
    """The guest's state, by `Look`, after which its host refuses late commands. An agent that does not know `Look` is
    only asked with `Observe`.

    None: nothing can be said. The host is down, or is ahead of the records; or the guest's process is there and does
    not answer. Then the reconciler looks again, and whoever waits for the operation to end may end the process.
    """
    kind = await context.read(lambda tx: host_records.kind_of(tx, state.host))
    if kind.protocol < SINCE_PROTOCOL:
        question: m.Message[GuestState] = m.Observe(server_id=state.server_id)
    else:
        question = Look(**command(context, state))
    try:
        return await unless_down(context, state.host, question)
    except m.StaleGeneration:  # `compute.restored`; who has lost the operation cannot save it.
        return None
    except m.VerbFailed as error:
        if not error.hangs:
            raise
        log.warning("%s on %s: %s", state.server_id, state.host, error)
        return None
