"""What users do to a server besides moving it: power, locks, its state on record, its console."""

from __future__ import annotations

import re
from typing import Annotated

from cumulet.compute import operations, shelved
from cumulet.compute.deletion import begin_delete
from cumulet.compute.half_made import is_half_made
from cumulet.compute.model import Server, VmState
from cumulet.compute.operations import NO_FAULT
from cumulet.compute.power import Verb, begin_power
from cumulet.compute.rules import ADMIN, MEMBER
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.compute.states import require_state
from cumulet.compute.store import new_action, update_server
from cumulet.conductor.saga import running_operation
from cumulet.errors import Conflict, NotFound
from cumulet.host.messages import HostError
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Anything, Body, Convert, Json

START = rule("os_compute_api:servers:start", MEMBER)
STOP = rule("os_compute_api:servers:stop", MEMBER)
REBOOT = rule("os_compute_api:servers:reboot", MEMBER)
PAUSE = rule("os_compute_api:os-pause-server:pause", MEMBER)
UNPAUSE = rule("os_compute_api:os-pause-server:unpause", MEMBER)
SUSPEND = rule("os_compute_api:os-suspend-server:suspend", MEMBER)
RESUME = rule("os_compute_api:os-suspend-server:resume", MEMBER)
LOCK = rule("os_compute_api:os-lock-server:lock", MEMBER)
UNLOCK = rule("os_compute_api:os-lock-server:unlock", MEMBER)
UNLOCK_OVERRIDE = rule("os_compute_api:os-lock-server:unlock:unlock_override", ADMIN)
RESET_STATE = rule("os_compute_api:os-admin-actions:reset_state", ADMIN)
CONSOLE_OUTPUT = rule("os_compute_api:os-console-output", MEMBER)
INJECT_NETWORK_INFO = rule("os_compute_api:os-admin-actions:inject_network_info", ADMIN)
RESTORE = rule("os_compute_api:os-deferred-delete:restore", MEMBER)
FORCE_DELETE = rule("os_compute_api:os-deferred-delete:force", MEMBER)

PATH = "/servers/{server_id}/action"
LONGEST_CONSOLE = 100 * 1024
"""Bytes; Nova's hypervisors keep as much."""
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f]")


class Reboot(Body):
    type: Annotated[str, Json({"enum": ["HARD", "Hard", "hard", "SOFT", "Soft", "soft"]}), Convert(str.lower)]


class LockWithReason(Body, nullable=True):
    locked_reason: Annotated[str | None, Json({"type": "string", "minLength": 1, "maxLength": 255})] = None


class ResetState(Body):
    state: Annotated[VmState, Json({"enum": ["active", "error"]})]


class ConsoleOutput(Body):
    length: Annotated[
        int | None,
        Convert(int),
        Json({"type": ["integer", "string", "null"], "pattern": "^-?[0-9]+$", "minimum": -1, "maxLength": 20}),
    ] = None


# -- power


@COMPUTE.operation(
    "POST", PATH, action="os-start", rules=(Rule(START),), target=server_in_sight, body=Anything, success=202
)
def start_server(call: Call[Server, Anything]) -> None:
    """Start a stopped server."""
    require_state(call.target, "os-start", call.caller)
    begin_power(call, call.target, Verb.START)


@COMPUTE.operation(
    "POST", PATH, action="os-stop", rules=(Rule(STOP),), target=server_in_sight, body=Anything, success=202
)
def stop_server(call: Call[Server, Anything]) -> None:
    """Stop a server: ask its system to shut down, then power it off."""
    require_state(call.target, "os-stop", call.caller)
    begin_power(call, call.target, Verb.STOP)


@COMPUTE.operation(
    "POST", PATH, action="reboot", rules=(Rule(REBOOT),), target=server_in_sight, body=Reboot, success=202
)
def reboot_server(call: Call[Server, Reboot]) -> None:
    """Reboot a server, softly or hard."""
    soft = call.body.type == "soft"
    require_state(call.target, "reboot-soft" if soft else "reboot-hard", call.caller)
    begin_power(call, call.target, Verb.REBOOT_SOFT if soft else Verb.REBOOT_HARD)


