"""What one server costs does not grow with the hosts there are: rows read are counted, since time depends on others."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

import cumulet.testing
from cumulet.compute import hosts_in_memory
from cumulet.compute.host_watch import HostWatch
from cumulet.db.engine import Database
from cumulet.db.transaction import Tx
from cumulet.testing import JsonObject, TestCloud
from cumulet.testing.databases import VARIABLE
from tests.api.test_compute_servers import ask_for

FEW, MANY = 3, 120
HALF = (MANY - FEW) // 2
"""Who reads all hosts once reads more rows than that."""
NOBODY_ASKS: JsonObject = {"host_silent_seconds": 36_000.0}


class Rows:
    """Counts the rows that transactions read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        for name in ("all", "first"):
            monkeypatch.setattr(Tx, name, self._counting(getattr(Tx, name)))

    def _counting(self, read: Callable[..., object]) -> Callable[..., Any]:
        def counted(*arguments: object) -> Any:
            found = read(*arguments)
            self.count += len(found) if isinstance(found, list) else 1
            return found

        return counted


def rows_of_a_boot_and_a_move(hosts: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    with cumulet.testing.cloud(hosts=hosts, **NOBODY_ASKS) as cloud, monkeypatch.context() as patched:
        member, admin = cloud.persona("member"), cloud.persona("admin")
        cloud.idle()
        cloud.embedded.db.read(hosts_in_memory.for_routers)  # On PostgreSQL all are read after a change.
        rows = Rows(patched)
        server_id = ask_for(member, networks="auto")["server"]["id"]
        cloud.idle()
        boot, rows.count = rows.count, 0
        source = admin.server(server_id)["OS-EXT-SRV-ATTR:host"]
        rows.count = 0
        admin.action(server_id, {"os-migrateLive": {"host": None, "block_migration": "auto"}})
        cloud.idle()
        move = rows.count
        assert member.server(server_id)["status"] == "ACTIVE"
        assert admin.server(server_id)["OS-EXT-SRV-ATTR:host"] != source
    return boot, move


def test_a_boot_and_a_move_read_no_more_where_there_are_many_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    few = rows_of_a_boot_and_a_move(FEW, monkeypatch)
    many = rows_of_a_boot_and_a_move(MANY, monkeypatch)
    assert many[0] < few[0] + HALF, "a boot looks at the hosts with most room, and at no others"
    assert many[1] < few[1] + HALF


def test_the_start_of_many_hosts_reads_each_of_them_and_not_all_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        rows = Rows(patched)
        with cumulet.testing.cloud(hosts=FEW, **NOBODY_ASKS):
            few, rows.count = rows.count, 0
        rows.count = 0
        with cumulet.testing.cloud(hosts=MANY, **NOBODY_ASKS):
            many = rows.count
    assert many - few < 20 * (MANY - FEW)


@pytest.mark.skipif(VARIABLE in os.environ, reason="about SQLite itself")
def test_a_host_that_says_nothing_new_changes_no_thread(cloud: TestCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite is in our own address space: two lookups cost less than handing them to a thread."""
    watch = cloud.embedded.conductor.reconciler(HostWatch)
    cloud.await_(watch.round("host1"))

    async def refused(_database: Database, _fn: object) -> Any:
        raise AssertionError("a thread was asked")

    async def round_of_host1() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(Database, "read_async", refused)
            patched.setattr(Database, "write_async", refused)
            await watch.round("host1")

    cloud.await_(round_of_host1())
