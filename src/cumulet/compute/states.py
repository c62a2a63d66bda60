"""Which action is allowed in which state: one table, and the one refusal (409) in Nova's words."""

from __future__ import annotations

import msgspec

from cumulet.compute.half_made import is_half_made
from cumulet.compute.model import Server, VmState
from cumulet.errors import Conflict
from cumulet.web.operation import Caller

ACTIVE, PAUSED, SUSPENDED, STOPPED = VmState.ACTIVE, VmState.PAUSED, VmState.SUSPENDED, VmState.STOPPED
RESIZED, RESCUED, ERROR = VmState.RESIZED, VmState.RESCUED, VmState.ERROR
SHELVED, SHELVED_OFFLOADED = VmState.SHELVED, VmState.SHELVED_OFFLOADED

IDLE: frozenset[str | None] = frozenset({None})
"""No task running: what almost every action needs."""
MIGRATING: frozenset[str | None] = frozenset({"migrating"})
REBOOT_ALLOWED: frozenset[str | None] = frozenset(
    {
        None,
        "rebooting",
        "reboot_pending",
        "reboot_started",
        "resuming",
        "rebooting_hard",
        "unpausing",
        "pausing",
        "suspending",
    }
)


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """When an action may begin. None: in any state. `word`: how the refusal names it, if not by the action's key."""

    vm_states: frozenset[VmState] | None = None
    task_states: frozenset[str | None] | None = IDLE
    launched: bool = True
    """Whether the server must have run at least once."""
    lockable: bool = True
    """Whether a lock stops it (an administrator is never stopped)."""
    on_host: bool = False
    """Whether it is looked at first whether the server has a host, before its state."""
    hostless: bool = False
    """Whether it needs no host at all."""
    anew: bool = False
    """Whether it makes the guest anew: the others need one that was not made by half."""
    word: str | None = None


def _in(*states: VmState) -> frozenset[VmState]:
    return frozenset(states)


WITH_RECORD = _in(ACTIVE, PAUSED, SUSPENDED, STOPPED)
"""Where a server's metadata and tags may change."""
ALLOWED: dict[str, Allowed] = {
    "os-start": Allowed(vm_states=_in(STOPPED), on_host=True, word="start"),
    "os-stop": Allowed(vm_states=_in(ACTIVE, ERROR), on_host=True, word="stop"),
    "reboot-soft": Allowed(vm_states=_in(ACTIVE), word="reboot"),
    "reboot-hard": Allowed(
        vm_states=_in(ACTIVE, STOPPED, PAUSED, SUSPENDED, ERROR), task_states=REBOOT_ALLOWED, word="reboot"
    ),
    "pause": Allowed(vm_states=_in(ACTIVE)),
    "unpause": Allowed(vm_states=_in(PAUSED)),
    "suspend": Allowed(vm_states=_in(ACTIVE)),
    "resume": Allowed(vm_states=_in(SUSPENDED)),
    "delete": Allowed(task_states=None, launched=False, hostless=True),
    "forceDelete": Allowed(task_states=None, launched=False, hostless=True),
    "restore": Allowed(vm_states=_in(), hostless=True),
    "os-migrateLive": Allowed(vm_states=_in(ACTIVE, PAUSED)),
    "force_complete": Allowed(vm_states=_in(ACTIVE), task_states=MIGRATING),
    "abort": Allowed(task_states=MIGRATING, word="abort live migration"),
    "migrate": Allowed(vm_states=_in(ACTIVE, STOPPED)),
    "resize": Allowed(vm_states=_in(ACTIVE, STOPPED)),
    "confirmResize": Allowed(vm_states=_in(RESIZED)),
    "revertResize": Allowed(vm_states=_in(RESIZED)),
    "rebuild": Allowed(vm_states=_in(ACTIVE, STOPPED, ERROR), anew=True),
    "evacuate": Allowed(vm_states=_in(ACTIVE, STOPPED, ERROR), task_states=None, lockable=False, anew=True),
    "rescue": Allowed(vm_states=_in(ACTIVE, STOPPED, ERROR)),
    "unrescue": Allowed(vm_states=_in(RESCUED)),
    "shelve": Allowed(vm_states=_in(ACTIVE, STOPPED, PAUSED, SUSPENDED)),
    "shelveOffload": Allowed(vm_states=_in(SHELVED)),
    "unshelve": Allowed(vm_states=_in(SHELVED, SHELVED_OFFLOADED), hostless=True),
    "changePassword": Allowed(vm_states=_in(ACTIVE)),
    "createImage": Allowed(vm_states=_in(ACTIVE, STOPPED, PAUSED, SUSPENDED), lockable=False),
    "createBackup": Allowed(vm_states=_in(ACTIVE, STOPPED, PAUSED, SUSPENDED), lockable=False),
    "trigger_crash_dump": Allowed(vm_states=_in(ACTIVE, PAUSED, RESCUED, RESIZED, ERROR), on_host=True),
    "attach_interface": Allowed(vm_states=_in(ACTIVE, PAUSED, STOPPED)),
    "detach_interface": Allowed(vm_states=_in(ACTIVE, PAUSED, STOPPED)),
    **dict.fromkeys(
        ("update metadata", "delete metadata"), Allowed(vm_states=WITH_RECORD, task_states=None, hostless=True)
    ),
    **dict.fromkeys(
        ("update tag", "update tags", "delete tag", "delete tags"),
        Allowed(vm_states=WITH_RECORD, task_states=None, launched=False, lockable=False, hostless=True),
    ),
}
"""By the API's action key. States that no server here has (soft-deleted) are left out."""


def require_state(server: Server, action: str, caller: Caller) -> None:
    """Refuse with 409, in Nova's order (lock, host, state), unless `action` may begin on `server` now."""
    allowed = ALLOWED[action]
    word = allowed.word or action
    if allowed.lockable and server.locked and not caller.is_admin:
        raise Conflict(f"Instance {server.id} is locked", reason="LOCKED")
    if allowed.on_host and server.host is None:
        raise _not_ready(server)
    fits = allowed.vm_states is None or server.vm_state in allowed.vm_states
    if not fits or (is_half_made(server) and allowed.vm_states is not None and not allowed.anew):
        raise _refusal(server, word, "vm_state", server.vm_state.value)
    if allowed.task_states is not None and server.task_state not in allowed.task_states:
        raise _refusal(server, word, "task_state", server.task_state)
    if allowed.launched and server.launched_at_us is None:
        raise _refusal(server, word, "launched_at", None)
    if server.host is None and not allowed.hostless:
        raise _not_ready(server)


def _not_ready(server: Server) -> Conflict:
    return Conflict(f"Instance {server.id} is not ready", reason="NOT_READY")


def _refusal(server: Server, word: str, attribute: str, value: str | None) -> Conflict:
    if value is None:
        return Conflict(f"Instance {server.id} is in an invalid state for '{word}'", reason="WRONG_STATE")
    return Conflict(f"Cannot '{word}' instance {server.id} while it is in {attribute} {value}", reason="WRONG_STATE")
