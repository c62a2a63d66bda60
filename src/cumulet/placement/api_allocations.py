"""Allocations over HTTP: what a consumer holds, shown and replaced as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NotRequired, TypedDict

import msgspec
import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Conflict, NotFound
from cumulet.placement import names, providers
from cumulet.placement.api_providers import provider_in_path
from cumulet.placement.api_usages import UNKNOWN_TYPE
from cumulet.placement.providers import CONCURRENT_UPDATE, Provider
from cumulet.placement.rules import admin_or_service
from cumulet.placement.service import PLACEMENT
from cumulet.placement.store import allocations, consumers, resource_providers
from cumulet.placement.wire import UUID_KEY_PATTERN, Uuid, canonical_uuid, fresh
from cumulet.web.operation import Call, Microversion, Reply, Rule
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
    used = _providers_held(call.tx, uuid)
    if not used:
        raise NotFound(f"No allocations for consumer '{uuid}'")
    call.tx.execute(sa.delete(allocations).where(allocations.c.consumer_uuid == uuid))
    call.tx.execute(sa.delete(consumers).where(consumers.c.uuid == uuid))
    for provider in used:
        # Giving back conflicts with no other change of the provider, so its generation stays.
        providers.change(call.tx, provider, call.now_us, generations=0)


def replace(call: Call[None, object], holdings: list[Holding]) -> None:
    """Take back all that the consumers hold, then give them what they ask for, where there is room for it."""
    tx = call.tx
    touched: dict[int, Provider] = {}
    before = _used(tx, holdings)
    for holding in holdings:
        _check_consumer_generation(tx, holding, call.version)
        for provider in _providers_held(tx, holding.consumer):
            touched[provider.id] = provider
        tx.execute(sa.delete(allocations).where(allocations.c.consumer_uuid == holding.consumer))
    _require_room(tx, holdings, before)
    for holding in holdings:
        _write_consumer(tx, holding, call.now_us)
        for uuid, resources in holding.shares.items():
            provider = _provider(tx, uuid)
            touched[provider.id] = provider
            _hold(tx, holding.consumer, provider, resources)
    for provider in touched.values():
        providers.change(tx, provider, call.now_us)


def _used(tx: Tx, holdings: Sequence[Holding]) -> dict[str, dict[str, int]]:
    """What is allocated of the providers in `holdings`: provider uuid -> resource class -> amount."""
    named = {uuid: providers.find(tx, uuid) for uuid in {uuid for holding in holdings for uuid in holding.shares}}
    ids = {uuid: provider.id for uuid, provider in named.items() if provider is not None}
    used = providers.used_of(tx, *ids.values()) if ids else {}
    return {uuid: used.get(provider_id, {}) for uuid, provider_id in ids.items()}


def _require_room(tx: Tx, holdings: Sequence[Holding], before: Mapping[str, Mapping[str, int]]) -> None:
    """409 if the shares together do not fit. A provider that is overfull already may not become fuller."""
    left = _used(tx, holdings)
    for uuid in left:
        wanted: Counter[str] = Counter()
        for holding in holdings:
            wanted.update(holding.shares.get(uuid, {}))
        provider = _provider(tx, uuid)
        for name, inventory in providers.inventories_of(tx, provider.id).get(provider.id, {}).items():
            after = left[uuid].get(name, 0) + wanted[name]
            if wanted[name] and after > inventory.capacity and after > before[uuid].get(name, 0):
                raise Conflict(f"Unable to allocate inventory: the amount of {name} would exceed the capacity.")


def _check_consumer_generation(tx: Tx, holding: Holding, version: Microversion) -> None:
    if not version.at_least("1.28"):
        return
    row = tx.first(sa.select(consumers.c.generation).where(consumers.c.uuid == holding.consumer))
    expected = None if row is None else row.generation
    if holding.generation != expected:
        raise Conflict(
            "consumer generation conflict - "
            f"expected {'null' if expected is None else expected} but got {holding.generation}",
            reason=CONCURRENT_UPDATE,
        )


def _providers_held(tx: Tx, consumer: str) -> list[Provider]:
    ids = sa.select(allocations.c.provider_id).where(allocations.c.consumer_uuid == consumer)
    return providers.load(tx, resource_providers.c.id.in_(ids))


def _provider(tx: Tx, uuid: str) -> Provider:
    provider = providers.find(tx, uuid)
    if provider is None:
        raise BadRequest(f"Allocation for resource provider '{uuid}' that does not exist.")
    return provider


def _write_consumer(tx: Tx, holding: Holding, now_us: int) -> None:
    """Make, change or (with nothing to hold) remove the consumer; its generation rises with every change."""
    where = consumers.c.uuid == holding.consumer
    if not holding.shares:
        tx.execute(sa.delete(consumers).where(where))
        return
    values: dict[str, object] = {"project_id": holding.project_id, "user_id": holding.user_id}
    if holding.consumer_type:
        values["type"] = holding.consumer_type
    raised = sa.update(consumers).where(where).values(generation=consumers.c.generation + 1, **values)
    if tx.changed(raised) == 0:
        new = {"type": "", **values, "uuid": holding.consumer, "generation": 1, "created_at_us": now_us}
        tx.execute(sa.insert(consumers).values(new))


def _hold(tx: Tx, consumer: str, provider: Provider, resources: Mapping[str, int]) -> None:
    names.require_classes(tx, resources, f"Unable to allocate inventory for consumer {consumer}")
    has = providers.inventories_of(tx, provider.id).get(provider.id, {})
    for name, amount in resources.items():
        inventory = has.get(name)
        if inventory is None:
            raise Conflict(f"Unable to allocate inventory: no inventory of {name} on '{provider.uuid}'.")
        if not inventory.allows(amount):
            raise Conflict(
                f"Unable to allocate inventory: the amount of {name} would violate inventory constraints "
                f"on '{provider.uuid}'."
            )
    rows = [
        {"consumer_uuid": consumer, "provider_id": provider.id, "resource_class": name, "used": amount}
        for name, amount in resources.items()
    ]
    tx.execute(sa.insert(allocations), rows)
