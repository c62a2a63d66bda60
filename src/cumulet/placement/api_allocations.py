"""Allocations over HTTP: what a consumer holds, shown and replaced as a whole."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from typing import Annotated, Any, NotRequired, TypedDict

import msgspec
import sqlalchemy as sa

from cumulet.db.engine import Row, Tx
from cumulet.errors import BadRequest, Conflict, NotFound
from cumulet.placement import names, providers
from cumulet.placement.api_providers import provider_in_path
from cumulet.placement.api_usages import UNKNOWN_TYPE
from cumulet.placement.providers import CONCURRENT_UPDATE, Inventory, Provider
from cumulet.placement.rules import admin_or_service
from cumulet.placement.service import PLACEMENT
from cumulet.placement.store import allocations, consumers, resource_providers
from cumulet.placement.wire import UUID_KEY_PATTERN, Uuid, canonical_uuid, fresh
from cumulet.web.operation import Call, Reply, Rule
from cumulet.web.schema import UNSET, Body, Json, Required, Since, Unset, Versions, plan

LIST = admin_or_service("allocations:list", "Show what a consumer holds.")
UPDATE = admin_or_service("allocations:update", "Replace what a consumer holds.")
MANAGE = admin_or_service("allocations:manage", "Replace what several consumers hold.")
DELETE = admin_or_service("allocations:delete", "Give back what a consumer holds.")
PROVIDER_LIST = admin_or_service("resource_providers:allocations:list", "List what is held of a provider.")

INCOMPLETE = "00000000-0000-0000-0000-000000000000"
"""Project and user of consumers made before microversion 1.8 asked for them."""

_Class = Annotated[str, Json({"pattern": names.NAME_PATTERN})]
_Amount = Annotated[int, Json({"minimum": 1})]
_Resources = Annotated[dict[_Class, _Amount], Json({"minProperties": 1})]
_Id = Json({"minLength": 1, "maxLength": 255})
_ProviderKey = Annotated[str, Json({"pattern": UUID_KEY_PATTERN})]


class ProviderReference(Body):
    """A provider in the older form."""

    uuid: Uuid


class ListedShare(Body):
    """A share of one provider in the form before 1.12."""

    resource_provider: ProviderReference
    resources: _Resources


class Share(Body):
    """A share of the provider it stands under."""

    resources: _Resources
    generation: int | Unset = UNSET


_Shares = Annotated[dict[_ProviderKey, Share], Json({"minProperties": 1})]
_SharesOrNone = dict[_ProviderKey, Share]
_Mappings = Annotated[
    dict[Annotated[str, Json({"pattern": "^[a-zA-Z0-9_-]{0,64}$"})], Annotated[list[Uuid], Json({"minItems": 1})]],
    Json({"minProperties": 1}),
]
_ConsumerType = Annotated[str, Json({"pattern": names.NAME_PATTERN, "minLength": 1, "maxLength": 255})]


class SetAllocations(Body):
    """All that one consumer is to hold."""

    allocations: Annotated[
        Any,
        Versions(
            ("1.0", Annotated[list[ListedShare], Json({"minItems": 1})]), ("1.12", _Shares), ("1.28", _SharesOrNone)
        ),
    ]
    project_id: Annotated[str, _Id, Since("1.8"), Required(since="1.8")] = INCOMPLETE
    user_id: Annotated[str, _Id, Since("1.8"), Required(since="1.8")] = INCOMPLETE
    consumer_generation: Annotated[int | Unset | None, Since("1.28"), Required(since="1.28")] = UNSET
    mappings: Annotated[_Mappings | Unset, Since("1.34")] = UNSET
    consumer_type: Annotated[_ConsumerType, Since("1.38"), Required(since="1.38")] = ""


class SetManyAllocations(Body, extra="allow", min_properties=1):
    """Consumer uuids, each with all that it is to hold."""


class ConsumerAllocations(SetAllocations):
    """One of several consumers' allocations; none means: give everything back."""

    allocations: _SharesOrNone = msgspec.field(default_factory=dict)


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """What one consumer is to hold: provider uuid -> resource class -> amount."""

    consumer: str
    shares: Mapping[str, Mapping[str, int]]
    project_id: str
    user_id: str
    consumer_type: str
    generation: int | Unset | None