@COMPUTE.operation(
    "POST", PATH, action="pause", rules=(Rule(PAUSE),), target=server_in_sight, body=Anything, success=202
)
def pause_server(call: Call[Server, Anything]) -> None:
    """Pause a server: it stands still, in memory."""
    require_state(call.target, "pause", call.caller)
    begin_power(call, call.target, Verb.PAUSE)


@COMPUTE.operation(
    "POST", PATH, action="unpause", rules=(Rule(UNPAUSE),), target=server_in_sight, body=Anything, success=202
)
def unpause_server(call: Call[Server, Anything]) -> None:
    """Let a paused server run on."""
    require_state(call.target, "unpause", call.caller)
    begin_power(call, call.target, Verb.UNPAUSE)


@COMPUTE.operation(
    "POST", PATH, action="suspend", rules=(Rule(SUSPEND),), target=server_in_sight, body=Anything, success=202
)
def suspend_server(call: Call[Server, Anything]) -> None:
    """Save a server's memory to disk and stop it."""
    require_state(call.target, "suspend", call.caller)
    begin_power(call, call.target, Verb.SUSPEND)


@COMPUTE.operation(
    "POST", PATH, action="resume", rules=(Rule(RESUME),), target=server_in_sight, body=Anything, success=202
)
def resume_server(call: Call[Server, Anything]) -> None:
    """Restore a suspended server."""
    require_state(call.target, "resume", call.caller)
    begin_power(call, call.target, Verb.RESUME)


@COMPUTE.operation(
    "POST", PATH, action="forceDelete", rules=(Rule(FORCE_DELETE),), target=server_in_sight, body=Anything, success=202
)
def force_delete_server(call: Call[Server, Anything]) -> None:
    """Delete a server now; servers are never kept back here, so this is DELETE by another name."""
    require_state(call.target, "forceDelete", call.caller)
    begin_delete(call, call.target)


@COMPUTE.operation(
    "POST", PATH, action="restore", rules=(Rule(RESTORE),), target=server_in_sight, body=Anything, success=202
)
def restore_server(call: Call[Server, Anything]) -> None:
    """Restore a deleted server: refused, as no server is kept back once it is deleted, which is upstream's default."""
    require_state(call.target, "restore", call.caller)


@COMPUTE.operation(
    "POST",
    PATH,
    action="injectNetworkInfo",
    rules=(Rule(INJECT_NETWORK_INFO),),
    target=server_in_sight,
    body=Anything,
    success=202,
)
def inject_network_info(call: Call[Server, Anything]) -> None:
    """Put a server's network info in force at its host. Nothing is done: changes are in force within about a second.

    Upstream's drivers do nothing either.
    """
    if call.target.locked and not call.caller.is_admin:
        raise Conflict(f"Instance {call.target.id} is locked", reason="LOCKED")


# -- locks


@COMPUTE.operation(
    "POST", PATH, action="lock", rules=(Rule(LOCK),), target=server_in_sight, body=Anything, success=202, until="2.72"
)
def lock_server(call: Call[Server, Anything]) -> None:
    """Lock a server: only administrators change it from now on."""
    _lock(call, None)


@COMPUTE.operation(
    "POST",
    PATH,
    action="lock",
    rules=(Rule(LOCK),),
    target=server_in_sight,
    body=LockWithReason,
    success=202,
    since="2.73",
)
def lock_server_with_reason(call: Call[Server, LockWithReason]) -> None:
    """Lock a server, saying why."""
    _lock(call, call.body.locked_reason)


def _lock(call: Call[Server, object], reason: str | None) -> None:
    server = call.target
    owner = server.project_id == call.caller.project_id
    if server.locked and owner:
        return
    update_server(
        call.tx,
        server,
        now_us=call.now_us,
        locked=True,
        locked_by="owner" if owner else "admin",
        locked_reason=reason or server.locked_reason,
    )
    record_done(call, server, "lock", event="api_lock")


