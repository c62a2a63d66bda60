"""Who holds which share of which host: claims never overfill a host, and a migration holds the source's share.

Theory of operation. A claim checks each inventory's capacity ((total - reserved) * ratio) against the sum of its
allocations and inserts its own, in one serializable transaction, so two claims at once cannot both take the last room.
While a server moves there are two shares: the source's is handed to the *migration* (consumer = migration uuid), the
destination's belongs to the server. One of them is given back once it is certain that it is not needed. Generations of
provider and consumer rise with every change (Placement API, "Resource provider generation").
"""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.errors import Conflict
from cumulet.placement.providers import inventory_of
from cumulet.placement.store import allocations, consumers, inventories, resource_providers

VCPU, MEMORY_MB, DISK_GB = "VCPU", "MEMORY_MB", "DISK_GB"

Resources = Mapping[str, int]
"""Amount by resource class: VCPU in cores, MEMORY_MB in MiB, DISK_GB in GiB."""


class InsufficientCapacity(Conflict):
    """The provider lacks room. `reason` names the first resource class that lacks."""


_REASONS = {VCPU: "INSUFFICIENT_VCPU", MEMORY_MB: "INSUFFICIENT_MEMORY", DISK_GB: "INSUFFICIENT_DISK"}


# Every boot and every move runs these statements, so they are built once.
_OF_PROVIDER: sa.BindParameter[int] = sa.bindparam("of_provider")
_OF_CONSUMER: sa.BindParameter[str] = sa.bindparam("of_consumer")
_HELD_HERE = sa.and_(allocations.c.consumer_uuid == _OF_CONSUMER, allocations.c.provider_id == _OF_PROVIDER)
_PROVIDER_ID = sa.select(resource_providers.c.id).where(resource_providers.c.name == sa.bindparam("of_name"))
_INVENTORY = sa.select(inventories).where(inventories.c.provider_id == _OF_PROVIDER)
_USED_BY_OTHERS = (
    sa.select(allocations.c.resource_class, sa.func.sum(allocations.c.used).label("used"))
    .where(allocations.c.provider_id == _OF_PROVIDER, allocations.c.consumer_uuid != _OF_CONSUMER)
    .group_by(allocations.c.resource_class)
)
_OWN_SHARE = sa.select(allocations.c.resource_class, allocations.c.used).where(_HELD_HERE)
_PROVIDERS_OF = sa.select(allocations.c.provider_id).where(allocations.c.consumer_uuid == _OF_CONSUMER).distinct()
_HELD = (
    sa.select(resource_providers.c.name, allocations.c.resource_class, allocations.c.used)
    .join(resource_providers, resource_providers.c.id == allocations.c.provider_id)
    .where(allocations.c.consumer_uuid == _OF_CONSUMER)
)
_CONSUMER = sa.select(consumers).where(consumers.c.uuid == _OF_CONSUMER)
_RAISE_CONSUMER = (
    sa.update(consumers).where(consumers.c.uuid == _OF_CONSUMER).values(generation=consumers.c.generation + 1)
)
_INSERT_CONSUMER = sa.insert(consumers)
_DROP_EMPTY = sa.delete(consumers).where(
    consumers.c.uuid == _OF_CONSUMER, ~sa.exists().where(allocations.c.consumer_uuid == consumers.c.uuid)
)
_INSERT_SHARE = sa.insert(allocations)
_MOVE_SHARE = sa.update(allocations).where(_HELD_HERE)
_ONE_SHARE = sa.and_(_HELD_HERE, allocations.c.resource_class == sa.bindparam("of_class"))
_LESSEN_SHARE = sa.update(allocations).where(_ONE_SHARE)
_DROP_ONE_SHARE = sa.delete(allocations).where(_ONE_SHARE)
_DROP_SHARE = sa.delete(allocations).where(_HELD_HERE)
_TOUCH = (
    sa.update(resource_providers)
    .where(resource_providers.c.id == _OF_PROVIDER)
    .values(generation=resource_providers.c.generation + 1)
)


