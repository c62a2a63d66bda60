"""What a port's `device_id` may name: anything but a router or a server of another project.

`device_id` is the user's own text, and plugs nothing in. But lists, and the tools people have, take it for the truth.
"""

from __future__ import annotations

from collections.abc import Callable

from cumulet.db.engine import Tx
from cumulet.errors import Conflict
from cumulet.network.sight import sees_all
from cumulet.network.store import Router, find, routers
from cumulet.web.operation import Caller

ProjectOf = Callable[[Tx, str], str | None]
"""The project of the device of this id, if there is one."""


def _project_of_router(tx: Tx, device_id: str) -> str | None:
    return next((router.project_id for router in find(tx, Router, routers.c.id == device_id)), None)


PROJECT_OF: list[ProjectOf] = [_project_of_router]
"""A question for each kind of device; the service whose devices they are adds its own."""


def refuse_foreign(tx: Tx, caller: Caller, project_id: str, device_id: object) -> None:
    """409, as Neutron answers for routers, where `device_id` is the id of a thing of another project than the port's.

    Administrators and services may: they plug in for others.
    """
    if not isinstance(device_id, str) or not device_id or sees_all(caller):
        return
    named = device_id.strip().lower()
    if any(owner not in (None, project_id) for owner in (of(tx, named) for of in PROJECT_OF)):
        raise Conflict(f"Invalid input for device_id. Reason: {device_id} is not a device of the port's project.")
