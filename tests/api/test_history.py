"""What has ended is kept for a while, and only so much of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from cumulet.compute import history
from cumulet.compute.history import History
from cumulet.compute.store import instance_action_events, instance_actions, migrations, server_group_members, servers
from cumulet.conductor.saga import operations
from cumulet.db.engine import Tx, metadata
from cumulet.testing import Client, TestCloud
from tests.api.test_compute_servers import create


def forget(cloud: TestCloud, **settings: object) -> None:
    """One round with these settings."""
    embedded = cloud.embedded
    chosen = msgspec.structs.replace(embedded.settings, **settings)
    cloud.await_(History(db=embedded.db, clock=embedded.clock, settings=chosen).round())


def ids(cloud: TestCloud, table: sa.Table, *where: sa.ColumnElement[bool]) -> list[Any]:
    return cloud.embedded.db.read(
        lambda tx: [row.id for row in tx.all(sa.select(table.c.id).where(*where).order_by(table.c.id))]
    )


@pytest.fixture
def server(cloud: TestCloud, member: Client, admin: Client) -> str:
    """One that was moved; beside it one server, and one image, that are deleted."""
    made = [create(member)["id"] for _ in range(2)]
    move = {"os-migrateLive": {"host": None, "block_migration": "auto"}}
    assert admin.action(made[0], move).status == 202
    cloud.idle()
    assert member.compute("DELETE", f"/servers/{made[1]}").status == 204
    image = {"name": "gone", "disk_format": "raw", "container_format": "bare", "tags": ["tag"]}
    image_id = member.request("POST", "/image/v2/images", image)["id"]
    assert member.request("DELETE", f"/image/v2/images/{image_id}").status == 204
    cloud.idle()
    return str(made[0])


def test_what_is_too_old_is_forgotten_and_what_is_not_over_is_kept(
    cloud: TestCloud, member: Client, server: str
) -> None:
    tables = (operations, migrations, instance_actions, servers, metadata.tables["images"])
    before = {table.name: ids(cloud, table) for table in tables}
    forget(cloud)
    assert {table.name: ids(cloud, table) for table in tables} == before
    running = cloud.embedded.db.write(lambda tx: _begin(tx, server))
    forget(cloud, history_days=-1)
    assert ids(cloud, operations) == ["runs"]
    assert ids(cloud, migrations) == []
    assert ids(cloud, instance_actions) == [running]
    assert ids(cloud, instance_action_events) == []
    assert ids(cloud, servers) == [server]
    assert ids(cloud, metadata.tables["images"], metadata.tables["images"].c.status == "deleted") == []
    assert member.server(server)["status"] == "ACTIVE"
    assert member.compute("GET", f"/servers/{server}/os-instance-actions")["instanceActions"][0]["action"] == "reboot"
    cloud.embedded.db.write(lambda tx: tx.execute(sa.delete(operations).where(operations.c.id == "runs")))


def _begin(tx: Tx, server: str) -> int:
    """Begin an operation that was asked for long ago and is still being done."""
    operation = {
        "id": "runs",
        "saga": "power",
        "kind": "server",
        "subject": server,
        "status": "queued",
        "position": 0,
        "state": {},
        "abort_requested": False,
        "force_requested": False,
        "attempts": 0,
        "lease_beat": 0,
        "revision": 0,
        "created_at_us": 1,
        "updated_at_us": 1,
    }
    tx.execute(sa.insert(operations).values(operation))
    return _acted(tx, server, "long-ago", operation_id="runs")


def _acted(tx: Tx, server: str, request_id: str, operation_id: str | None = None, *, at_us: int = 1) -> int:
    action = {
        "server_id": server,
        "request_id": request_id,
        "action": "reboot",
        "operation_id": operation_id,
        "started_at_us": at_us,
        "updated_at_us": at_us,
    }
    key = tx.execute(sa.insert(instance_actions).values(action)).inserted_primary_key
    assert key is not None
    return int(key[0])


def _acted_yesterday(cloud: TestCloud, server: str) -> list[int]:
    yesterday = cloud.embedded.clock.now_us() - history.DAY_US
    return cloud.embedded.db.write(lambda tx: [_acted(tx, server, f"old-{n}", at_us=yesterday + n) for n in range(10)])


def test_what_is_too_many_is_forgotten_the_oldest_first(
    cloud: TestCloud, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PART", 3)
    old = _acted_yesterday(cloud, server)
    actions = ids(cloud, instance_actions)
    of_gone = ids(cloud, instance_actions, instance_actions.c.server_id != server)
    forget(cloud, history_rows=8)
    assert len(of_gone) == 2
    assert ids(cloud, instance_actions) == sorted({*actions} - {*of_gone, *old[: len(actions) - 10]})
    assert len(ids(cloud, operations)) <= 8


def test_the_project_with_the_most_loses_first(
    cloud: TestCloud, server: str, member: Client, other_member: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not a project with little, though that is older; nor one of which the servers live."""
    monkeypatch.setattr(history, "PART", 3)
    others = [create(other_member, networks="none")["id"] for _ in range(6)]
    for other in others:
        assert other_member.compute("DELETE", f"/servers/{other}").status == 204
    cloud.idle()
    mine = ids(cloud, instance_actions, instance_actions.c.server_id.not_in(others))
    records = ids(cloud, servers)
    forget(cloud, history_rows=len(mine) + 4)
    assert ids(cloud, instance_actions, instance_actions.c.server_id.not_in(others)) == mine
    assert len(ids(cloud, instance_actions)) == len(mine) + 4
    living = ids(cloud, instance_actions, instance_actions.c.server_id == server)
    forget(cloud, history_rows=3)
    assert ids(cloud, instance_actions, instance_actions.c.server_id == server) == living
    gone = servers.c.deleted_at_us.is_not(None)
    assert len(ids(cloud, servers)) == len(records) - 4
    assert len(ids(cloud, servers, gone, servers.c.project_id == member.project_id)) == 1
    assert len(ids(cloud, migrations)) == 1


