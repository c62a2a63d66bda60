"""Reshaping: inventories and what is held of them move between providers all or nothing."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from typing import TypeVar

import pytest
import sqlalchemy as sa

from cumulet.db.engine import Database, Tx
from cumulet.placement.store import resource_providers
from cumulet.testing import JsonObject
from tests.speed import is_within

from .conftest import World, allocation

CONSUMER = "33333333-3333-4333-8333-333333333333"
OTHER = "44444444-4444-4444-8444-444444444444"


def had(total: int, **more: int) -> dict[str, int]:
    return {"total": total, **more}


def shape(generation: int, **inventories: dict[str, int]) -> JsonObject:
    return {"resource_provider_generation": generation, "inventories": inventories}


def respelled(uuid: str) -> str:
    """The same, in another spelling of as many characters."""
    return "-" * 4 + uuid.replace("-", "")


def reshape(
    world: World, inventories: Mapping[str, object], allocations: Mapping[str, object], *, version: str = "1.39"
) -> int:
    body = {"inventories": inventories, "allocations": allocations}
    return world.ask("POST", "/reshaper", body, who="service", version=version).status_code


@pytest.fixture
def tree(world: World) -> tuple[str, str]:
    """A host whose only consumer holds 2 of its 4 VCPU, and a child that has nothing."""
    host = world.provider("host", VCPU=4, MEMORY_MB=64)
    child = world.provider("child", parent=host)
    assert world.allocate(CONSUMER, host, VCPU=2).status_code == 204
    return host, child


def test_an_inventory_moves_to_a_child_with_what_is_held_of_it(world: World, tree: tuple[str, str]) -> None:
    host, child = tree
    generation = world.generation(host)
    moved = {host: shape(generation, MEMORY_MB=had(64)), child: shape(0, VCPU=had(4))}
    assert reshape(world, moved, {CONSUMER: allocation(child, 1, VCPU=2)}) == 204
    assert world.get(f"/resource_providers/{host}/usages")["usages"] == {"MEMORY_MB": 0}
    assert world.get(f"/resource_providers/{child}/usages")["usages"] == {"VCPU": 2}
    assert list(world.get(f"/allocations/{CONSUMER}")["allocations"]) == [child]
    assert reshape(world, moved, {}) == 409  # the generations that it names are over
    back = {
        host: shape(world.generation(host), MEMORY_MB=had(64), VCPU=had(4)),
        child: shape(world.generation(child)),
    }
    assert reshape(world, back, {CONSUMER: allocation(host, 2, VCPU=2)}) == 204
    assert world.get(f"/resource_providers/{child}/inventories")["inventories"] == {}
    assert world.get(f"/resource_providers/{host}/usages")["usages"] == {"MEMORY_MB": 0, "VCPU": 2}


def test_what_cannot_be_reshaped_changes_nothing(world: World, tree: tuple[str, str]) -> None:
    host, child = tree
    now = world.generation(host)
    whole = {host: shape(now, MEMORY_MB=had(64)), child: shape(0, VCPU=had(4))}
    held = allocation(child, 1, VCPU=2)
    refused: list[tuple[int, JsonObject, JsonObject]] = [
        (409, whole, {}),  # the VCPUs of the host are still held
        (409, {**whole, host: shape(now + 1, MEMORY_MB=had(64))}, {CONSUMER: held}),
        (409, whole, {CONSUMER: {**held, "consumer_generation": 2}}),
        (409, whole, {OTHER: allocation(child, None, VCPU=2)}),
        (409, whole, {CONSUMER: allocation(child, 1, VCPU=5)}),
        (409, {**whole, child: shape(0, VCPU=had(4, max_unit=1))}, {CONSUMER: held}),
        (409, whole, {CONSUMER: allocation(child, 1, VCPU=2, DISK_GB=1)}),
        (400, {**whole, OTHER: shape(0, VCPU=had(4))}, {CONSUMER: held}),
        (400, {**whole, child: shape(0, NOTHING=had(4))}, {CONSUMER: held}),
        (400, {**whole, child: shape(0, VCPU=had(4, more=1))}, {CONSUMER: held}),
        (400, {}, {CONSUMER: held}),
        (400, {**whole, respelled(child): shape(0, VCPU=had(4))}, {CONSUMER: held}),
        (400, whole, {CONSUMER: held, respelled(CONSUMER): held}),
        (400, whole, {CONSUMER: {**held, "more": 1}}),
        (400, whole, {"x": held}),
        (400, whole, {CONSUMER: allocation(OTHER, 1, VCPU=2)}),
    ]
    before = (
        [world.get(f"/resource_providers/{uuid}/inventories") for uuid in tree],
        world.get(f"/allocations/{CONSUMER}"),
    )
    for status, inventories, allocations in refused:
        assert reshape(world, inventories, allocations) == status, (inventories, allocations)
        after = [world.get(f"/resource_providers/{u}/inventories") for u in tree], world.get(f"/allocations/{CONSUMER}")
        assert after == before
    assert reshape(world, whole, {CONSUMER: held}) == 204


def test_versions_of_reshaping(world: World, tree: tuple[str, str]) -> None:
    host, child = tree
    body = {host: shape(world.generation(host), MEMORY_MB=had(64)), child: shape(0, VCPU=had(4))}
    held = allocation(child, 1, VCPU=2)
    assert reshape(world, body, {CONSUMER: held}, version="1.29") == 404
    assert reshape(world, body, {CONSUMER: held}, version="1.37") == 400  # no types of consumers yet
    older = {name: value for name, value in held.items() if name != "consumer_type"}
    assert reshape(world, body, {CONSUMER: {**older, "mappings": {"1": [child]}}}, version="1.33") == 400
    assert reshape(world, body, {CONSUMER: {**older, "mappings": {"1": [child]}}}, version="1.34") == 204


def test_services_alone_may_reshape(world: World, tree: tuple[str, str]) -> None:
    body = {"inventories": {tree[1]: shape(0)}, "allocations": {}}
    for who in ("admin", "manager", "member", "reader", "system"):
        assert world.ask("POST", "/reshaper", body, who=who).status_code == 403
        assert world.ask("POST", "/reshaper", {}, who=who).status_code == 403  # before the body is looked at
    assert world.ask("POST", "/reshaper", {}, who="service").status_code == 400


T = TypeVar("T")
MOST_MS = 20.0
"""The most work in one transaction, in processor time. All other transactions wait for so long."""
ATTEMPTS = 4
PROVIDERS, CONSUMERS = 330, 200
"""As many as a body has room for."""


def numbered(number: int) -> str:
    return str(uuid.UUID(int=number, version=4))


def test_as_many_as_a_body_has_room_for_hold_up_nobody_for_long(
    world: World, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processor time of the writer's thread; of several attempts the least, because the machine may be busy."""
    names = [numbered(number) for number in range(PROVIDERS)]
    row = {"generation": 0, "traits": [], "aggregates": [], "created_at_us": 1, "updated_at_us": 1}
    database.write(
        lambda tx: tx.execute(sa.insert(resource_providers), [{"uuid": one, "name": one, **row} for one in names])
    )
    seen: list[float] = []
    write = Database.write_async

    async def measured(database: Database, fn: Callable[[Tx], T]) -> T:
        def timed(tx: Tx) -> T:
            begun = time.thread_time()
            try:
                return fn(tx)
            finally:
                seen.append((time.thread_time() - begun) * 1000)

        return await write(database, timed)

    monkeypatch.setattr(Database, "write_async", measured)
    for attempt in range(ATTEMPTS):
        shapes = {one: shape(2 * attempt, VCPU=had(1000)) for one in names}
        assert reshape(world, shapes, {}) == 204
    assert world.generation(names[-1]) == 2 * ATTEMPTS
    assert is_within(min(seen), MOST_MS), "many providers"

    for move in range(2):  # The consumers hold nothing, then they hold another provider.
        least = []
        for attempt in range(ATTEMPTS):
            seen.clear()
            there = names[ATTEMPTS * move + attempt]
            known = attempt + ATTEMPTS * move or None
            held = {numbered(10_000 + n): allocation(there, known, VCPU=1) for n in range(CONSUMERS)}
            assert world.ask("POST", "/allocations", held).status_code == 204
            assert world.get(f"/resource_providers/{there}/usages")["usages"] == {"VCPU": CONSUMERS}
            least.append(max(seen))
        assert is_within(min(least), MOST_MS), "many consumers"

    one = names[0]
    generation = world.generation(one)
    seen.clear()
    held = {numbered(20_000 + n): allocation(one, None, VCPU=1) for n in range(CONSUMERS)}
    assert reshape(world, {one: shape(generation, VCPU=had(1000))}, held) == 204
    assert len(seen) == 1
