"""After a restore the records are older than the hosts: what came since is not removed as left over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

import cumulet.testing
from cumulet.agent.agent import Agent
from cumulet.agent.fence import Mark
from cumulet.bus.in_process import InProcessLink
from cumulet.compute.restored import BEHIND, FINDING, MOST_AHEAD
from cumulet.compute.store import servers
from cumulet.conductor import findings
from cumulet.conductor.runner import MOST_OVERTAKEN
from cumulet.host import messages as m
from cumulet.host.driver import GuestState
from cumulet.testing import Client, TestCloud
from tests.api.servers import AUTO, create_pair, host_of, image_and_flavor, last_migration, other
from tests.api.test_protected_images import protect
from tests.links import Way, instead


def backed_up(cloud: TestCloud, server_id: str) -> Callable[[], None]:
    """Keeps the record of a server; what is called restores it, as if it was of a backup."""
    db = cloud.embedded.db
    kept = db.read(lambda tx: tx.first(sa.select(servers).where(servers.c.id == server_id)))
    assert kept is not None
    columns = ("host", "generation", "vm_state", "power_state", "system_metadata", "launched_at_us", "guest")
    as_it_was = {name: getattr(kept, name) for name in columns}

    def restore() -> None:
        db.write(lambda tx: tx.execute(sa.update(servers).where(servers.c.id == server_id).values(as_it_was)))

    return restore


def generation_of(cloud: TestCloud, server_id: str) -> int:
    row = cloud.embedded.db.read(lambda tx: tx.first(sa.select(servers).where(servers.c.id == server_id)))
    assert row is not None
    return int(row.generation)


def agent_of(cloud: TestCloud, host: str) -> Agent:
    link = cloud.embedded.hosts.link(host)
    assert isinstance(link, InProcessLink)
    assert isinstance(link._agent, Agent)
    return link._agent


def stop(member: Client, server_id: str) -> None:
    assert member.action(server_id, {"os-stop": None}).status == 202
    member.wait_for_status(server_id, "SHUTOFF")


def start(member: Client, server_id: str) -> None:
    assert member.action(server_id, {"os-start": None}).status == 202
    member.wait_for_status(server_id, "ACTIVE")


def delete(member: Client, server_id: str) -> None:
    assert member.compute("DELETE", f"/servers/{server_id}").status == 204
    member.wait("it to be gone", lambda: member.compute("GET", f"/servers/{server_id}").status == 404)


def rebuild(member: Client, server_id: str) -> None:
    image = image_and_flavor(member)["imageRef"]
    assert member.action(server_id, {"rebuild": {"imageRef": image}}).status == 202
    member.wait_for_status(server_id, "ACTIVE")


def resize(member: Client, server_id: str) -> None:
    flavors = member.compute("GET", "/flavors")["flavors"]
    tiny = next(flavor["id"] for flavor in flavors if flavor["name"] == "m1.tiny")
    assert member.action(server_id, {"resize": {"flavorRef": tiny}}).status == 202
    member.wait_for_status(server_id, "VERIFY_RESIZE")


def move(admin: Client, server_id: str) -> str:
    """Moves it; where it is then."""
    destination = other(host_of(admin, server_id))
    assert admin.action(server_id, {"os-migrateLive": {"host": destination, **AUTO}}).status == 202
    admin.wait("the move", lambda: last_migration(admin, server_id)["status"] == "completed")
    return destination


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


@pytest.mark.parametrize("heard", [True, False], ids=["heard", "not heard yet"])
@pytest.mark.parametrize("begin", [delete, stop, rebuild, resize, move])
def test_a_server_whose_host_is_ahead_of_the_records_goes_on(
    tmp_path: Path, begin: Callable[[Client, str], object], heard: bool
) -> None:
    """Its host has accepted generations that the records do not know. `heard`: it has reported so before."""
    with cumulet.testing.cloud(hosts=2, state=tmp_path) as cloud:
        admin = cloud.persona("admin")
        server_id = create_pair(cloud.persona("member"))[0]
        restore = backed_up(cloud, server_id)
        stop(admin, server_id)
        start(admin, server_id)
        stop(admin, server_id)
        start(admin, server_id)
        accepted = generation_of(cloud, server_id)
        restore()
        if heard:
            cloud.reconcile()
            assert generation_of(cloud, server_id) == accepted
        begin(admin, server_id)
        assert generation_of(cloud, server_id) > accepted
        assert (BEHIND, server_id) in found(cloud)


@pytest.mark.parametrize("begin", [delete, rebuild])
def test_a_server_that_has_moved_since_the_backup_is_rebuilt_or_deleted_where_the_records_have_it(
    tmp_path: Path, begin: Callable[[Client, str], object]
) -> None:
    with cumulet.testing.cloud(hosts=2, state=tmp_path) as cloud:
        admin = cloud.persona("admin")
        server_id = create_pair(cloud.persona("member"))[0]
        first = host_of(admin, server_id)
        restore = backed_up(cloud, server_id)
        move(admin, server_id)
        restore()
        cloud.reconcile()
        cloud.reconcile()
        begin(admin, server_id)
        cloud.reconcile()
        cloud.reconcile()
        assert server_id not in cloud.guests(other(first)), "its user has decided"
        assert (server_id in cloud.guests(first)) is (begin is rebuild)


def test_what_decides_nothing_about_a_server_that_has_moved_since_the_backup_fails_and_ends(tmp_path: Path) -> None:
    with cumulet.testing.cloud(hosts=2, state=tmp_path) as cloud:
        admin = cloud.persona("admin")
        server_id = create_pair(cloud.persona("member"))[0]
        restore = backed_up(cloud, server_id)
        second = move(admin, server_id)
        restore()
        cloud.reconcile()
        cloud.reconcile()
        assert admin.action(server_id, {"reboot": {"type": "HARD"}}).status == 202
        admin.wait("its end", lambda: admin.server(server_id)["OS-EXT-STS:task_state"] is None)
        cloud.reconcile()
        cloud.reconcile()
        assert cloud.guests(second)[server_id] is GuestState.RUNNING, "the only copy"


def test_a_server_is_not_unshelved_over_a_guest_that_came_after_the_backup(tmp_path: Path) -> None:
    with cumulet.testing.cloud(hosts=1, state=tmp_path) as cloud:
        admin, member = cloud.persona("admin"), cloud.persona("member")
        server_id = create_pair(member)[0]
        assert member.action(server_id, {"shelve": None}).status == 202
        admin.wait_for_status(server_id, "SHELVED_OFFLOADED")
        protect(member, server_id)  # So that it is there after the restore, as if it was in the backup.
        restore = backed_up(cloud, server_id)
        unshelve = {"unshelve": None}
        assert admin.action(server_id, unshelve).status == 202
        admin.wait_for_status(server_id, "ACTIVE")
        stop(admin, server_id)
        restore()
        cloud.reconcile()
        assert admin.action(server_id, unshelve).status == 202
        admin.wait("its end", lambda: admin.server(server_id)["OS-EXT-STS:task_state"] is None)
        assert admin.server(server_id)["status"] == "SHELVED_OFFLOADED"
        assert cloud.guests("host1")[server_id] is GuestState.STOPPED, "the only copy"


def test_a_host_that_claims_to_be_absurdly_far_ahead_is_not_believed(tmp_path: Path) -> None:
    with cumulet.testing.cloud(hosts=1, state=tmp_path) as cloud:
        admin = cloud.persona("admin")
        server_id = create_pair(cloud.persona("member"))[0]
        before = generation_of(cloud, server_id)
        agent = agent_of(cloud, "host1")
        agent._fence.set_mark(server_id, Mark(before + MOST_AHEAD + 2, 0))
        cloud.reconcile()
        assert generation_of(cloud, server_id) == before
        assert admin.action(server_id, {"os-stop": None}).status == 202
        admin.wait("its end", lambda: admin.server(server_id)["OS-EXT-STS:task_state"] is None)
        assert (admin.server(server_id)["status"], generation_of(cloud, server_id)) == ("ACTIVE", before + 1)


def test_a_host_that_answers_every_generation_with_a_higher_one_ends_an_operation_all_the_same(tmp_path: Path) -> None:
    class AlwaysAhead(Way):
        asked = 0

        async def send(self, message: m.Message[object]) -> object:
            if isinstance(message, m.Stop):
                self.asked += 1
                raise m.StaleGeneration("out of date", message.generation)
            return await super().send(message)

    with cumulet.testing.cloud(hosts=1, state=tmp_path) as cloud:
        admin = cloud.persona("admin")
        server_id = create_pair(cloud.persona("member"))[0]
        with instead(cloud, "host1", AlwaysAhead) as way:
            assert admin.action(server_id, {"os-stop": None}).status == 202
            admin.wait("its end", lambda: admin.server(server_id)["OS-EXT-STS:task_state"] is None)
        assert way.asked == 1 + MOST_OVERTAKEN
        assert admin.server(server_id)["status"] == "ACTIVE"