@pytest.mark.parametrize(
    ("rows", "most", "lost"),
    [
        ({"a": 5, "b": 5}, 10, {}),
        ({"a": 100, "b": 5}, 50, {"a": 55}),
        ({"a": 100, "b": 40, "c": 5}, 50, {"a": 77, "b": 18}),
        ({"a": 3, "b": 3}, 5, {"a": 1}),
        ({"a": 3, "b": 3}, 0, {"a": 3, "b": 3}),
        ({}, 5, {}),
    ],
)
def test_how_much_each_project_loses(rows: dict[str, int], most: int, lost: dict[str, int]) -> None:
    assert history.losses(rows, most) == lost
    assert sum(rows.values()) - sum(lost.values()) == min(most, sum(rows.values()))


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that count rows: each of them reads all of a kind."""
    made: list[str] = []

    def noting(run: Callable[..., object]) -> Callable[..., object]:
        def noted(tx: Tx, statement: object, *values: object) -> object:
            if "count(" in (sql := str(statement)):
                made.append(sql)
            return run(tx, statement, *values)

        return noted

    for name in ("all", "first"):
        monkeypatch.setattr(Tx, name, noting(getattr(Tx, name)))
    return made


@pytest.mark.parametrize(
    "limits", [{"history_rows": 12}, {"history_rows_per_server": 5}, {"history_rows": 12, "history_rows_per_server": 5}]
)
def test_however_much_is_forgotten_it_is_counted_once_in_a_round(
    cloud: TestCloud,
    member: Client,
    server: str,
    counts: list[str],
    limits: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What goes is each project's oldest, and all that is too much goes in one round, in small transactions."""
    monkeypatch.setattr(history, "PART", 2)
    monkeypatch.setattr(history, "FOUND", 3, raising=False)
    monkeypatch.setattr(history, "PARTS", 1, raising=False)
    other = create(member)["id"]
    cloud.idle()
    moment = cloud.embedded.clock.now_us()
    cloud.embedded.db.write(
        lambda tx: [_acted(tx, one, f"many-{n}", at_us=moment + n // 4) for n in range(40) for one in (server, other)]
    )
    before = ids(cloud, instance_actions, instance_actions.c.server_id == other)
    counts.clear()
    forget(cloud, **limits)
    assert len(counts) <= 3 * len(history.kinds())
    assert len(ids(cloud, instance_actions)) == min(limits.get("history_rows", 999), 10 if len(limits) == 2 else 12)
    kept = ids(cloud, instance_actions, instance_actions.c.server_id == other)
    assert kept == before[-len(kept) :]
    counts.clear()
    forget(cloud, **limits)
    assert ids(cloud, instance_actions, instance_actions.c.server_id == other) == kept


def test_deleted_servers_leave_their_groups(cloud: TestCloud, member: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of whom nothing else is kept any more, and more of them than are removed at once."""
    monkeypatch.setattr(history, "_GONE", history._GONE.limit(2))
    body = {"server_group": {"name": "spread", "policy": "soft-anti-affinity"}}
    group = member.compute("POST", "/os-server-groups", body)["server_group"]["id"]
    lives, *gone = [create(member, hints={"group": group})["id"] for _ in range(4)]
    cloud.idle()
    for server_id in gone:
        assert member.compute("DELETE", f"/servers/{server_id}").status == 204
    cloud.idle()

    def members(tx: Tx) -> set[str]:
        return {row.server_id for row in tx.all(sa.select(server_group_members))}

    def forgotten(tx: Tx) -> None:
        tx.execute(sa.delete(servers).where(servers.c.id == gone[0]))

    cloud.embedded.db.write(forgotten)
    assert cloud.embedded.db.read(members) == {lives, *gone}
    forget(cloud)
    assert cloud.embedded.db.read(members) == {lives}
    assert member.compute("GET", f"/os-server-groups/{group}")["server_group"]["members"] == [lives]


def test_a_server_has_a_limit_of_its_own(cloud: TestCloud, member: Client, server: str) -> None:
    other = create(member)["id"]
    cloud.idle()
    of_other = ids(cloud, instance_actions, instance_actions.c.server_id == other)
    _acted_yesterday(cloud, server)
    forget(cloud, history_rows_per_server=2)
    mine = instance_actions.c.server_id == server
    assert [
        row.action
        for row in cloud.embedded.db.read(lambda tx: tx.all(sa.select(instance_actions).where(mine).order_by("id")))
    ] == ["create", "live-migration"]
    assert ids(cloud, instance_actions, instance_actions.c.server_id == other) == of_other


@pytest.mark.usefixtures("server")
def test_administrators_are_told_how_much_there_is(admin: Client, member: Client) -> None:
    found = admin.compute("GET", "/cumulet/history")
    rows = {one["kind"]: one["rows"] for one in found["history"]}
    assert rows["deleted servers"] == 1
    assert rows["migrations"] == 1
    assert found["limits"] == {"days": 90, "rows": 100_000, "rows_per_server": 1000}
    assert member.compute("GET", "/cumulet/history").status == 403
