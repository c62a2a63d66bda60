"""After a restore the records are older than the hosts: what came since is not removed as left over."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

import cumulet.testing
from cumulet.compute.restored import FINDING
from cumulet.compute.store import servers
from cumulet.conductor import findings
from cumulet.host.driver import GuestState
from cumulet.testing import TestCloud
from tests.api.servers import AUTO, create_pair, host_of, last_migration, other


def found(cloud: TestCloud) -> set[tuple[str, str]]:
    """Finding and server of everything that reconcilers have noted."""
    rows = cloud.embedded.db.read(findings.newest)
    return {(row.finding, row.subject) for row in rows if row.subject}


def test_a_guest_that_has_moved_since_the_backup_stays(tmp_path: Path) -> None:
    with cumulet.testing.cloud(hosts=2, state=tmp_path) as cloud:
        admin = cloud.persona("admin")
        server_id = create_pair(cloud.persona("member"))[0]
        first = host_of(admin, server_id)
        db = cloud.embedded.db
        kept = db.read(lambda tx: tx.first(sa.select(servers).where(servers.c.id == server_id)))
        assert kept is not None
        assert admin.action(server_id, {"os-migrateLive": {"host": other(first), **AUTO}}).status == 202
        admin.wait("the move", lambda: last_migration(admin, server_id)["status"] == "completed")
        as_it_was = {"host": first, "generation": kept.generation}
        db.write(lambda tx: tx.execute(sa.update(servers).where(servers.c.id == server_id).values(as_it_was)))
        cloud.reconcile()
        cloud.reconcile()
        assert cloud.guests(other(first))[server_id] is GuestState.RUNNING, "the only copy"
        assert (FINDING, server_id) in found(cloud)
        assert admin.server(server_id)["status"] == "ERROR", "where the records have it, there is none"


def test_a_guest_of_a_host_that_was_told_of_its_move_is_no_newer_one(tmp_path: Path) -> None:
    """The host had heard the generation of the move when it failed to remove the guest."""
    with cumulet.testing.cloud(hosts=2, state=tmp_path) as cloud:
        admin = cloud.persona("admin")
        server_id = create_pair(cloud.persona("member"))[0]
        first = host_of(admin, server_id)
        assert cloud.embedded.world is not None
        driver = cloud.embedded.world.drivers[first]
        guest = driver._guests[server_id].guest
        assert admin.action(server_id, {"os-migrateLive": {"host": other(first), **AUTO}}).status == 202
        admin.wait("the move", lambda: last_migration(admin, server_id)["status"] == "completed")
        cloud.await_(driver.create(guest, run=False))
        cloud.reconcile()
        assert server_id not in cloud.guests(first)
        assert found(cloud) == {("guest-of-another-host", server_id)}


@pytest.mark.parametrize("keep", [True, False])
def test_a_guest_of_a_server_that_came_after_the_backup(tmp_path: Path, keep: bool) -> None:
    with cumulet.testing.cloud(hosts=2, state=tmp_path, keep_unknown_guests=keep) as cloud:
        admin = cloud.persona("admin")
        server_id = create_pair(cloud.persona("member"))[0]
        host = host_of(admin, server_id)
        db = cloud.embedded.db
        db.write(lambda tx: tx.execute(sa.delete(servers).where(servers.c.id == server_id)))
        cloud.reconcile()
        assert (server_id in cloud.guests(host)) is keep
        assert ((FINDING, server_id) in found(cloud)) is keep
        assert (("guest-without-record", server_id) in found(cloud)) is not keep
