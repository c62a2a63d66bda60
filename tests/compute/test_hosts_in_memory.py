"""Hosts are chosen from memory, and every choice is the one that reading all of them anew would make."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pytest
import sqlalchemy as sa

from cumulet.compute import host_views, hosts_in_memory, store
from cumulet.compute import hosts as host_records
from cumulet.compute.hosts_in_memory import HostsInMemory
from cumulet.compute.scheduler import HostView, Need, Reason
from cumulet.db import schema
from cumulet.db.engine import Database, Tx, opened
from cumulet.host.driver import HostFacts
from cumulet.placement import allocations as placement
from cumulet.processes.parts import load_services
from cumulet.settings import Settings
from cumulet.testing import TestCloud
from cumulet.testing.clock import AdvanceableClock
from tests.api.test_compute_servers import create

NEED = Need(vcpus=1, memory_mib=1024, disk_gib=1)
SHARE = {placement.VCPU: 1, placement.MEMORY_MB: 1024, placement.DISK_GB: 1}


def facts_of(name: str, features: Iterable[str], **more: object) -> HostFacts:
    return msgspec.convert(
        {
            "name": name, "driver": "simulated", "hypervisor_type": "simulated", "hypervisor_version": 1, "vcpus": 8,
            "memory_mib": 2048, "disk_gib": 100, "cpu_models": ["simulated"], "machine_types": ["simulated-1.0"],
            "features": list(features), "address": "127.0.0.1", "booted_at_us": 0, **more,
        },
        HostFacts,
    )  # fmt: skip


@contextmanager
def of_hosts(folder: Path, features: dict[str, tuple[str, ...]]) -> Iterator[Database]:
    """A database of hosts with these features."""
    load_services()
    clock = AdvanceableClock()
    settings = Settings(state_dir=folder, database_url=f"sqlite:///{folder / 'db'}", host_names=tuple(features))
    with opened(settings.database_url) as database:
        schema.prepare(database)
        for name, offered in features.items():
            facts = facts_of(name, offered)
            database.write(
                lambda tx, facts=facts: host_records.register(tx, facts, clock=clock, settings=settings)  # type: ignore[misc]
            )
        yield database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Two hosts with room for two shares each, in memory."""
    with of_hosts(tmp_path, {"host1": (), "host2": ()}) as database:
        database.keeper = HostsInMemory()
        assert load(database) == ["host1", "host2"]
        yield database


def load(database: Database) -> list[str]:
    assert isinstance(database.keeper, HostsInMemory)
    return asyncio.run(database.keeper.load(database))


def claim(tx: Tx, consumer: str, host: str | None = None) -> str:
    """Choose, then claim, as a boot does."""
    chosen = host or hosts_in_memory.pick(tx, NEED).host
    assert chosen is not None
    placement.claim(
        tx, consumer=consumer, provider=chosen, resources=SHARE, project_id="project", user_id="user", now_us=1
    )
    return chosen


def free_mib(database: Database) -> dict[str, float]:
    assert isinstance(database.keeper, HostsInMemory)
    return {name: view.free_memory_mib for name, view in database.keeper.views().items()}


def test_what_was_committed_is_known_when_its_caller_hears_of_it(database: Database) -> None:
    database.write(lambda tx: claim(tx, "a", "host1"))
    assert free_mib(database) == {"host1": 1024, "host2": 2048}
    database.write(lambda tx: placement.release(tx, consumer="a", now_us=1))
    assert free_mib(database) == {"host1": 2048, "host2": 2048}
    database.write(lambda tx: host_records.set_up(tx, "host1", up=False, now_us=1))
    assert database.read(lambda tx: hosts_in_memory.pick(tx, NEED)).rejected == {"host1": Reason.HOST_DOWN}
    assert load(database) == []


def test_what_was_rolled_back_is_not_known(database: Database) -> None:
    def fails(tx: Tx) -> None:
        claim(tx, "a", "host1")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        database.write(fails)
    assert free_mib(database) == {"host1": 2048, "host2": 2048}


