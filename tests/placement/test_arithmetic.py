"""What fits into a provider, against a formula of its own: the internal claim, the API and the scheduler agree with it.

No parameter is left at the value at which it would not matter: reserved together with ratios, units and steps, what the
consumer holds already, what others hold.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulet.compute.scheduler import HostView, Need, Reason, reject
from cumulet.db.engine import Database, Tx, metadata, opened
from cumulet.placement import allocations as placement
from cumulet.placement.providers import Inventory
from cumulet.placement.store import inventories, resource_providers

from .conftest import TABLES, World, allocation, make_world


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """An inventory, what others and the consumer hold of it, and what the consumer asks for instead of that."""

    inventory: Inventory
    others: int
    own: int
    asked: int

    @property
    def fits(self) -> bool:
        """By the definition in the API's reference, in whole numbers and fractions."""
        offered = self.inventory
        allowed = offered.min_unit <= self.asked <= offered.max_unit and self.asked % offered.step_size == 0
        room = Fraction(offered.total - offered.reserved) * Fraction(offered.allocation_ratio)
        return allowed and (self.others + self.asked <= room or self.asked <= self.own)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    total = draw(st.integers(1, 64))
    step = draw(st.integers(1, 4))
    least = draw(st.integers(1, 8))
    most = draw(st.integers(least, 64))
    # Sixteenths are exact in binary: what is tried is the rule, not rounding.
    inventory = Inventory(
        total=total,
        reserved=draw(st.integers(0, total)),
        min_unit=least,
        max_unit=most,
        step_size=step,
        allocation_ratio=draw(st.integers(1, 64)) / 16,
    )
    capacity = int(Fraction(total - inventory.reserved) * Fraction(inventory.allocation_ratio))
    others, own = draw(st.integers(0, 80)), draw(st.integers(0, 40))
    near = st.sampled_from([max(1, capacity - others + off) for off in (-1, 0, 1)])
    asked = draw(st.one_of(near, st.integers(1, 80), st.integers(1, 20).map(lambda n: n * step)))
    return Case(inventory=inventory, others=others, own=own, asked=asked)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp("placement")
    with opened(f"sqlite:///{folder}/cloud.db") as db:
        metadata.create_all(db.engine, tables=TABLES)
        yield make_world(db, folder)


def provided(db: Database, case: Case) -> tuple[str, str, str]:
    """A new provider with the case's inventory and holdings: its name, its uuid, the consumer."""
    name, provider, consumer = f"host-{uuid.uuid4()}", str(uuid.uuid4()), str(uuid.uuid4())

    def make(tx: Tx) -> None:
        placement.set_inventory(tx, name=name, uuid=provider, inventory={"VCPU": (1000, 1.0)}, now_us=1)
        for holder, amount in ((str(uuid.uuid4()), case.others), (consumer, case.own)):
            if amount:
                placement.claim(
                    tx,
                    consumer=holder,
                    provider=name,
                    resources={"VCPU": amount},
                    project_id="p1",
                    user_id="u1",
                    now_us=1,
                )
        of_this = sa.select(resource_providers.c.id).where(resource_providers.c.name == name).scalar_subquery()
        values = msgspec.structs.asdict(case.inventory)
        tx.execute(sa.update(inventories).where(inventories.c.provider_id == of_this).values(**values))

    db.write(make)
    return name, provider, consumer


@given(case=cases())
@settings(max_examples=250, deadline=None)
def test_a_claim_is_taken_when_it_fits(world: World, case: Case) -> None:
    name, _, consumer = provided(world.cloud.db, case)

    def claim(tx: Tx) -> None:
        placement.claim(
            tx,
            consumer=consumer,
            provider=name,
            resources={"VCPU": case.asked},
            project_id="p1",
            user_id="u1",
            now_us=2,
        )

    try:
        world.cloud.db.write(claim)
        taken = True
    except placement.InsufficientCapacity:
        taken = False
    assert taken is case.fits
    expected = case.asked if taken else case.own
    held = world.cloud.db.read(lambda tx: placement.held(tx, consumer))
    assert held == ({name: {"VCPU": expected}} if expected else {})


@given(case=cases())
@settings(max_examples=100, deadline=None)
def test_the_api_takes_what_the_internal_claim_takes(world: World, case: Case) -> None:
    """The API's rule for an overfull provider is the same: what becomes no fuller is taken."""
    _, provider, consumer = provided(world.cloud.db, case)
    answer = world.ask(
        "PUT", f"/allocations/{consumer}", allocation(provider, 1 if case.own else None, VCPU=case.asked)
    )
    assert answer.status_code == (204 if case.fits else 409), answer.text


@given(case=cases())
@settings(max_examples=300, deadline=None)
def test_the_scheduler_passes_over_what_would_refuse_the_claim(case: Case) -> None:
    """Nothing is held there by whoever is to be placed."""
    offered = case.inventory
    view = HostView(
        name="host1",
        zone="nova",
        up=True,
        disabled=False,
        free_vcpus=float(Fraction(offered.total - offered.reserved) * Fraction(offered.allocation_ratio)) - case.others,
        free_memory_mib=0.0,
        free_disk_gib=0.0,
        driver="d",
        cpu_models=frozenset(),
        machine_types=frozenset(),
        inventories={"VCPU": offered},
    )
    fits = msgspec.structs.replace(case, own=0).fits
    reason = reject(view, Need(vcpus=case.asked, memory_mib=0, disk_gib=0))
    assert reason is (None if fits else Reason.INSUFFICIENT_VCPU)


