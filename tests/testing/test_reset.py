"""`reset` undoes what a test did: to time and tokens too. After the end there is nothing to reset."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

import cumulet.testing
from cumulet.compute.hosts_in_memory import HostsInMemory
from cumulet.db.engine import Tx, metadata
from cumulet.identity.store import roles
from cumulet.image.files import image_folder, stored
from cumulet.testing import TestCloud, snapshot
from cumulet.testing.snapshot import Snapshot

HOUR = 3600.0


def test_time_of_day_comes_back_and_kept_personas_go_on() -> None:
    with cumulet.testing.cloud(hosts=1) as cloud:
        cloud.keep("admin", "member")
        member = cloud.persona("member")
        for hours in (0.6, 2, 10, 24 * 30):
            cloud.clock.advance(hours * HOUR)
            cloud.reset()
            assert abs(cloud.clock.now_us() - time.time_ns() // 1000) < HOUR * 1_000_000 / 2
            assert cloud.persona("member") is member
            assert member.compute("GET", "/servers").status == 200
            assert cloud.persona("admin").request("GET", "/identity/v3/users").status == 200
            assert cloud.user("late", project="own", roles=("reader",)).compute("GET", "/servers").status == 200


def boot(cloud: TestCloud) -> None:
    member = cloud.persona("member")
    image = member.request("GET", "/image/v2/images")["images"][0]["id"]
    flavor = member.compute("GET", "/flavors")["flavors"][0]["id"]
    server = {"name": "s", "imageRef": image, "flavorRef": flavor, "networks": "none"}
    made = member.compute("POST", "/servers", {"server": server})
    assert made.status == 202, made.text
    member.wait_for_status(made["server"]["id"], "ACTIVE")


def all_rows(tx: Tx) -> dict[str, list[str]]:
    """Without the number of changes in Identity, which goes on."""
    tables = [table for table in metadata.sorted_tables if table.name != "identity_generation"]
    return {table.name: sorted(map(str, tx.all(sa.select(table)))) for table in tables}


def emptied(tx: Tx, table: sa.Table) -> None:
    """After all that refers to it."""
    gone = [table]
    for other in metadata.sorted_tables:
        if any(key.column.table in gone for key in other.foreign_keys):
            gone.append(other)
    for each in reversed(gone):
        tx.execute(sa.delete(each))


def test_whatever_table_was_emptied_is_as_before(cloud: TestCloud) -> None:
    def empty_and_restore(tx: Tx) -> int:
        snapshot, before = Snapshot(tx), all_rows(tx)
        filled = [name for name, rows in before.items() if rows]
        for name in filled:
            emptied(tx, metadata.tables[name])
            assert all_rows(tx) != before
            snapshot.restore(tx)
            assert all_rows(tx) == before, name
        return len(filled)

    boot(cloud)
    assert cloud.embedded.db.write(empty_and_restore) > 20


def test_rows_that_went_with_a_changed_row_are_as_before(cloud: TestCloud) -> None:
    def change_and_restore(tx: Tx) -> None:
        snapshot, before = Snapshot(tx), all_rows(tx)
        tx.execute(sa.update(roles).values(description="changed"))
        snapshot.restore(tx)
        assert all_rows(tx) == before

    cloud.embedded.db.write(change_and_restore)


def test_what_a_test_made_and_changed_is_gone(cloud: TestCloud) -> None:
    before = cloud.embedded.db.read(all_rows)
    boot(cloud)
    member = cloud.persona("member")
    assert cloud.persona("admin").request("DELETE", f"/identity/v3/projects/{member.project_id}").status == 204
    changed = [name for name, rows in cloud.embedded.db.read(all_rows).items() if rows != before[name]]
    assert len(changed) > 5
    cloud.reset()
    after = cloud.embedded.db.read(all_rows)
    assert [name for name in changed if after[name] != before[name]] == []
    assert member.compute("GET", "/servers").status == 200


def test_a_server_boots_after_time_went_on_and_came_back(cloud: TestCloud) -> None:
    cloud.clock.advance(10 * HOUR)
    cloud.reset()
    boot(cloud)


def test_a_server_boots_after_the_conductor_was_killed(cloud: TestCloud) -> None:
    cloud.kill_conductor()
    cloud.reset()
    boot(cloud)


def test_connections_are_closed_by_a_reset_and_may_be_used_again(cloud: TestCloud) -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))

    connection = cloud.connection("demo")
    assert list(connection.compute.flavors())
    before = opened()
    cloud.reset()
    assert opened() < before
    assert list(connection.compute.flavors())


def test_measured_time_never_goes_back(cloud: TestCloud) -> None:
    cloud.clock.advance(HOUR)
    before = cloud.clock.monotonic()
    cloud.reset()
    assert cloud.clock.monotonic() >= before


def test_a_reset_and_the_timer_may_read_hosts_at_once(cloud: TestCloud) -> None:
    # Where others could lead, too, a jump of the clock in an earlier test has ended the lead for a moment.
    cloud.persona("admin").wait("the lead", lambda: cloud.embedded.db.keeper is not None)
    keeper = cloud.embedded.db.keeper
    assert isinstance(keeper, HostsInMemory)

    async def read_twice() -> list[list[str]]:
        return await asyncio.gather(*(keeper.load(cloud.embedded.db) for _ in range(2)))

    assert cloud.await_(read_twice()) == [[], []]


def test_failed_logins_are_forgotten(cloud: TestCloud) -> None:
    password = cloud.embedded.passwords.by_user["demo"]
    for _ in range(cloud.embedded.settings.login_failures_per_minute + 1):
        with pytest.raises(PermissionError):
            cloud.login("demo", "wrong")
    with pytest.raises(PermissionError, match="429"):
        cloud.login("demo", password)
    cloud.reset()
    assert cloud.login("demo", password).token is not None


def test_a_token_that_was_ended_is_whole_again() -> None:
    with cumulet.testing.cloud(hosts=1) as cloud:
        cloud.keep("admin", "member")
        member = cloud.persona("member")
        assert member.token is not None
        headers = {"X-Subject-Token": member.token}
        assert member.request("DELETE", "/identity/v3/auth/tokens", headers=headers).status == 204
        assert member.compute("GET", "/servers").status == 401
        cloud.reset()
        assert member.compute("GET", "/servers").status == 200


def test_a_cloud_that_has_ended_says_so() -> None:
    with cumulet.testing.cloud(hosts=1) as cloud:
        member = cloud.persona("member")
    for ask in (
        cloud.reset,
        cloud.keep,
        cloud.idle,
        cloud.reconcile,
        cloud.kill_conductor,
        lambda: cloud.guests("host1"),
        lambda: cloud.connection("demo"),
        lambda: cloud.network,
        lambda: cloud.persona("reader"),
        lambda: cloud.user("ann", project="own", roles=("member",)),
        lambda: cloud.login("demo", "x"),
        lambda: member.compute("GET", "/servers"),
    ):
        with pytest.raises(RuntimeError, match="has ended"):
            ask()
    assert "ended" in repr(cloud)


def test_a_file_that_is_taken_away_while_it_is_remembered_is_looked_for_once_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As by an import that goes on when its cloud starts."""
    looks = 0

    def look(folder: Path) -> frozenset[str]:
        nonlocal looks
        looks += 1
        return stored(folder) | ({"gone"} if looks == 1 else set())

    with cumulet.testing.cloud(hosts=1) as cloud:
        folder = image_folder(cloud.embedded.settings.state_dir)
        monkeypatch.setattr(snapshot, "stored", look)
        cloud.keep()
        assert looks == 2
        before = {name: (folder / name).read_bytes() for name in stored(folder) if (folder / name).is_file()}
        for name in before:
            (folder / name).unlink()
        (folder / "new").write_bytes(b"new")
        cloud.reset()
        assert {name: (folder / name).read_bytes() for name in stored(folder) if (folder / name).is_file()} == before
