"""Statuses in Nova's words: a server's, which follows from its vm_state and task state, and its host's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cumulet.compute.server_shapes import HostRow, ServerRow

_STATUS: dict[str, tuple[str, Mapping[str, str]]] = {
    "active": (
        "ACTIVE",
        {
            "rebooting": "REBOOT", "reboot_pending": "REBOOT", "reboot_started": "REBOOT",
            "rebooting_hard": "HARD_REBOOT", "reboot_pending_hard": "HARD_REBOOT",
            "reboot_started_hard": "HARD_REBOOT", "updating_password": "PASSWORD", "rebuilding": "REBUILD",
            "rebuild_block_device_mapping": "REBUILD", "rebuild_spawning": "REBUILD", "migrating": "MIGRATING",
            "resize_prep": "RESIZE", "resize_migrating": "RESIZE", "resize_migrated": "RESIZE",
            "resize_finish": "RESIZE",
        },
    ),
    "building": ("BUILD", {}),
    "stopped": (
        "SHUTOFF",
        {
            "resize_prep": "RESIZE", "resize_migrating": "RESIZE", "resize_migrated": "RESIZE",
            "resize_finish": "RESIZE", "rebuilding": "REBUILD", "rebuild_block_device_mapping": "REBUILD",
            "rebuild_spawning": "REBUILD",
        },
    ),
    "resized": ("VERIFY_RESIZE", {"resize_reverting": "REVERT_RESIZE"}),
    "paused": ("PAUSED", {"migrating": "MIGRATING"}),
    "suspended": ("SUSPENDED", {}), "rescued": ("RESCUE", {}),
    "shelved": ("SHELVED", {}), "shelved_offloaded": ("SHELVED_OFFLOADED", {}),
    "error": (
        "ERROR",
        {"rebuilding": "REBUILD", "rebuild_block_device_mapping": "REBUILD", "rebuild_spawning": "REBUILD"},
    ),
    "deleted": ("DELETED", {}),
}  # fmt: skip
"""Nova's status of a vm_state: its own, and the task states that change it."""

_OTHER_STATES = {"soft-delete": "SOFT_DELETED", "shelved": "SHELVED"}


def status_of(vm_state: str, task_state: str | None, *, deleted: bool = False) -> str:
    """The one word users see."""
    if deleted:
        return "DELETED"
    default, by_task = _STATUS[vm_state]
    return by_task.get(task_state, default) if task_state is not None else default


def states_of(statuses: Iterable[str]) -> tuple[set[str], set[str]]:
    """vm_states and task_states that show as one of `statuses`. "default": a task state without its own status."""
    wanted = {status.lower() for status in statuses}
    vm_states = {state for state, status in _OTHER_STATES.items() if status.lower() in wanted}
    task_states = {"default"} if vm_states else set()
    for vm_state, (default, by_task) in _STATUS.items():
        if default.lower() in wanted:
            vm_states.add(vm_state)
            task_states.add("default")
        matching = {task for task, status in by_task.items() if status.lower() in wanted}
        if matching:
            vm_states.add(vm_state)
            task_states |= matching
    return vm_states, task_states


def host_status(host: HostRow | None, row: ServerRow) -> str:
    """In Nova's order: what an administrator has declared counts before what was observed."""
    if row.host is None or host is None:
        return ""
    if host.forced_down:
        return "DOWN"
    if host.disabled:
        return "MAINTENANCE"
    return "UP" if host.up else "UNKNOWN"