def holding_of(consumer: str, body: SetAllocations) -> Holding:
    if isinstance(body.allocations, list):
        shares = {item.resource_provider.uuid: item.resources for item in body.allocations}
    else:
        shares = {uuid: share.resources for uuid, share in body.allocations.items()}
    return Holding(
        consumer=consumer,
        shares={canonical_uuid(uuid, "resource provider uuid"): resources for uuid, resources in shares.items()},
        project_id=body.project_id,
        user_id=body.user_id,
        consumer_type=body.consumer_type,
        generation=body.consumer_generation,
    )


def holdings_of(bodies: Mapping[str, SetAllocations]) -> list[Holding]:
    """One for each consumer uuid. 400 if a consumer is given twice, in two spellings of its uuid."""
    holdings = [holding_of(canonical_uuid(uuid, "consumer_uuid"), body) for uuid, body in bodies.items()]
    if len({holding.consumer for holding in holdings}) != len(holdings):
        raise BadRequest("A consumer is given twice.")
    return holdings


# -- showing


class OfProvider(TypedDict):
    """What a consumer holds of one provider."""

    resources: dict[str, int]
    generation: int


class OfConsumer(TypedDict):
    """What one consumer holds of a provider."""

    resources: dict[str, int]
    consumer_generation: NotRequired[int]


@PLACEMENT.operation("GET", "/allocations/{consumer_uuid}", rules=(Rule(LIST),))
def show_allocations(call: Call[None, None]) -> Reply:
    """Show what a consumer holds; nothing, if there is no such consumer."""
    uuid = call.path["consumer_uuid"]
    held: dict[str, OfProvider] = {}
    query = sa.select(
        resource_providers.c.uuid, resource_providers.c.generation, allocations.c.resource_class, allocations.c.used
    ).join(allocations, allocations.c.provider_id == resource_providers.c.id)
    for row in call.tx.all(query.where(allocations.c.consumer_uuid == uuid).order_by(resource_providers.c.id)):
        share = held.setdefault(row.uuid, {"resources": {}, "generation": row.generation})
        share["resources"][row.resource_class] = row.used
    body: dict[str, object] = {"allocations": held}
    consumer = call.tx.first(sa.select(consumers).where(consumers.c.uuid == uuid))
    if held and consumer is not None:
        if call.version.at_least("1.12"):
            body |= {"project_id": consumer.project_id, "user_id": consumer.user_id}
        if call.version.at_least("1.28"):
            body["consumer_generation"] = consumer.generation
        if call.version.at_least("1.38"):
            body["consumer_type"] = consumer.type or UNKNOWN_TYPE
    return fresh(call, body)


@PLACEMENT.operation("GET", "/resource_providers/{uuid}/allocations", rules=(Rule(PROVIDER_LIST),))
def list_provider_allocations(call: Call[None, None]) -> Reply:
    """List what is held of a provider, by consumer."""
    provider = provider_in_path(call)
    held: dict[str, OfConsumer] = {}
    query = (
        sa.select(allocations.c.consumer_uuid, allocations.c.resource_class, allocations.c.used, consumers.c.generation)
        .join(consumers, consumers.c.uuid == allocations.c.consumer_uuid)
        .where(allocations.c.provider_id == provider.id)
    )
    for row in call.tx.all(query):
        share = held.setdefault(row.consumer_uuid, {"resources": {}})
        share["resources"][row.resource_class] = row.used
        if call.version.at_least("1.28"):
            share["consumer_generation"] = row.generation
    return fresh(call, {"allocations": held, "resource_provider_generation": provider.generation})