def test_choices_of_one_transaction_see_each_other(database: Database) -> None:
    def claims(tx: Tx) -> list[str]:
        chosen = [claim(tx, f"server {n}") for n in range(4)]
        assert hosts_in_memory.pick(tx, NEED).host is None
        placement.release(tx, consumer="server 0", now_us=1)
        assert hosts_in_memory.pick(tx, NEED).host == chosen[0]
        return chosen

    assert sorted(database.write(claims)) == ["host1", "host1", "host2", "host2"]
    assert load(database) == []


def test_choices_of_one_group_commit_see_each_other(database: Database) -> None:
    """No claim is committed when the next one chooses, so memory does not know of any."""

    go_on = threading.Event()

    async def story() -> list[str]:
        before = database.write_async(lambda tx: go_on.wait(10))
        waiting = [database.write_async(lambda tx, n=n: claim(tx, f"server {n}")) for n in range(4)]  # type: ignore[misc]
        tasks = [asyncio.ensure_future(one) for one in (before, *waiting)]
        await asyncio.sleep(0)
        go_on.set()
        return [str(await task) for task in tasks[1:]]

    assert sorted(asyncio.run(story())) == ["host1", "host1", "host2", "host2"]
    assert load(database) == []


def test_what_is_committed_while_all_is_read_is_not_forgotten(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = host_views.views

    def slow(tx: Tx) -> list[HostView]:
        found = views(tx)
        database.write(lambda other: claim(other, "a", "host1"))
        return found

    monkeypatch.setattr(host_views, "views", slow)
    assert load(database) == []
    assert free_mib(database) == {"host1": 1024, "host2": 2048}


def test_what_others_wrote_is_seen_by_the_choice(database: Database) -> None:
    """As with PostgreSQL, where others write: what memory does not know of a host is read before the host is taken."""
    keeper, database.keeper = database.keeper, None
    for n in range(2):
        database.write(lambda tx, n=n: claim(tx, f"server {n}", "host1"))  # type: ignore[misc]
    database.keeper = keeper
    assert free_mib(database)["host1"] == 2048
    assert database.read(lambda tx: hosts_in_memory.pick(tx, NEED)).host == "host2"
    assert load(database) == ["host1"]


def test_a_boot_reads_two_hosts_and_not_all(cloud: TestCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(tx: Tx) -> Any:
        raise AssertionError("all hosts were read")

    with monkeypatch.context() as patched:
        patched.setattr(host_views, "views", refused)
        assert create(cloud.persona("member"))["status"] == "ACTIVE"


def test_routers_are_on_hosts_that_lead_to_public_if_any_do(tmp_path: Path) -> None:
    offered = {"host1": ("networks",), "host2": ("networks", "public"), "host3": ("public",), "host4": ("networks",)}
    with of_hosts(tmp_path, offered) as database:
        assert database.read(host_records.all_hosts).for_routers == ("host2",)
        declare(database, "host2", disabled=True)
        assert database.read(host_records.all_hosts).for_routers == ("host1", "host4")


def declare(database: Database, host: str, **columns: bool) -> None:
    """As an administrator does."""

    def write(tx: Tx) -> None:
        tx.touch(host)
        tx.execute(sa.update(store.hosts).where(store.hosts.c.name == host).values(**columns))

    database.write(write)


def test_a_silent_host_without_a_watchdog_keeps_its_routers_until_an_administrator_says_that_it_is_down(
    tmp_path: Path,
) -> None:
    with of_hosts(tmp_path, {"host1": ("networks",), "host2": ("networks",)}) as database:
        database.keeper = HostsInMemory()
        load(database)

        def have_routers() -> list[str]:
            from_memory = database.read(hosts_in_memory.for_routers)
            assert from_memory == database.read(host_records.all_hosts).for_routers
            return list(from_memory)

        for host in ("host1", "host2"):
            database.write(lambda tx, host=host: host_records.set_up(tx, host, up=False, now_us=1))  # type: ignore[misc]
        assert have_routers() == ["host1", "host2"], "both may be alive"
        declare(database, "host1", forced_down=True)
        assert have_routers() == ["host2"]
        declare(database, "host2", disabled=True)
        assert have_routers() == []


def test_a_host_with_a_watchdog_has_routers_only_while_it_holds_its_lease(tmp_path: Path) -> None:
    """If it holds none and falls silent, it would keep its routers while another host has them, too."""
    offered: dict[str, tuple[str, ...]] = {"host1": ("networks",), "host2": ("networks",)}
    with of_hosts(tmp_path, offered) as database:
        database.keeper = HostsInMemory()
        load(database)
        clock = AdvanceableClock()
        settings = Settings(state_dir=tmp_path, database_url="sqlite://", host_names=tuple(offered))
        for held, expected in ((False, ["host1"]), (True, ["host1", "host2"])):
            facts = facts_of("host2", ("networks",), lease_seconds=4.0, lease_held=held)
            database.write(lambda tx, f=facts: host_records.register(tx, f, clock=clock, settings=settings))  # type: ignore[misc]
            assert database.read(host_records.all_hosts).for_routers == tuple(expected)
            assert database.read(hosts_in_memory.for_routers) == tuple(expected)
        database.write(lambda tx: host_records.set_up(tx, "host2", up=False, now_us=1))
        assert database.read(hosts_in_memory.for_routers) == ("host1",), "its lease has run out"


def test_of_two_commits_that_are_heard_of_in_the_wrong_order_the_later_one_counts(database: Database) -> None:
    """On PostgreSQL each commits on a thread of its own, and one may rest between its commit and saying so."""
    keeper = database.keeper
    assert isinstance(keeper, HostsInMemory)
    earlier = database.read(lambda tx: keeper.correction(tx, ["host1"]))
    with held_back() as later:
        database.write(lambda tx: claim(tx, "one", "host1"))
    for correct in (*later, earlier):
        correct()
    assert keeper.views()["host1"].free_memory_mib == 1024
    assert load(database) == []


def test_what_is_committed_and_not_heard_of_yet_is_no_mistake_of_memory(database: Database) -> None:
    with held_back() as later:
        database.write(lambda tx: claim(tx, "one", "host1"))
    assert load(database) == []
    for correct in later:
        correct()
    assert load(database) == []
    keeper = database.keeper
    assert isinstance(keeper, HostsInMemory)
    keeper._set("host1", None)
    assert load(database) == ["host1"], "a mistake is one still"


def test_a_transaction_that_failed_hides_no_mistake(database: Database) -> None:
    keeper = database.keeper
    assert isinstance(keeper, HostsInMemory)
    database.read(lambda tx: keeper.correction(tx, ["host1"]))
    gc.collect()
    keeper._set("host1", None)
    assert load(database) == ["host1"]


@contextmanager
def held_back() -> Iterator[list[Callable[[], None]]]:
    """What is to be called after commits, which is not called."""
    held: list[Callable[[], None]] = []

    def committed(tx: Tx) -> None:
        held.extend(tx._after_commit)

    with mock.patch.object(Tx, "committed", committed):
        yield held


def test_a_host_that_answers_is_told_of_its_networks_whatever_an_administrator_says_of_it(tmp_path: Path) -> None:
    """Its guests may run, so they must have the rules of today."""
    with of_hosts(tmp_path, {"host1": ("networks",), "host2": ("networks",), "host3": ()}) as database:
        database.keeper = HostsInMemory()
        load(database)
        declare(database, "host1", forced_down=True)
        database.write(lambda tx: host_records.set_up(tx, "host2", up=False, now_us=1))
        assert database.read(host_records.all_hosts).with_packets == ("host1",)
        assert database.read(hosts_in_memory.with_packets) == ["host1"]
