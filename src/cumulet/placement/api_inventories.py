"""What a provider has, over HTTP; every change carries the generation the caller saw."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from typing import Annotated, Any

import sqlalchemy as sa
from msgspec.structs import asdict

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Conflict, NotFound
from cumulet.placement import names, providers
from cumulet.placement.api_providers import provider_in_path
from cumulet.placement.providers import Inventory, Provider
from cumulet.placement.rules import admin_or_service
from cumulet.placement.service import PLACEMENT
from cumulet.placement.store import inventories
from cumulet.placement.wire import MAX_INT, fresh
from cumulet.web.operation import Call, Microversion, Reply, Rule
from cumulet.web.schema import UNSET, Body, Json, Unset

LIST = admin_or_service("resource_providers:inventories:list", "List a provider's inventories.")
CREATE = admin_or_service("resource_providers:inventories:create", "Add an inventory to a provider.")
SHOW = admin_or_service("resource_providers:inventories:show", "Show an inventory.")
UPDATE = admin_or_service("resource_providers:inventories:update", "Change a provider's inventories.")
DELETE = admin_or_service("resource_providers:inventories:delete", "Remove a provider's inventories.")

LARGEST_RATIO = 3.40282e38

_THIS = sa.and_(
    inventories.c.provider_id == sa.bindparam("of_provider"), inventories.c.resource_class == sa.bindparam("of_class")
)

_Positive = Annotated[int, Json({"minimum": 1, "maximum": MAX_INT})]
_NotNegative = Annotated[int, Json({"minimum": 0, "maximum": MAX_INT})]


class InventoryBody(Body):
    """One inventory, as it is written."""

    total: _Positive
    reserved: _NotNegative = 0
    min_unit: _Positive = 1
    max_unit: _Positive = MAX_INT
    step_size: _Positive = 1
    allocation_ratio: Annotated[float, Json({"maximum": LARGEST_RATIO})] = 1.0
    resource_provider_generation: int | Unset = UNSET

    def record(self) -> Inventory:
        return Inventory(
            total=self.total,
            reserved=self.reserved,
            min_unit=self.min_unit,
            max_unit=self.max_unit,
            step_size=self.step_size,
            allocation_ratio=self.allocation_ratio,
        )


class CreateInventory(InventoryBody):
    """A further inventory."""

    resource_class: Annotated[str, Json({"pattern": names.NAME_PATTERN})]


class UpdateInventory(InventoryBody):
    """An inventory in place of the one there is."""

    resource_provider_generation: int


class SetInventories(Body):
    """All of a provider's inventories."""

    resource_provider_generation: int
    inventories: dict[str, InventoryBody]


def _show(call: Call[object, object], inventory: Inventory, generation: int, **options: Any) -> Reply:
    body: dict[str, object] = asdict(inventory)
    if generation:
        body["resource_provider_generation"] = generation
    return fresh(call, body, **options)


def _show_all(call: Call[object, object], found: Mapping[str, Inventory], generation: int) -> Reply:
    body = {
        "resource_provider_generation": generation,
        "inventories": {name: asdict(inventory) for name, inventory in found.items()},
    }
    return fresh(call, body)


def _check(version: Microversion, provider: Provider, resource_class: str, inventory: Inventory) -> None:
    """400 if nothing could ever be allocated (since 1.26: if less than nothing could)."""
    if inventory.capacity < (0 if version.at_least("1.26") else 1):
        raise BadRequest(
            f"Invalid inventory for '{resource_class}' on resource provider '{provider.uuid}'. "
            "The reserved value is greater than or equal to total."
        )


def _remove(tx: Tx, gone: Sequence[tuple[Provider, Collection[str]]], *, reason: str) -> None:
    """Remove inventories of these classes; 409 if a part of one is allocated."""
    used = providers.used_of(tx, *(provider.id for provider, _ in gone))
    for provider, classes in gone:
        busy = sorted(name for name in classes if used.get(provider.id, {}).get(name))
        if busy:
            raise Conflict(
                f"Inventory for '{', '.join(busy)}' on resource provider '{provider.uuid}' in use.", reason=reason
            )
    rows = [{"of_provider": provider.id, "of_class": name} for provider, classes in gone for name in sorted(classes)]
    if rows:
        tx.execute(sa.delete(inventories).where(_THIS), rows)


@PLACEMENT.operation("GET", "/resource_providers/{uuid}/inventories", rules=(Rule(LIST),))
def list_inventories(call: Call[None, None]) -> Reply:
    """List a provider's inventories."""
    provider = provider_in_path(call)
    return _show_all(call, providers.inventories_of(call.tx, provider.id).get(provider.id, {}), provider.generation)


@PLACEMENT.operation(
    "POST", "/resource_providers/{uuid}/inventories", rules=(Rule(CREATE),), body=CreateInventory, success=201
)
def create_inventory(call: Call[None, CreateInventory]) -> Reply:
    """Add an inventory to a provider."""
    provider, resource_class = provider_in_path(call), call.body.resource_class
    if call.body.resource_provider_generation is not UNSET:
        providers.require_generation(provider, call.body.resource_provider_generation)
    inventory = call.body.record()
    _check(call.version, provider, resource_class, inventory)
    names.require_classes(call.tx, [resource_class], "Unable to create inventory")
    if resource_class in providers.inventories_of(call.tx, provider.id).get(provider.id, {}):
        raise Conflict(
            f"Update conflict: there is an inventory of {resource_class} already.", reason=providers.CONCURRENT_UPDATE
        )
    write(call.tx, [(provider, {resource_class: inventory})])
    generation = providers.change(call.tx, provider, call.now_us)
    location = f"/resource_providers/{provider.uuid}/inventories/{resource_class}"
    return _show(call, inventory, generation, location=location)