# -- replacing


@PLACEMENT.operation("PUT", "/allocations/{consumer_uuid}", rules=(Rule(UPDATE),), body=SetAllocations, success=204)
def set_allocations(call: Call[None, SetAllocations]) -> None:
    """Replace what a consumer holds."""
    consumer = canonical_uuid(call.path["consumer_uuid"], "consumer_uuid")
    replace(call, [holding_of(consumer, call.body)])


@PLACEMENT.operation("POST", "/allocations", rules=(Rule(MANAGE),), since="1.13", body=SetManyAllocations, success=204)
def set_many_allocations(call: Call[None, SetManyAllocations]) -> None:
    """Replace what several consumers hold, all or nothing."""
    read = plan(ConsumerAllocations, call.version).read
    replace(call, holdings_of({uuid: read(value, uuid) for uuid, value in call.body.extra.items()}))


@PLACEMENT.operation("DELETE", "/allocations/{consumer_uuid}", rules=(Rule(DELETE),), success=204)
def delete_allocations(call: Call[None, None]) -> None:
    """Give back what a consumer holds."""
    uuid = call.path["consumer_uuid"]
    used = _providers_held(call.tx, [uuid])
    if not used:
        raise NotFound(f"No allocations for consumer '{uuid}'")
    call.tx.execute(sa.delete(allocations).where(allocations.c.consumer_uuid == uuid))
    call.tx.execute(sa.delete(consumers).where(consumers.c.uuid == uuid))
    for provider in used:
        # Giving back conflicts with no other change of the provider, so its generation stays.
        providers.change(call.tx, provider, call.now_us, generations=0)


def replace(call: Call[None, object], holdings: Sequence[Holding]) -> None:
    """Take back all that the consumers hold, then give them what they ask for, where there is room for it.

    However many they are, it takes few statements: everybody else waits for this transaction.
    """
    if not holdings:
        return
    tx, uuids = call.tx, [holding.consumer for holding in holdings]
    present = {row.uuid: row for row in tx.all(sa.select(consumers).where(consumers.c.uuid.in_(uuids)))}
    if call.version.at_least("1.28"):
        for holding in holdings:
            _check_consumer_generation(holding, present.get(holding.consumer))
    named = _named(tx, holdings)
    held = _providers_held(tx, uuids)
    before = _used(tx, named)
    tx.execute(sa.delete(allocations).where(allocations.c.consumer_uuid.in_(uuids)))
    inventories = providers.inventories_of(tx, *(provider.id for provider in named.values())) if named else {}
    _require_room(holdings, named, inventories, before, _used(tx, named))
    shares = _shares(holdings, named, inventories, set(names.known_classes(tx)))
    _write_consumers(tx, holdings, present, call.now_us)
    if shares:
        tx.execute(sa.insert(allocations), shares)
    touched = {provider.id: provider for provider in (*held, *named.values())}
    providers.change_all(tx, touched.values(), call.now_us)


def _named(tx: Tx, holdings: Iterable[Holding]) -> dict[str, Provider]:
    """The providers that they name, as far as they exist, by uuid."""
    uuids = {uuid for holding in holdings for uuid in holding.shares}
    return {provider.uuid: provider for provider in providers.load(tx, resource_providers.c.uuid.in_(uuids))}


def _used(tx: Tx, named: Mapping[str, Provider]) -> dict[int, dict[str, int]]:
    """Provider id -> resource class -> what is allocated."""
    return providers.used_of(tx, *(provider.id for provider in named.values())) if named else {}