def set_inventory(tx: Tx, *, name: str, uuid: str, inventory: Mapping[str, tuple[int, float]], now_us: int) -> None:
    """Make or update a host's provider: resource class -> (total, allocation ratio). Allocations are untouched."""
    tx.touch(name)
    provider_id = tx.scalar(_PROVIDER_ID, {"of_name": name})
    new = provider_id is None
    if new:
        made = {"uuid": uuid, "name": name, "traits": [], "aggregates": []}
        times = {"created_at_us": now_us, "updated_at_us": now_us}
        result = tx.execute(sa.insert(resource_providers).values(generation=1 if inventory else 0, **made, **times))
        assert result.inserted_primary_key is not None
        provider_id = result.inserted_primary_key[0]
    rows = [] if new else tx.all(_INVENTORY, {"of_provider": provider_id})
    totals = {row.resource_class: row.total for row in rows}
    changed = {one: total for one, (total, _) in inventory.items() if totals.get(one, total) != total}
    for resource_class, total in changed.items():
        tx.execute(
            sa.update(inventories)
            .where(inventories.c.provider_id == provider_id, inventories.c.resource_class == resource_class)
            .values(total=total, max_unit=total)
        )
    added = [
        {
            "provider_id": provider_id,
            "resource_class": one,
            "total": total,
            "reserved": 0,
            "min_unit": 1,
            "max_unit": total,
            "step_size": 1,
            "allocation_ratio": ratio,
        }
        for one, (total, ratio) in inventory.items()
        if one not in totals
    ]
    if added:
        tx.execute(sa.insert(inventories), added)
    if (changed or added) and not new:
        _touch(tx, provider_id, now_us)


def claim(
    tx: Tx,
    *,
    consumer: str,
    provider: str,
    resources: Resources,
    project_id: str,
    user_id: str,
    now_us: int,
    consumer_type: str = "INSTANCE",
) -> None:
    """Allocate `resources` of `provider` (a host's name) to `consumer`, or InsufficientCapacity and nothing changed.

    A share that the consumer already holds there is replaced: to claim twice is to claim once.
    """
    provider_id = _provider_id(tx, provider)
    inventory = {row.resource_class: inventory_of(row) for row in tx.all(_INVENTORY, {"of_provider": provider_id})}
    others = tx.all(_USED_BY_OTHERS, {"of_provider": provider_id, "of_consumer": consumer})
    used = {row.resource_class: int(row.used) for row in others}
    wanted = {name: amount for name, amount in resources.items() if amount > 0}
    for name, amount in wanted.items():
        offered = inventory.get(name)
        room = offered.room if offered is not None else 0
        full = used.get(name, 0) + amount > room
        if offered is None or not offered.allows(amount) or (full and amount > _own(tx, provider_id, consumer, name)):
            raise InsufficientCapacity(
                f"{provider} has not enough {name}.",
                reason=_REASONS.get(name, "INSUFFICIENT_RESOURCES"),
                private=f"{name}: {amount} asked, {used.get(name, 0)} of {room:g} used",
            )
    if _ensure_consumer(tx, consumer, project_id, user_id, consumer_type, now_us):
        tx.run(_DROP_SHARE, {"of_provider": provider_id, "of_consumer": consumer})
    if wanted:
        tx.execute(
            _INSERT_SHARE,
            [
                {"consumer_uuid": consumer, "provider_id": provider_id, "resource_class": name, "used": amount}
                for name, amount in wanted.items()
            ],
        )
    _touch(tx, provider_id, now_us)


