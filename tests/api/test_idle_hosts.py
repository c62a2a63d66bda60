"""A host that says nothing new costs a question, and no write."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import msgspec
import pytest
import sqlalchemy as sa

import cumulet.testing
from cumulet.compute import heard
from cumulet.compute import hosts as host_records
from cumulet.compute.host_watch import ASKED_AT_ONCE, HostWatch
from cumulet.compute.store import hosts
from cumulet.compute.wiring import wire
from cumulet.db.engine import Database, Tx
from cumulet.host.driver import GuestState, HostFacts
from cumulet.placement.store import inventories, resource_providers
from cumulet.testing import Client, TestCloud
from tests.api.test_compute_servers import create


def seen_at_us(cloud: TestCloud) -> int:
    return int(
        cloud.embedded.db.read(lambda tx: tx.scalar(sa.select(hosts.c.seen_at_us).where(hosts.c.name == "host1")))
    )


@pytest.fixture
def recorded(cloud: TestCloud, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of hosts as they are recorded."""
    seen: list[str] = []
    register = host_records.register

    def noted(tx: object, *said: HostFacts, **named: object) -> None:
        seen.extend(facts.name for facts in said)
        register(tx, *said, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(host_records, "register", noted)
    return seen


def test_only_news_is_recorded(
    cloud: TestCloud, member: Client, recorded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(host: str = "host1") -> bool:
        """Whether what it says is recorded. (The cloud asks by itself, too, and that counts as well.)"""
        before = recorded.count(host)
        cloud.await_(cloud.embedded.conductor.reconciler(HostWatch).round(host))
        return recorded.count(host) > before

    look()
    assert not look()
    with monkeypatch.context() as patched:
        patched.setattr(heard, "RECORD_SECONDS", 0.0)
        before = seen_at_us(cloud)
        cloud.clock.advance(1.0)
        assert not look()
        assert seen_at_us(cloud) >= before + 1_000_000, "that it was heard is recorded now and then"
    cloud.embedded.db.write(lambda tx: host_records.set_up(tx, "host1", up=False, now_us=1))
    assert look()
    assert not look()
    world = cloud.embedded.world
    assert world is not None
    with monkeypatch.context() as patched:
        patched.setattr(world.drivers["host1"], "_booted_at_us", 5)
        assert look()
    look()
    server = create(member)
    host = cloud.persona("admin").server(server["id"])["OS-EXT-SRV-ATTR:host"]
    look(host)
    assert not look(host), "its guests are as the records say"
    member.compute("PUT", f"/servers/{server['id']}", {"server": {"name": "another"}})
    assert look(host), "the record has changed"
    assert not look(host)
    guest = world.drivers[host]._guests[server["id"]]
    guest.state = GuestState.STOPPED
    assert look(host), "the guest has changed"
    assert cloud.persona("admin").server(server["id"])["status"] == "SHUTOFF"


def test_what_somebody_removes_or_changes_of_its_inventory_is_put_right(cloud: TestCloud) -> None:
    db = cloud.embedded.db

    def look() -> dict[str, int]:
        cloud.await_(cloud.embedded.conductor.reconciler(HostWatch).round("host1"))
        return db.read(lambda tx: host_records.recorded_totals(tx, ["host1"]))["host1"]

    of_host1 = sa.select(resource_providers.c.id).where(resource_providers.c.name == "host1").scalar_subquery()
    here = inventories.c.provider_id == of_host1
    totals = look()
    assert len(totals) == 3
    for change in (
        [sa.update(inventories).where(here).values(total=1)],
        [sa.delete(inventories).where(here, inventories.c.resource_class == "VCPU")],
        [sa.delete(inventories).where(here), sa.delete(resource_providers).where(resource_providers.c.name == "host1")],
    ):
        db.write(lambda tx, change=change: [tx.execute(one) for one in change])  # type: ignore[misc]
        assert look() == totals


def test_whoever_leads_again_records_what_hosts_say_anew(cloud: TestCloud) -> None:
    """Another one has led meanwhile, and has recorded something else."""
    embedded = cloud.embedded
    watch = embedded.conductor.reconciler(HostWatch)
    cloud.await_(watch.round("host1"))
    cloud.await_(watch.stop())
    facts = msgspec.structs.replace(cloud.await_(embedded.hosts.facts("host1")), features=("what it was",))
    embedded.db.write(lambda tx: host_records.register(tx, facts, clock=cloud.clock, settings=embedded.settings))
    cloud.await_(watch.start())
    assert embedded.db.read(lambda tx: host_records.offers(tx, "host1", "networks"))


class Counted:
    """The database, as one of those who use it has it; `times` it was asked to write."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.times = 0

    async def write_async(self, fn: Callable[[Tx], object]) -> object:
        self.times += 1
        return await self._database.write_async(fn)


def test_that_many_were_heard_is_one_write(cloud: TestCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = cloud.embedded.conductor.reconciler(HostWatch)
    cloud.await_(watch.stop())  # It would record by itself, too.
    try:
        _heard_by_one_write(cloud, watch, monkeypatch)
    finally:
        cloud.await_(watch.start())


def _heard_by_one_write(cloud: TestCloud, watch: HostWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    db = cloud.embedded.db
    names = list(cloud.hosts)
    for name in names:
        cloud.await_(watch.round(name))
    written = Counted(db)

    async def both() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(heard, "RECORD_SECONDS", 0.0)
            patched.setattr(watch._records, "_db", written)
            for name in names:
                watch._records.again(name, cloud.clock.monotonic())
            await watch._records.record(names)
            await watch._records.record(names)

    cloud.clock.advance(1.0)
    cloud.await_(both())
    assert written.times == 1
    rows = db.read(lambda tx: tx.all(sa.select(hosts.c.seen_at_us)))
    assert len({row.seen_at_us for row in rows}) == 1
    db.write(lambda tx: host_records.set_up(tx, "host1", up=False, now_us=1))
    db.write(lambda tx: host_records.heard_again(tx, names, now_us=2))
    assert db.read(lambda tx: host_records.heard_of(tx, names)) == {"host2": False}


def test_a_host_that_was_removed_while_it_was_asked_is_not_known_again(cloud: TestCloud, admin: Client) -> None:
    embedded = cloud.embedded
    facts = msgspec.structs.replace(cloud.await_(embedded.hosts.facts("host1")), name="removed")
    embedded.db.write(lambda tx: host_records.register(tx, facts, clock=cloud.clock, settings=embedded.settings))
    services = admin.compute("GET", "/os-services?binary=nova-compute")["services"]
    assert {service["host"] for service in services} == set(cloud.hosts)


def test_nothing_is_kept_of_a_host_that_has_left(cloud: TestCloud) -> None:
    embedded = cloud.embedded
    watch = embedded.conductor.reconciler(HostWatch)
    link = embedded.hosts.link("host2")

    def kept() -> set[str]:
        """What names host2, of all that is kept by host."""
        return {
            f"{type(keeper).__name__}.{name}"
            for keeper in (embedded.hosts, watch, watch._records)
            for name, by_host in vars(keeper).items()
            if isinstance(by_host, dict | set) and "host2" in by_host
        }

    async def leave() -> None:
        await watch.round("host2")
        await wire(embedded.hosts, embedded.db.read_async, cloud.clock, "host2")
        assert {"HostWatch._seen_at", "Heard._facts", "Hosts._told"} <= kept()
        embedded.hosts.remove("host2")
        for _ in range(5):  # Turns of the loop, for the task that follows hosts.
            await asyncio.sleep(0)
        await asyncio.gather(*watch._asking.values(), return_exceptions=True)
        assert not kept()

    try:
        cloud.await_(leave())
    finally:
        embedded.hosts.add("host2", link)


def test_others_have_a_turn_while_many_hosts_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    many = 5 * ASKED_AT_ONCE
    asked: list[str] = []
    turns: list[int] = []
    """How many hosts had been asked at each turn of the event loop."""

    async def ask(name: str, _records: heard.Known) -> None:
        asked.append(name)

    def turn() -> None:
        turns.append(len(asked))
        if len(asked) < many:
            asyncio.get_running_loop().call_soon(turn)

    with cumulet.testing.cloud(hosts=many) as cloud:
        watch = cloud.embedded.conductor.reconciler(HostWatch)

        async def story() -> None:
            await watch.stop()
            monkeypatch.setattr(watch, "_ask", ask)
            turn()
            await watch._ask_part(set(cloud.hosts))
            await asyncio.gather(*watch._asking.values())

        cloud.await_(story())
    assert sorted(asked) == sorted(cloud.hosts)
    assert max(after - before for before, after in itertools.pairwise(turns)) == ASKED_AT_ONCE