@given(case=cases())
@settings(max_examples=300, deadline=None)
def test_capacity_is_what_is_not_reserved_times_the_ratio(case: Case) -> None:
    offered = case.inventory
    exact = Fraction(offered.total - offered.reserved) * Fraction(offered.allocation_ratio)
    assert offered.room == exact
    assert offered.capacity == exact // 1
    assert offered.fits(case.asked, case.others) is msgspec.structs.replace(case, own=0).fits


def test_what_is_asked_for_none_of_is_not_claimed(world: World) -> None:
    """Of a class that the provider does not even offer."""
    offered = Inventory(total=4, reserved=0, min_unit=1, max_unit=4, step_size=1, allocation_ratio=1.0)
    name, _, consumer = provided(world.cloud.db, Case(inventory=offered, others=0, own=0, asked=2))

    def claim(tx: Tx) -> None:
        resources = {"VCPU": 2, "DISK_GB": 0}
        placement.claim(
            tx, consumer=consumer, provider=name, resources=resources, project_id="p1", user_id="u1", now_us=2
        )

    world.cloud.db.write(claim)
    assert world.cloud.db.read(lambda tx: placement.held(tx, consumer)) == {name: {"VCPU": 2}}


@pytest.mark.parametrize(("own", "keep", "left"), [(6, 4, 4), (4, 6, 4), (4, 4, 4), (4, 0, 0)])
def test_a_share_is_lessened_on_an_overfull_provider_too(world: World, own: int, keep: int, left: int) -> None:
    """It is never refused, and never becomes more; a class that is not named stays."""
    offered = Inventory(total=2, reserved=0, min_unit=1, max_unit=2, step_size=2, allocation_ratio=1.0)
    name, _, consumer = provided(world.cloud.db, Case(inventory=offered, others=9, own=own, asked=1))
    for _ in range(2):
        world.cloud.db.write(
            lambda tx: placement.lessen(tx, consumer=consumer, provider=name, resources={"VCPU": keep}, now_us=2)
        )
    world.cloud.db.write(
        lambda tx: placement.lessen(tx, consumer=consumer, provider=name, resources={"DISK_GB": 1}, now_us=2)
    )
    assert world.cloud.db.read(lambda tx: placement.held(tx, consumer)) == ({name: {"VCPU": left}} if left else {})


FOUR = Inventory(total=4, reserved=0, min_unit=1, max_unit=4, step_size=1, allocation_ratio=1.0)


def generation(world: World, consumer: str) -> int:
    found: int = world.ask("GET", f"/allocations/{consumer}").json()["consumer_generation"]
    return found


@pytest.mark.parametrize(("keep", "rises"), [(2, True), (3, False), (4, False)])
def test_whoever_read_a_share_before_it_was_lessened_may_not_replace_it(world: World, keep: int, rises: bool) -> None:
    name, provider, consumer = provided(world.cloud.db, Case(inventory=FOUR, others=0, own=3, asked=1))
    before = generation(world, consumer)
    world.cloud.db.write(
        lambda tx: placement.lessen(tx, consumer=consumer, provider=name, resources={"VCPU": keep}, now_us=2)
    )
    assert (generation(world, consumer) != before) is rises
    answer = world.ask("PUT", f"/allocations/{consumer}", allocation(provider, before, VCPU=4))
    assert answer.status_code == (409 if rises else 204), answer.text


@pytest.mark.parametrize("there", [True, False])
def test_whoever_hands_a_share_over_or_is_given_none_is_a_new_consumer_afterwards(world: World, there: bool) -> None:
    """Whoever is left with nothing is forgotten, as at the API: the next claim is a first one."""
    case = Case(inventory=FOUR, others=0, own=3, asked=1)
    name, provider, consumer = provided(world.cloud.db, case)
    elsewhere, _, _ = provided(world.cloud.db, case)
    target = str(uuid.uuid4())
    world.cloud.db.write(
        lambda tx: placement.hand_over(
            tx,
            source=consumer,
            target=target,
            provider=name if there else elsewhere,
            now_us=2,
            target_type="MIGRATION",
        )
    )
    holds, new = (target, consumer) if there else (consumer, target)
    assert world.cloud.db.read(lambda tx: placement.held(tx, holds)) == {name: {"VCPU": 3}}
    answers = [world.ask("PUT", f"/allocations/{one}", allocation(provider, None, VCPU=1)) for one in (holds, new)]
    assert [answer.status_code for answer in answers] == [409, 204]


def test_what_is_given_back_of_one_provider_is_kept_of_others(world: World) -> None:
    case = Case(inventory=FOUR, others=0, own=0, asked=1)
    one, another = (provided(world.cloud.db, case)[0] for _ in range(2))
    consumer = str(uuid.uuid4())

    def claim_both(tx: Tx) -> None:
        for name in (one, another):
            placement.claim(
                tx, consumer=consumer, provider=name, resources={"VCPU": 2}, project_id="p1", user_id="u1", now_us=1
            )

    world.cloud.db.write(claim_both)
    world.cloud.db.write(lambda tx: placement.release(tx, consumer=consumer, provider=one, now_us=2))
    assert world.cloud.db.read(lambda tx: placement.held(tx, consumer)) == {another: {"VCPU": 2}}


def test_all_that_a_host_has_can_be_claimed_once_it_has_more(world: World) -> None:
    name, consumer = f"host-{uuid.uuid4()}", str(uuid.uuid4())

    def grow_and_claim(tx: Tx) -> None:
        for total in (4, 8):
            placement.set_inventory(tx, name=name, uuid=str(uuid.uuid4()), inventory={"VCPU": (total, 1.0)}, now_us=1)
        placement.claim(
            tx, consumer=consumer, provider=name, resources={"VCPU": 8}, project_id="p1", user_id="u1", now_us=2
        )

    world.cloud.db.write(grow_and_claim)
    assert world.cloud.db.read(lambda tx: placement.held(tx, consumer)) == {name: {"VCPU": 8}}