@PLACEMENT.operation("PUT", "/resource_providers/{uuid}/inventories", rules=(Rule(UPDATE),), body=SetInventories)
def set_inventories(call: Call[None, SetInventories]) -> Reply:
    """Replace all of a provider's inventories."""
    provider = provider_in_path(call)
    providers.require_generation(provider, call.body.resource_provider_generation)
    wanted = records(call, provider, call.body, set(names.known_classes(call.tx)))
    remove_others(call.tx, [(provider, wanted)])
    write(call.tx, [(provider, wanted)])
    return _show_all(call, wanted, providers.change(call.tx, provider, call.now_us))


Wanted = Sequence[tuple[Provider, Mapping[str, Inventory]]]
"""Providers, each with inventories by resource class."""


def records(
    call: Call[object, object], provider: Provider, body: SetInventories, known: Set[str]
) -> dict[str, Inventory]:
    """The inventories in a body, by resource class; 400 for one that cannot be. `known`: all resource classes."""
    wanted = {name: inventory.record() for name, inventory in body.inventories.items()}
    names.refuse_unknown_classes(known, wanted, "Unknown resource class in inventory")
    for name, inventory in wanted.items():
        _check(call.version, provider, name, inventory)
    return wanted


def write(tx: Tx, wanted: Wanted) -> None:
    """Add these inventories or overwrite them; others stay."""
    present = providers.inventories_of(tx, *(provider.id for provider, _ in wanted))
    new, old = [], []
    for provider, by_class in wanted:
        for name, inventory in by_class.items():
            if name in present.get(provider.id, {}):
                old.append({"of_provider": provider.id, "of_class": name, **asdict(inventory)})
            else:
                new.append({"provider_id": provider.id, "resource_class": name, **asdict(inventory)})
    if new:
        tx.execute(sa.insert(inventories), new)
    if old:
        tx.execute(sa.update(inventories).where(_THIS), old)


def remove_others(tx: Tx, wanted: Wanted) -> None:
    """Remove all inventories of these providers that are not wanted; 409 if one of them is in use."""
    present = providers.inventories_of(tx, *(provider.id for provider, _ in wanted))
    gone = [(provider, present.get(provider.id, {}).keys() - by_class.keys()) for provider, by_class in wanted]
    _remove(tx, gone, reason=providers.INVENTORY_IN_USE)


@PLACEMENT.operation(
    "DELETE", "/resource_providers/{uuid}/inventories", rules=(Rule(DELETE),), since="1.5", success=204
)
def delete_inventories(call: Call[None, None]) -> None:
    """Remove all of a provider's inventories."""
    provider = provider_in_path(call)
    present = providers.inventories_of(call.tx, provider.id).get(provider.id, {})
    _remove(call.tx, [(provider, present)], reason=providers.INVENTORY_IN_USE)
    providers.change(call.tx, provider, call.now_us)


@PLACEMENT.operation("GET", "/resource_providers/{uuid}/inventories/{resource_class}", rules=(Rule(SHOW),))
def show_inventory(call: Call[None, None]) -> Reply:
    """Show a provider's inventory of a resource class."""
    provider = provider_in_path(call)
    return _show(call, _inventory_in_path(call, provider), provider.generation)


def _inventory_in_path(call: Call[object, object], provider: Provider) -> Inventory:
    resource_class = call.path["resource_class"]
    inventory = providers.inventories_of(call.tx, provider.id).get(provider.id, {}).get(resource_class)
    if inventory is None:
        raise NotFound(f"No inventory of class {resource_class} for {provider.uuid}")
    return inventory


@PLACEMENT.operation(
    "PUT",
    "/resource_providers/{uuid}/inventories/{resource_class}",
    rules=(Rule(UPDATE),),
    body=UpdateInventory,
)
def update_inventory(call: Call[None, UpdateInventory]) -> Reply:
    """Replace a provider's inventory of a resource class."""
    provider, resource_class = provider_in_path(call), call.path["resource_class"]
    providers.require_generation(provider, call.body.resource_provider_generation)
    inventory = call.body.record()
    _check(call.version, provider, resource_class, inventory)
    if resource_class not in providers.inventories_of(call.tx, provider.id).get(provider.id, {}):
        raise BadRequest(f"No inventory record with resource class for resource provider {provider.uuid}.")
    write(call.tx, [(provider, {resource_class: inventory})])
    return _show(call, inventory, providers.change(call.tx, provider, call.now_us))


@PLACEMENT.operation(
    "DELETE", "/resource_providers/{uuid}/inventories/{resource_class}", rules=(Rule(DELETE),), success=204
)
def delete_inventory(call: Call[None, None]) -> None:
    """Remove a provider's inventory of a resource class."""
    provider = provider_in_path(call)
    _inventory_in_path(call, provider)
    _remove(call.tx, [(provider, [call.path["resource_class"]])], reason=providers.CONCURRENT_UPDATE)
    providers.change(call.tx, provider, call.now_us)