@COMPUTE.operation(
    "POST", PATH, action="unlock", rules=(Rule(UNLOCK),), target=server_in_sight, body=Anything, success=202
)
def unlock_server(call: Call[Server, Anything]) -> None:
    """Unlock a server; what an administrator locked, only one may unlock."""
    server = call.target
    by = "owner" if server.project_id == call.caller.project_id else "admin"
    if server.locked_by and server.locked_by != by:
        call.require(UNLOCK_OVERRIDE)
    update_server(call.tx, server, now_us=call.now_us, locked=False, locked_by=None, locked_reason=None)
    record_done(call, server, "unlock", event="api_unlock")


# -- the record


@COMPUTE.operation(
    "POST",
    PATH,
    action="os-resetState",
    rules=(Rule(RESET_STATE),),
    target=server_in_sight,
    body=ResetState,
    success=202,
)
def reset_server_state(call: Call[Server, ResetState]) -> None:
    """Say that a server is active, with no fault, or in error. Not while an operation runs: its end would undo this.

    One that was shelved is so no more: the image that it was shelved to is its owner's from now on. One that was taken
    off its host stays as it is: that image is all that there is of it, and only an unshelve makes a guest of it.
    """
    if running_operation(call.tx, call.target.id) is not None:
        raise Conflict(
            f"Cannot 'os-resetState' instance {call.target.id} while an operation is running on it",
            reason="OPERATION_RUNNING",
        )
    if call.body.state is VmState.ACTIVE and is_half_made(call.target):
        raise Conflict(
            f"Cannot 'os-resetState' instance {call.target.id} to active: {call.target.fault_message} It has no guest "
            "until it is rebuilt or evacuated, or its host is back.",
            reason="HALF_MADE",
        )
    if call.target.vm_state is VmState.SHELVED_OFFLOADED:
        raise Conflict(
            f"Cannot 'os-resetState' instance {call.target.id} while it is in vm_state shelved_offloaded: it has no "
            "guest until it is unshelved",
            reason="NO_GUEST",
        )
    changes: dict[str, object] = dict(NO_FAULT) if call.body.state is VmState.ACTIVE else {}
    if call.target.vm_state is VmState.SHELVED:
        changes["system_metadata"] = operations.metadata_without(call.tx, call.target.id, *shelved.KEYS)
    update_server(call.tx, call.target, now_us=call.now_us, vm_state=call.body.state, task_state=None, **changes)
    record_done(call, call.target, "resetState")


def record_done(call: Call[Server, object], server: Server, action: str, *, event: str | None = None) -> None:
    """Record an instance action that was over at once, with its event if it has one."""
    action_id = new_action(
        call.tx,
        server.id,
        action,
        request_id=call.request_id,
        user_id=call.caller.user_id,
        project_id=call.caller.project_id,
        now_us=call.now_us,
    )
    if event is not None:
        operations.start_event(call.tx, action_id, event, host=server.host, now_us=call.now_us)
    operations.finish_events(call.tx, action_id, now_us=call.now_us)


# -- the console


@COMPUTE.operation(
    "POST",
    PATH,
    action="os-getConsoleOutput",
    rules=(Rule(CONSOLE_OUTPUT),),
    target=server_in_sight,
    body=ConsoleOutput,
)
async def console_output(call: Call[Server, ConsoleOutput]) -> dict[str, str]:
    """The newest lines of a server's serial console: all that is kept, or `length` lines."""
    server, lines = call.target, call.body.length
    if server.host is None:
        raise Conflict(f"Instance {server.id} is not ready", reason="NOT_READY")
    if lines == 0:
        return {"output": ""}
    try:
        raw = await call.cloud.hosts.console_output(server.host, server.id, max_bytes=LONGEST_CONSOLE)
    except HostError as error:  # It does not answer, or has no such guest.
        raise NotFound(
            f"Guest does not have a console available: {server.id}", private=str(error), reason=error.reason
        ) from None
    text = raw.decode("utf-8", "replace")
    if lines is not None and lines > 0:
        text = "\n".join(text.split("\n")[-lines:])
    return {"output": _UNPRINTABLE.sub("", text)}
