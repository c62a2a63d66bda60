"""trigger_crash_dump: a non-maskable interrupt for a guest, which dumps its memory if it is set up to."""

from __future__ import annotations

from cumulet.compute import attribute_types as t
from cumulet.compute import operations
from cumulet.compute.model import Server
from cumulet.compute.operations import SERVER, OnHost, command
from cumulet.compute.rules import MEMBER
from cumulet.compute.server_actions import PATH
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.compute.states import require_state
from cumulet.conductor.saga import Context, Failure, Final, Saga, Step, nothing
from cumulet.db.engine import Tx
from cumulet.host.crash_dump import InjectNmi
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule

TRIGGER = rule("os_compute_api:servers:trigger_crash_dump", MEMBER)


@COMPUTE.operation(
    "POST",
    PATH,
    action="trigger_crash_dump",
    rules=(Rule(TRIGGER),),
    target=server_in_sight,
    body=t.Nothing,
    success=202,
    since="2.17",
)
def trigger_crash_dump(call: Call[Server, t.Nothing]) -> None:
    """Send a server a non-maskable interrupt."""
    require_state(call.target, "trigger_crash_dump", call.caller)
    operations.begin(
        call,
        call.target,
        CRASH_DUMP,
        lambda *begun: CrashDump(**operations.on_host(*begun)),
        action="trigger_crash_dump",
        event="compute_trigger_crash_dump",
        task_state=None,
    )


class CrashDump(OnHost, frozen=True, kw_only=True):
    """State of the saga."""


async def inject_nmi(context: Context, state: CrashDump) -> CrashDump:
    """After a crash of this process the guest may get a second interrupt, which does no harm."""
    await context.hosts.send(state.host, InjectNmi(**command(context, state)))
    return state


def record_done(tx: Tx, context: Context, state: CrashDump) -> CrashDump:
    operations.finish_events(tx, state.action_id, now_us=context.clock.now_us())
    return state


def unwound(tx: Tx, context: Context, state: CrashDump, failure: Failure) -> None:
    operations.finish_events(tx, state.action_id, now_us=context.clock.now_us(), failure=failure)


CRASH_DUMP = Saga(
    name="crash-dump",
    kind=SERVER,
    state=CrashDump,
    # An interrupt cannot be taken back.
    steps=(Step(inject_nmi, undo=nothing),),
    finals=(Final(record_done),),
    unwound=unwound,
)
