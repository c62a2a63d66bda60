"""Resource providers as records: what they have, what is used of it, and changing them by generation."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa

from cumulet.db.engine import Row, Tx
from cumulet.errors import Conflict, NotFound
from cumulet.placement.store import allocations, inventories, resource_providers

CONCURRENT_UPDATE = "placement.concurrent_update"
DUPLICATE_NAME = "placement.duplicate_name"
INVENTORY_IN_USE = "placement.inventory.inuse"
PROVIDER_IN_USE = "placement.resource_provider.inuse"
CANNOT_DELETE_PARENT = "placement.resource_provider.cannot_delete_parent"


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `resource_providers`."""

    id: int
    uuid: str
    name: str
    generation: int
    parent_uuid: str | None
    traits: tuple[str, ...]
    aggregates: tuple[str, ...]
    """Their uuids as they are compared: with hyphens, in lower case."""
    aggregates_as_sent: tuple[str, ...] = ()
    created_at_us: int
    updated_at_us: int


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider has of one resource class, and how it may be allocated."""

    total: int
    reserved: int
    min_unit: int
    max_unit: int
    step_size: int
    allocation_ratio: float

    @property
    def room(self) -> float:
        """What may be allocated in all."""
        return (self.total - self.reserved) * self.allocation_ratio

    @property
    def capacity(self) -> int:
        """The same, in whole units."""
        return int(self.room)

    def fits(self, amount: int, used: int) -> bool:
        """Whether `amount` more may be allocated."""
        return used + amount <= self.capacity and self.allows(amount)

    def allows(self, amount: int) -> bool:
        """Whether the inventory's units allow an allocation of `amount`."""
        return self.min_unit <= amount <= self.max_unit and amount % self.step_size == 0


def load(tx: Tx, *conditions: sa.ColumnElement[bool]) -> list[Provider]:
    rows = tx.all(sa.select(resource_providers).where(*conditions).order_by(resource_providers.c.id))
    return [_provider(row._mapping) for row in rows]


def _provider(row: Mapping[Any, Any]) -> Provider:
    sent = tuple(row["aggregates"])
    compared = tuple(str(UUID(aggregate)) for aggregate in sent)
    return Provider(**{**row, "traits": tuple(row["traits"]), "aggregates": compared, "aggregates_as_sent": sent})


def find(tx: Tx, uuid: str) -> Provider | None:
    found = load(tx, resource_providers.c.uuid == uuid)
    return found[0] if found else None


def get(tx: Tx, uuid: str) -> Provider:
    provider = find(tx, uuid)
    if provider is None:
        raise NotFound(f"No resource provider with uuid {uuid} found.")
    return provider


def root_uuid(tx: Tx, provider: Provider) -> str:
    """The uuid of the root of the provider's tree."""
    parents = parents_by_uuid(tx) if provider.parent_uuid is not None else {}
    return root_of(provider.uuid, parents)


def parents_by_uuid(tx: Tx) -> dict[str, str | None]:
    rows = tx.all(sa.select(resource_providers.c.uuid, resource_providers.c.parent_uuid))
    return {row.uuid: row.parent_uuid for row in rows}


def root_of(uuid: str, parents: Mapping[str, str | None]) -> str:
    while (parent := parents.get(uuid)) is not None:
        uuid = parent
    return uuid


def require_generation(provider: Provider, generation: int) -> None:
    """409 if the caller saw another generation than the present one."""
    if provider.generation != generation:
        raise Conflict(
            "Resource provider's generation already changed. Please update the generation and try again.",
            reason=CONCURRENT_UPDATE,
        )


def change(tx: Tx, provider: Provider, now_us: int, *, generations: int = 1, **values: Any) -> int:
    """Write `values` and raise the generation (by 0: keep it). Returns the generation now; 409 if another was first."""
    generation = provider.generation + generations
    tx.touch(provider.name)
    tx.touch(values.get("name", provider.name))
    changed = tx.changed(
        sa.update(resource_providers)
        .where(resource_providers.c.id == provider.id, resource_providers.c.generation == provider.generation)
        .values(generation=generation, updated_at_us=now_us, **values)
    )
    if changed == 0:
        raise Conflict("The resource provider was changed at the same time.", reason=CONCURRENT_UPDATE)
    return generation


def change_all(tx: Tx, changed: Collection[Provider], now_us: int) -> None:
    """Raise the generation of each, in one statement. They were read in this transaction: nobody else changes them."""
    for provider in changed:
        tx.touch(provider.name)
    ids = [provider.id for provider in changed]
    raised = {"generation": resource_providers.c.generation + 1, "updated_at_us": now_us}
    tx.execute(sa.update(resource_providers).where(resource_providers.c.id.in_(ids)).values(raised))


def inventories_of(tx: Tx, *ids: int) -> dict[int, dict[str, Inventory]]:
    """Provider id -> resource class -> inventory; no ids: of all providers."""
    query = sa.select(inventories).order_by(inventories.c.resource_class)
    if ids:
        query = query.where(inventories.c.provider_id.in_(ids))
    found: dict[int, dict[str, Inventory]] = {}
    for row in tx.all(query):
        found.setdefault(row.provider_id, {})[row.resource_class] = inventory_of(row)
    return found


def inventory_of(row: Row) -> Inventory:
    """Of a row of `inventories`."""
    return Inventory(
        total=row.total,
        reserved=row.reserved,
        min_unit=row.min_unit,
        max_unit=row.max_unit,
        step_size=row.step_size,
        allocation_ratio=row.allocation_ratio,
    )


def used_of(tx: Tx, *ids: int) -> dict[int, dict[str, int]]:
    """Provider id -> resource class -> what is allocated; no ids: of all providers."""
    query = sa.select(
        allocations.c.provider_id, allocations.c.resource_class, sa.func.sum(allocations.c.used).label("used")
    ).group_by(allocations.c.provider_id, allocations.c.resource_class)
    if ids:
        query = query.where(allocations.c.provider_id.in_(ids))
    found: dict[int, dict[str, int]] = {}
    for row in tx.all(query):
        found.setdefault(row.provider_id, {})[row.resource_class] = int(row.used)
    return found
