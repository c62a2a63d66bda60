"""Hosts as the scheduler sees them: what they have said they are, and what is free there."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from cumulet.compute import hosts as host_records
from cumulet.compute.scheduler import HostView
from cumulet.db.engine import Row, Tx
from cumulet.db.parts import OfMany
from cumulet.placement import allocations as placement
from cumulet.placement.providers import Inventory, inventory_of
from cumulet.placement.store import allocations, inventories, resource_providers

_USED = sa.select(
    allocations.c.provider_id, allocations.c.resource_class, sa.func.sum(allocations.c.used).label("used")
).group_by(allocations.c.provider_id, allocations.c.resource_class)
_ROOM = sa.select(inventories, resource_providers.c.name).join(
    resource_providers, resource_providers.c.id == inventories.c.provider_id
)
_USED_HERE = OfMany(
    _USED.join(resource_providers, resource_providers.c.id == allocations.c.provider_id), resource_providers.c.name
)
_ROOM_HERE = OfMany(_ROOM, resource_providers.c.name)


def views(tx: Tx) -> list[HostView]:
    """All hosts as the scheduler sees them, with what is free now. `hosts_in_memory.pick` chooses one."""
    return _views(tx.all(_USED, {}), tx.all(_ROOM, {}), tx.all(host_records.ALL, {}))


def views_of(tx: Tx, names: Collection[str]) -> dict[str, HostView]:
    """Those of these hosts that there are, as this transaction sees them. Many cost hardly more than one."""
    these = sorted(names)
    found = _views(_USED_HERE.rows(tx, these), _ROOM_HERE.rows(tx, these), host_records.NAMED.rows(tx, these))
    return {view.name: view for view in found}


def view(tx: Tx, name: str) -> HostView | None:
    """One host, as this transaction sees it."""
    return views_of(tx, [name]).get(name)


def _views(of_used: Sequence[Row], of_room: Sequence[Row], of_hosts: Sequence[Row]) -> list[HostView]:
    used: dict[int, dict[str, int]] = {}
    for row in of_used:
        used.setdefault(row.provider_id, {})[row.resource_class] = int(row.used)
    offered: dict[str, dict[str, Inventory]] = {}
    room: dict[str, dict[str, float]] = {}
    for row in of_room:
        inventory = offered.setdefault(row.name, {})[row.resource_class] = inventory_of(row)
        taken = used.get(row.provider_id, {}).get(row.resource_class, 0)
        room.setdefault(row.name, {})[row.resource_class] = inventory.room - taken
    return [_view(row, room.get(row.name, {}), offered.get(row.name, {})) for row in of_hosts]


def _view(row: Row, free: dict[str, float], offered: dict[str, Inventory]) -> HostView:
    kind = host_records.kind_from(row.facts_text)
    return HostView(
        name=row.name,
        zone=row.zone,
        up=row.up and not row.forced_down,
        disabled=row.disabled,
        free_vcpus=free.get(placement.VCPU, 0.0),
        free_memory_mib=free.get(placement.MEMORY_MB, 0.0),
        free_disk_gib=free.get(placement.DISK_GB, 0.0),
        driver=kind.driver,
        cpu_models=kind.cpu_models,
        machine_types=kind.machine_types,
        features=kind.features,
        answers=row.up,
        returning=row.to_clear,
        may_have_routers=host_records.may_have_routers(row),
        address=kind.address,
        inventories=offered,
    )
