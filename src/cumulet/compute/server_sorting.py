"""The order of a list of servers: Nova's sort keys, and where a page begins."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from cumulet.compute.store import hosts, servers
from cumulet.errors import BadRequest, Forbidden
from cumulet.web.operation import Call

SORT_KEYS = (
    "access_ip_v4", "access_ip_v6", "auto_disk_config", "availability_zone", "config_drive", "created_at",
    "display_description", "display_name", "host", "hostname", "image_ref", "instance_type_id", "kernel_id",
    "key_name", "launch_index", "launched_at", "locked_by", "node", "power_state", "progress", "project_id",
    "ramdisk_id", "root_device_name", "task_state", "terminated_at", "updated_at", "user_id", "uuid", "vm_state",
)  # fmt: skip
IGNORED_SORT_KEYS = (
    "architecture", "cell_name", "cleaned", "default_ephemeral_device", "default_swap_device", "deleted",
    "deleted_at", "disable_terminate", "ephemeral_gb", "ephemeral_key_uuid", "id", "key_data", "launched_on",
    "locked", "memory_mb", "os_type", "reservation_id", "root_gb", "shutdown_terminate", "user_data", "vcpus",
    "vm_mode",
)  # fmt: skip

Order = list[tuple[sa.ColumnElement[Any], bool]]

ZONE: sa.ColumnElement[str] = sa.func.coalesce(
    sa.select(hosts.c.zone).where(hosts.c.name == servers.c.host).scalar_subquery(), servers.c.requested_zone, ""
)
"""The zone of the server's host; without a host, the one that was asked for."""


def _no_null(column: object, stand_in: object) -> Any:
    return sa.func.coalesce(column, stand_in)


_ORDER: dict[str, sa.ColumnElement[Any]] = {
    "access_ip_v4": _no_null(servers.c.access_ipv4, ""), "access_ip_v6": _no_null(servers.c.access_ipv6, ""),
    "auto_disk_config": servers.c.disk_config, "availability_zone": ZONE, "config_drive": servers.c.config_drive,
    "created_at": servers.c.created_at_us, "display_description": _no_null(servers.c.description, ""),
    "display_name": servers.c.name, "host": _no_null(servers.c.host, ""), "hostname": servers.c.hostname,
    "image_ref": _no_null(servers.c.image_id, ""), "instance_type_id": servers.c.flavor["flavor_id"].as_string(),
    "key_name": _no_null(servers.c.key_name, ""), "launch_index": servers.c.launch_index,
    "launched_at": _no_null(servers.c.launched_at_us, 0), "locked": servers.c.locked,
    "locked_by": _no_null(servers.c.locked_by, ""), "node": _no_null(servers.c.host, ""),
    "power_state": servers.c.power_state, "progress": servers.c.progress, "project_id": servers.c.project_id,
    "task_state": _no_null(servers.c.task_state, ""), "terminated_at": _no_null(servers.c.terminated_at_us, 0),
    "updated_at": servers.c.updated_at_us, "user_id": servers.c.user_id, "uuid": servers.c.id,
    "vm_state": servers.c.vm_state,
}  # fmt: skip
"""Sort keys. Those that are the same for every server are left out."""


def order_of(call: Call[object, object]) -> Order:
    """Pairs (column, descending). The last is the row's number, so that every order is total."""
    keys = [key.strip() for key in call.query.getall("sort_key")]
    directions = [direction.strip() for direction in call.query.getall("sort_dir")]
    since_2_73 = "locked" if call.version.at_least("2.73") else None
    kept: dict[str, str | None] = {}
    for index, key in enumerate(keys):
        if key in IGNORED_SORT_KEYS and key != since_2_73:
            continue
        if key in ("host", "node") and not call.caller.is_admin:
            raise Forbidden(f"Only administrators can sort servers by {key}")
        kept.setdefault(key, directions[index] if index < len(directions) else None)
    if any(direction not in ("asc", "desc") for direction in directions):
        raise BadRequest("Unknown sort direction, must be one of: asc, desc")
    if keys and len(directions) > len(keys):
        raise BadRequest("Sort direction size exceeds sort key size")
    default = directions[0] if directions else "desc"
    if not kept:
        kept = {"created_at": default}
    order = [(_ORDER[key], (direction or default) == "desc") for key, direction in kept.items() if key in _ORDER]
    return [*order, (servers.c.number, default == "desc")]


def after_marker(
    call: Call[object, object], marker: str, order: Order, *, project: str | None
) -> sa.ColumnElement[bool]:
    """The condition for what comes after the marker's row in this order."""
    query = sa.select(*(column for column, _ in order)).where(servers.c.id == marker)
    if project is not None:
        query = query.where(servers.c.project_id == project)
    at = call.tx.first(query)
    if at is None:
        raise BadRequest(f"marker [{marker}] not found")
    later, equal = list[sa.ColumnElement[bool]](), list[sa.ColumnElement[bool]]()
    for (column, descending), value in zip(order, tuple(at), strict=True):
        later.append(sa.and_(*equal, column < value if descending else column > value))
        equal.append(column == value)
    return sa.or_(*later)