def lessen(tx: Tx, *, consumer: str, provider: str, resources: Resources, now_us: int) -> None:
    """Lessen the share of `provider` to `resources`. Resource classes that they do not name stay as they are.

    It never fails for lack of room, even if the inventory has shrunk. Idempotent.
    """
    provider_id = _provider_id(tx, provider)
    of = {"of_provider": provider_id, "of_consumer": consumer}
    too_much = [row for row in tx.all(_OWN_SHARE, of) if row.used > resources.get(row.resource_class, row.used)]
    for row in too_much:
        this, amount = {**of, "of_class": row.resource_class}, resources[row.resource_class]
        if amount > 0:
            tx.run(_LESSEN_SHARE, {**this, "used": amount})
        else:
            tx.run(_DROP_ONE_SHARE, this)
    if too_much:
        tx.run(_RAISE_CONSUMER, {"of_consumer": consumer})
        _touch(tx, provider_id, now_us)
        _drop_if_empty(tx, consumer)


def _own(tx: Tx, provider_id: int, consumer: str, resource_class: str) -> int:
    """What the consumer holds already. A claim of no more than this does not make the provider fuller."""
    rows = tx.all(_OWN_SHARE, {"of_provider": provider_id, "of_consumer": consumer})
    return sum(row.used for row in rows if row.resource_class == resource_class)


def hand_over(tx: Tx, *, source: str, target: str, provider: str, now_us: int, target_type: str) -> None:
    """Move the share of `provider` from consumer `source` to consumer `target`. Nothing to move is success."""
    provider_id = _provider_id(tx, provider)
    row = tx.first(_CONSUMER, {"of_consumer": source})
    if row is None:
        return
    _ensure_consumer(tx, target, row.project_id, row.user_id, target_type, now_us)
    tx.run(_MOVE_SHARE, {"of_provider": provider_id, "of_consumer": source, "consumer_uuid": target})
    _touch(tx, provider_id, now_us)
    _drop_if_empty(tx, source)
    _drop_if_empty(tx, target)


def release(tx: Tx, *, consumer: str, now_us: int, provider: str | None = None) -> None:
    """Give back what `consumer` holds, everywhere or of one provider. Idempotent."""
    only = _provider_id(tx, provider) if provider is not None else None
    for row in tx.all(_PROVIDERS_OF, {"of_consumer": consumer}):
        if only in (None, row.provider_id):
            _touch(tx, row.provider_id, now_us)
            tx.run(_DROP_SHARE, {"of_provider": row.provider_id, "of_consumer": consumer})
    _drop_if_empty(tx, consumer)


def held(tx: Tx, consumer: str) -> dict[str, dict[str, int]]:
    """What a consumer holds: provider name -> resource class -> amount."""
    result: dict[str, dict[str, int]] = {}
    for row in tx.all(_HELD, {"of_consumer": consumer}):
        result.setdefault(row.name, {})[row.resource_class] = row.used
    return result


def _provider_id(tx: Tx, name: str) -> int:
    found = tx.scalar(_PROVIDER_ID, {"of_name": name})
    if found is None:
        raise InsufficientCapacity(f"{name} offers no resources.", reason="HOST_UNKNOWN")
    return int(found)


def _ensure_consumer(tx: Tx, uuid: str, project_id: str, user_id: str, consumer_type: str, now_us: int) -> bool:
    """Make the consumer or raise its generation. Whether it existed, so that it may hold something."""
    if tx.changed(_RAISE_CONSUMER, {"of_consumer": uuid}):
        return True
    tx.run(
        _INSERT_CONSUMER,
        {
            "uuid": uuid,
            "project_id": project_id,
            "user_id": user_id,
            "type": consumer_type,
            "generation": 1,
            "created_at_us": now_us,
        },
    )
    return False


def _drop_if_empty(tx: Tx, consumer: str) -> None:
    tx.run(_DROP_EMPTY, {"of_consumer": consumer})


def _touch(tx: Tx, provider_id: int, now_us: int) -> None:
    tx.touch(provider_id)
    tx.run(_TOUCH, {"of_provider": provider_id, "updated_at_us": now_us})
