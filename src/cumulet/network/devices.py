"""What a port's `device_id` may name: anything except a router or a server of another project; and its owner.

`device_id` is free text of the user's and plugs nothing in. But lists are filtered by it, and clients believe it.
"""

from __future__ import annotations

from collections.abc import Callable

from cumulet.db.engine import Tx
from cumulet.errors import Conflict, Forbidden
from cumulet.network.device_owners import OF_NETWORK
from cumulet.network.sight import sees_all
from cumulet.network.store import Router, find, routers
from cumulet.web.operation import Caller

ProjectOf = Callable[[Tx, str], str | None]
"""The project of the device with this id; None without such a device."""


def _project_of_router(tx: Tx, device_id: str) -> str | None:
    return next((router.project_id for router in find(tx, Router, routers.c.id == device_id)), None)


PROJECT_OF: list[ProjectOf] = [_project_of_router]
"""A function for each kind of device. The service that has such devices adds its own."""


def refuse_foreign(tx: Tx, caller: Caller, project_id: str, device_id: object) -> None:
    """409, as Neutron for routers, where `device_id` is the id of a router or server of another project.

    Administrators and services may name it: they plug in for others.
    """
    if not isinstance(device_id, str) or not device_id or sees_all(caller):
        return
    named = device_id.strip().lower()
    if any(owner not in (None, project_id) for owner in (of(tx, named) for of in PROJECT_OF)):
        raise Conflict(f"Invalid input for device_id. Reason: {device_id} is not a device of the port's project.")


def refuse_network_owner(caller: Caller, device_owner: object) -> None:
    """403 for a project that makes a port of Network's own devices: such ports are not filtered."""
    if isinstance(device_owner, str) and device_owner.startswith(OF_NETWORK) and not sees_all(caller):
        raise Forbidden("A project's own ports cannot have a device_owner that begins with 'network:'.")
