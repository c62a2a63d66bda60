"""What was left over in the records is found and given back; what something holds is not."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from cumulet.compute.leftovers import Leftovers
from cumulet.compute.store import migrations
from cumulet.db.engine import Tx
from cumulet.network import bindings_for_compute as bindings
from cumulet.placement import allocations as placement
from cumulet.testing import Client, JsonObject, TestCloud

from .servers import create_pair, force, host_of, last_migration, leftovers, other, running_migration, slow_server

SHARE = {"VCPU": 1, "MEMORY_MB": 64}


@pytest.fixture
def server(member: Client) -> str:
    return create_pair(member, networks="auto")[0]


def found(admin: Client, server: str) -> list[tuple[str, str | None]]:
    answer: list[JsonObject] = admin.compute("GET", "/cumulet/findings")["findings"]
    return sorted((one["finding"], one["host"]) for one in answer if one["server_id"] == server)


def look(cloud: TestCloud) -> None:
    cloud.await_(cloud.embedded.conductor.reconciler(Leftovers).round())


def claim(cloud: TestCloud, consumer: str, host: str) -> None:
    def write(tx: Tx) -> None:
        placement.claim(tx, consumer=consumer, provider=host, resources=SHARE, project_id="p", user_id="u", now_us=1)

    cloud.embedded.db.write(write)


def test_a_share_on_a_host_that_is_not_the_servers(cloud: TestCloud, admin: Client, server: str) -> None:
    host = host_of(admin, server)
    before = leftovers(cloud, admin, server)
    claim(cloud, server, other(host))
    look(cloud)
    assert leftovers(cloud, admin, server) == before
    assert found(admin, server) == [("share-elsewhere", other(host))]


def test_the_only_share_of_a_server_stays_wherever_it_is(cloud: TestCloud, admin: Client, server: str) -> None:
    """By a change by hand. It is wrong, but with nothing at all its host would be overfilled."""
    elsewhere = other(host_of(admin, server))

    def write(tx: Tx) -> None:
        placement.release(tx, consumer=server, now_us=1)
        placement.claim(tx, consumer=server, provider=elsewhere, resources=SHARE, project_id="p", user_id="u", now_us=1)

    cloud.embedded.db.write(write)
    look(cloud)
    assert set(cloud.embedded.db.read(lambda tx: placement.held(tx, server))) == {elsewhere}
    assert found(admin, server) == []


def test_nothing_of_a_move_that_goes_on_is_left_over(cloud: TestCloud, admin: Client, member: Client) -> None:
    """Neither the shares nor the bindings: it has both on both sides."""
    server = slow_server(admin, member, networks="auto")
    host = host_of(admin, server)
    assert admin.action(server, {"os-migrateLive": {"host": None, "block_migration": "auto"}}).status == 202
    running_migration(admin, server)
    look(cloud)
    assert found(admin, server) == []
    force(admin, server)
    admin.wait("the move", lambda: last_migration(admin, server)["status"] == "completed")
    assert host_of(admin, server) == other(host)


def test_what_a_resized_server_may_return_to_is_not_left_over(
    cloud: TestCloud, admin: Client, member: Client, server: str
) -> None:
    host = host_of(admin, server)
    assert admin.action(server, {"migrate": {"host": None}}).status == 202
    admin.wait_for_status(server, "VERIFY_RESIZE")
    look(cloud)
    assert found(admin, server) == []
    assert cloud.embedded.db.read(lambda tx: placement.held(tx, last_migration(admin, server)["uuid"])).keys() == {host}


def test_the_share_of_a_move_that_has_ended(cloud: TestCloud, admin: Client, server: str) -> None:
    host = host_of(admin, server)
    assert admin.action(server, {"os-migrateLive": {"host": None, "block_migration": "auto"}}).status == 202
    admin.wait("the move", lambda: last_migration(admin, server)["status"] == "completed")
    cloud.idle()
    uuid = cloud.embedded.db.read(
        lambda tx: tx.scalar(sa.select(migrations.c.uuid).where(migrations.c.server_id == server))
    )
    claim(cloud, uuid, host)
    look(cloud)
    assert cloud.embedded.db.read(lambda tx: placement.held(tx, uuid)) == {}
    assert found(admin, server) == [("share-of-nobody", host)]


def test_share_and_ports_of_a_deleted_server(cloud: TestCloud, admin: Client, member: Client, server: str) -> None:
    host = host_of(admin, server)
    assert member.compute("DELETE", f"/servers/{server}").status == 204
    admin.wait("the server to be gone", lambda: admin.compute("GET", f"/servers/{server}").status == 404)
    claim(cloud, server, host)
    look(cloud)
    assert cloud.embedded.db.read(lambda tx: placement.held(tx, server)) == {}
    assert found(admin, server) == [("share-of-nobody", host)]


def test_a_binding_to_another_host(cloud: TestCloud, admin: Client, server: str) -> None:
    before = leftovers(cloud, admin, server)
    elsewhere = other(host_of(admin, server))
    cloud.embedded.db.write(lambda tx: bindings.add_inactive(tx, server, elsewhere))
    look(cloud)
    assert leftovers(cloud, admin, server) == before
    assert all(
        not bound.inactive for bound in cloud.embedded.db.read(lambda tx: bindings.hosts_of(tx, server)).values()
    )
    assert found(admin, server) == [("binding-elsewhere", elsewhere)]


def test_a_share_that_placements_users_made_is_theirs(cloud: TestCloud, admin: Client, server: str) -> None:
    mine = "11111111-2222-4333-8444-555555555555"
    claim(cloud, mine, "host1")
    look(cloud)
    assert cloud.embedded.db.read(lambda tx: placement.held(tx, mine)) == {"host1": SHARE}


def test_with_nothing_left_over_nothing_is_found(cloud: TestCloud, admin: Client, server: str) -> None:
    look(cloud)
    assert found(admin, server) == []


def test_a_shelved_server_is_on_no_host_and_keeps_its_ports(
    cloud: TestCloud, admin: Client, member: Client, server: str
) -> None:
    assert member.action(server, {"shelve": None}).status == 202
    member.wait_for_status(server, "SHELVED_OFFLOADED")
    cloud.idle()
    look(cloud)
    assert found(admin, server) == []
    assert member.server(server)["addresses"]