def _require_room(
    holdings: Iterable[Holding],
    named: Mapping[str, Provider],
    inventories: Mapping[int, Mapping[str, Inventory]],
    before: Mapping[int, Mapping[str, int]],
    left: Mapping[int, Mapping[str, int]],
) -> None:
    """409 if the shares together do not fit. A provider that is overfull already may not become fuller.

    `before`, `left`: what is allocated with and without what the consumers held.
    """
    wanted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for holding in holdings:
        for uuid, resources in holding.shares.items():
            wanted[uuid].update(resources)
    for uuid, provider in named.items():
        for name, inventory in inventories.get(provider.id, {}).items():
            after = left.get(provider.id, {}).get(name, 0) + wanted[uuid][name]
            fuller = after > before.get(provider.id, {}).get(name, 0)
            if wanted[uuid][name] and after > inventory.capacity and fuller:
                raise Conflict(f"Unable to allocate inventory: the amount of {name} would exceed the capacity.")


def _shares(
    holdings: Iterable[Holding],
    named: Mapping[str, Provider],
    inventories: Mapping[int, Mapping[str, Inventory]],
    classes: Set[str],
) -> list[dict[str, object]]:
    """The rows of `allocations`. 400 for what does not exist, 409 for an amount that an inventory does not allow."""
    rows: list[dict[str, object]] = []
    for holding in holdings:
        for uuid, resources in holding.shares.items():
            provider = named.get(uuid)
            if provider is None:
                raise BadRequest(f"Allocation for resource provider '{uuid}' that does not exist.")
            names.refuse_unknown_classes(
                classes, resources, f"Unable to allocate inventory for consumer {holding.consumer}"
            )
            for name, amount in resources.items():
                _require_allowed(provider, name, amount, inventories.get(provider.id, {}).get(name))
                share = {"provider_id": provider.id, "resource_class": name, "used": amount}
                rows.append({"consumer_uuid": holding.consumer, **share})
    return rows


def _require_allowed(provider: Provider, name: str, amount: int, inventory: Inventory | None) -> None:
    if inventory is None:
        raise Conflict(f"Unable to allocate inventory: no inventory of {name} on '{provider.uuid}'.")
    if not inventory.allows(amount):
        raise Conflict(
            f"Unable to allocate inventory: the amount of {name} would violate inventory constraints "
            f"on '{provider.uuid}'."
        )


def _check_consumer_generation(holding: Holding, row: Row | None) -> None:
    expected = None if row is None else row.generation
    if holding.generation != expected:
        raise Conflict(
            "consumer generation conflict - "
            f"expected {'null' if expected is None else expected} but got {holding.generation}",
            reason=CONCURRENT_UPDATE,
        )


def _providers_held(tx: Tx, uuids: Collection[str]) -> list[Provider]:
    """The providers of which these consumers hold something."""
    ids = sa.select(allocations.c.provider_id).where(allocations.c.consumer_uuid.in_(uuids))
    return providers.load(tx, resource_providers.c.id.in_(ids))


_CHANGE_CONSUMER = (
    sa.update(consumers)
    .where(consumers.c.uuid == sa.bindparam("of_consumer"))
    .values(generation=consumers.c.generation + 1)
)


def _write_consumers(tx: Tx, holdings: Iterable[Holding], present: Mapping[str, Row], now_us: int) -> None:
    """Make, change or (with nothing to hold) remove each consumer; its generation rises with every change."""
    new, old, gone = [], [], []
    for holding in holdings:
        row = present.get(holding.consumer)
        values = {"project_id": holding.project_id, "user_id": holding.user_id, "type": holding.consumer_type}
        if not holding.shares:
            gone.append(holding.consumer)
        elif row is None:
            new.append({**values, "uuid": holding.consumer, "generation": 1, "created_at_us": now_us})
        else:
            old.append({**values, "type": holding.consumer_type or row.type, "of_consumer": holding.consumer})
    if gone:
        tx.execute(sa.delete(consumers).where(consumers.c.uuid.in_(gone)))
    if old:
        tx.execute(_CHANGE_CONSUMER, old)
    if new:
        tx.execute(sa.insert(consumers), new)
