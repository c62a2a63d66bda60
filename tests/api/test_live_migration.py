"""The story it all started with: two servers from one request, one of them live-migrated by someone who may.

The other stories are about everyone who may not, and every way to ask wrongly; after each the server is as it was.
"""

from __future__ import annotations

from typing import Any

import pytest

import cumulet.testing
from cumulet.compute import live_migration
from cumulet.host import messages as m
from cumulet.host.driver import GuestState, MigrationPhase, MigrationProgress
from cumulet.testing import Client, NeutronFixture, OpenStackApiException, OSAPIFixture, PolicyFixture, TestCloud
from tests.links import Way, instead

from .servers import (
    AUTO,
    LATEST,
    create_pair,
    event_details,
    force,
    host_of,
    last_migration,
    leftovers,
    other,
    running_migration,
    slow_server,
)


@pytest.fixture
def pair(cloud: TestCloud, member: Client) -> list[str]:
    return create_pair(member)


def test_live_migrate_one_multi_created_instance(cloud: TestCloud, admin: Client, member: Client) -> None:
    servers = create_pair(member, networks="auto")
    moved, stays = servers
    source, bystander = host_of(admin, moved), host_of(admin, stays)

    post = {"os-migrateLive": {"block_migration": "auto", "host": other(source)}}
    assert admin.action(moved, post).status == 202
    admin.wait_for_status(moved, "ACTIVE")

    assert host_of(admin, moved) == other(source)
    assert host_of(admin, stays) == bystander, "exactly one of the two was moved"
    assert leftovers(cloud, admin, moved) == {
        "guests": {other(source): GuestState.RUNNING},
        "allocated": [other(source)],
        "bound": [other(source)],
    }
    migration = last_migration(admin, moved)
    assert (migration["status"], migration["source_compute"], migration["dest_compute"]) == (
        "completed",
        source,
        other(source),
    )


def test_the_same_story_with_the_fixtures_of_novas_functional_tests() -> None:
    with PolicyFixture() as policy, NeutronFixture() as neutron, OSAPIFixture() as osapi:
        assert policy.rules["os_compute_api:os-migrate-server:migrate_live:host"] == "rule:context_is_admin"
        api, admin_api = osapi.api, osapi.admin_api
        request = {
            "name": "multi",
            "imageRef": api.get_images()[0]["id"],
            "flavorRef": next(flavor["id"] for flavor in api.get_flavors() if flavor["name"] == "m1.nano"),
            "networks": [{"uuid": neutron.network["id"]}],
            "min_count": "2",
            "max_count": "2",
        }
        api.post_server({"server": request})
        servers = [admin_api.wait_for_state_change(server, "ACTIVE") for server in api.get_servers()]
        server = servers[0]
        original_host = server["OS-EXT-SRV-ATTR:host"]
        target_host = other(original_host)
        post = {"os-migrateLive": {"block_migration": "auto", "host": target_host}}

        with pytest.raises(OpenStackApiException) as refused:
            api.post_server_action(server["id"], post)
        assert refused.value.status_code == 403
        with pytest.raises(OpenStackApiException) as unseen:
            osapi.other_api.post_server_action(server["id"], post)
        assert unseen.value.status_code == 404
        assert neutron.list_ports("other_member") == []

        admin_api.post_server_action(server["id"], post)
        server = admin_api.wait_for_state_change(server, "ACTIVE")
        assert server["OS-EXT-SRV-ATTR:host"] == target_host


def test_a_manager_may_move_a_server_but_not_choose_the_host(
    cloud: TestCloud, admin: Client, manager: Client, pair: list[str]
) -> None:
    source = host_of(admin, pair[0])
    refused = manager.action(pair[0], {"os-migrateLive": {"host": other(source), **AUTO}})
    assert refused.status == 403
    assert manager.action(pair[0], {"os-migrateLive": {"host": None, **AUTO}}).status == 202
    admin.wait_for_status(pair[0], "ACTIVE")
    assert host_of(admin, pair[0]) == other(source)


def test_a_manager_never_sees_a_host_name(manager: Client, pair: list[str]) -> None:
    assert manager.action(pair[0], {"os-migrateLive": {"host": None, **AUTO}}).status == 202
    manager.wait_for_status(pair[0], "ACTIVE")
    seen = [
        manager.compute("GET", f"/servers/{pair[0]}").text,
        manager.compute("GET", f"/servers/{pair[0]}/migrations").text,
        manager.compute("GET", f"/servers/{pair[0]}/os-instance-actions").text,
        manager.compute("GET", "/os-migrations").text,
    ]
    assert not [text for text in seen if "host1" in text or "host2" in text]


@pytest.mark.parametrize(
    ("persona", "status"), [("reader", 403), ("member", 403), ("norole", 403), ("other_manager", 404)]
)
@pytest.mark.parametrize("named", [True, False])
def test_nobody_else_moves_it(
    cloud: TestCloud, admin: Client, pair: list[str], persona: str, status: int, named: bool
) -> None:
    before = admin.server(pair[0])
    host = other(host_of(admin, pair[0])) if named else None
    answer = cloud.persona(persona).action(pair[0], {"os-migrateLive": {"host": host, **AUTO}})
    assert answer.status == status, answer.text
    assert admin.server(pair[0]) == before
    assert admin.compute("GET", "/os-migrations")["migrations"] == []


def test_another_projects_server_is_no_different_from_one_that_never_was(cloud: TestCloud, pair: list[str]) -> None:
    stranger = cloud.persona("other_manager")
    unknown = "00000000-0000-4000-8000-000000000000"
    body = {"os-migrateLive": {"host": None, **AUTO}}
    theirs, nobodys = stranger.action(pair[0], body), stranger.action(unknown, body)
    assert theirs.status == nobodys.status == 404
    assert theirs.text.replace(pair[0], unknown) == nobodys.text


def test_without_a_token_there_is_nothing_to_talk_about(cloud: TestCloud, pair: list[str]) -> None:
    answer = cloud.anonymous().action(pair[0], {"os-migrateLive": {"host": None, **AUTO}})
    assert answer.status == 401


WRONG_BODIES: dict[str, tuple[str, Any]] = {
    "no host": (LATEST, {"block_migration": "auto"}),
    "no block_migration": (LATEST, {"host": None}),
    "an extra key": (LATEST, {"host": None, "block_migration": "auto", "zzz": 1}),
    "force where there is none": (LATEST, {"host": "host1", "block_migration": "auto", "force": True}),
    "force to no host": ("2.30", {"host": None, "block_migration": "auto", "force": True}),
    "disk_over_commit with auto": ("2.25", {"host": None, "block_migration": "auto", "disk_over_commit": False}),
    "auto before there was auto": ("2.24", {"host": None, "block_migration": "auto", "disk_over_commit": False}),
    "no disk_over_commit when it was required": ("2.24", {"host": None, "block_migration": False}),
    "a number for a host": (LATEST, {"host": 5, "block_migration": "auto"}),
    "an empty host": (LATEST, {"host": "", "block_migration": "auto"}),
    "a host with a blank": (LATEST, {"host": "a b", "block_migration": "auto"}),
    "a host with a slash": (LATEST, {"host": "../host1", "block_migration": "auto"}),
    "a host with a comma": (LATEST, {"host": "host1,exec=sh", "block_migration": "auto"}),
    "a host with a newline": (LATEST, {"host": "host1\n", "block_migration": "auto"}),
    "a host too long": (LATEST, {"host": "x" * 256, "block_migration": "auto"}),
    "a list of hosts": (LATEST, {"host": ["host1"], "block_migration": "auto"}),
    "an unknown host": (LATEST, {"host": "nohost", "block_migration": "auto"}),
    "a host by another spelling": (LATEST, {"host": "HOST1", "block_migration": "auto"}),
    "block_migration maybe": (LATEST, {"host": None, "block_migration": "maybe"}),
    "block_migration null": (LATEST, {"host": None, "block_migration": None}),
    "null": (LATEST, None),
    "a list": (LATEST, []),
    "text": (LATEST, "host1"),
}


@pytest.mark.parametrize("name", WRONG_BODIES)
def test_a_wrong_body_is_refused_and_changes_nothing(admin: Client, pair: list[str], name: str) -> None:
    version, wrong = WRONG_BODIES[name]
    before = admin.server(pair[0])
    answer = admin.action(pair[0], {"os-migrateLive": wrong}, version=version)
    assert answer.status == 400, answer.text
    assert answer["badRequest"]["message"]
    assert admin.server(pair[0]) == before


def test_up_to_2_33_an_unfit_host_is_refused_and_later_the_record_says_why(admin: Client, pair: list[str]) -> None:
    source = host_of(admin, pair[0])
    same = {"os-migrateLive": {"host": source, **AUTO}}
    assert admin.action(pair[0], same, version="2.30").status == 400
    assert admin.action(pair[0], same).status == 202
    admin.wait_for_status(pair[0], "ACTIVE")
    assert host_of(admin, pair[0]) == source
    assert last_migration(admin, pair[0])["status"] == "error"
    assert "SAME_HOST" in event_details(admin, pair[0])


@pytest.mark.parametrize("force", [False, True])
def test_a_disabled_host_is_refused_whether_forced_or_not(admin: Client, pair: list[str], force: bool) -> None:
    source = host_of(admin, pair[0])
    service = next(
        service
        for service in admin.compute("GET", "/os-services?binary=nova-compute")["services"]
        if service["host"] == other(source)
    )
    assert admin.compute("PUT", f"/os-services/{service['id']}", {"status": "disabled"}).status == 200
    body = {"host": other(source), **AUTO} | ({"force": True} if force else {})
    answer = admin.action(pair[0], {"os-migrateLive": body}, version="2.67" if force else None)
    assert answer.status == 202
    admin.wait_for_status(pair[0], "ACTIVE")
    assert host_of(admin, pair[0]) == source
    assert "HOST_DISABLED" in event_details(admin, pair[0])


def test_a_stopped_server_does_not_move(admin: Client, member: Client, pair: list[str]) -> None:
    assert member.action(pair[0], {"os-stop": None}).status == 202
    admin.wait_for_status(pair[0], "SHUTOFF")
    assert admin.action(pair[0], {"os-migrateLive": {"host": None, **AUTO}}).status == 409


def test_a_paused_server_moves_and_stays_paused(
    cloud: TestCloud, admin: Client, member: Client, pair: list[str]
) -> None:
    source = host_of(admin, pair[0])
    assert member.action(pair[0], {"pause": None}).status == 202
    admin.wait_for_status(pair[0], "PAUSED")
    assert admin.action(pair[0], {"os-migrateLive": {"host": None, **AUTO}}).status == 202
    admin.wait("the move", lambda: host_of(admin, pair[0]) == other(source))
    admin.wait_for_status(pair[0], "PAUSED")
    assert cloud.guests(other(source))[pair[0]] is GuestState.PAUSED


def test_a_move_that_fails_leaves_the_server_where_it_was(cloud: TestCloud, admin: Client, pair: list[str]) -> None:
    source = host_of(admin, pair[0])
    for step in ("start_destination", "copy_memory"):
        cloud.faults.fail("live-migration", step=step, host=other(source))
        assert admin.action(pair[0], {"os-migrateLive": {"host": other(source), **AUTO}}).status == 202
        admin.wait_for_status(pair[0], "ACTIVE")
        assert leftovers(cloud, admin, pair[0]) == {
            "guests": {source: GuestState.RUNNING},
            "allocated": [source],
            "bound": [],
        }
        assert last_migration(admin, pair[0])["status"] == "error"


def test_an_aborted_move_ends_where_it_began(cloud: TestCloud, admin: Client, member: Client) -> None:
    server_id = slow_server(admin, member)
    source = host_of(admin, server_id)
    assert admin.action(server_id, {"os-migrateLive": {"host": None, **AUTO}}).status == 202
    migration = running_migration(admin, server_id)
    assert admin.compute("DELETE", f"/servers/{server_id}/migrations/{migration['id']}").status == 202
    admin.wait_for_status(server_id, "ACTIVE")
    assert last_migration(admin, server_id)["status"] == "cancelled"
    assert leftovers(cloud, admin, server_id)["guests"] == {source: GuestState.RUNNING}


def test_a_move_completed_by_force_ends_where_it_should(admin: Client, member: Client) -> None:
    server_id = slow_server(admin, member)
    source = host_of(admin, server_id)
    assert admin.action(server_id, {"os-migrateLive": {"host": None, **AUTO}}).status == 202
    migration = running_migration(admin, server_id)
    path = f"/servers/{server_id}/migrations/{migration['id']}/action"
    assert admin.compute("POST", path, {"force_complete": None}).status == 202
    admin.wait_for_status(server_id, "ACTIVE")
    assert host_of(admin, server_id) == other(source)


def test_in_post_copy_the_server_runs_at_its_destination_while_its_memory_follows() -> None:
    """Slow enough to be watched: a gibibyte of memory takes a second and a half after the guest has moved."""
    with cumulet.testing.cloud(hosts=2, simulated_speed=1.0, migration_bandwidth_mib_s=700) as cloud:
        admin = cloud.persona("admin")
        server_id = slow_server(admin, cloud.persona("member"))
        source = host_of(admin, server_id)
        assert admin.action(server_id, {"os-migrateLive": {"host": None, **AUTO}}).status == 202
        force(admin, server_id)

        def running() -> list[str]:
            return [h for h in cloud.hosts if cloud.guests(h).get(server_id) is GuestState.RUNNING]

        admin.wait("the guest to run elsewhere", lambda: running() == [other(source)])
        assert last_migration(admin, server_id)["status"] == "post-migrating"
        running_id = last_migration(admin, server_id)["id"]
        abort = admin.compute("DELETE", f"/servers/{server_id}/migrations/{running_id}")
        assert abort.status == 400, "what runs at its destination cannot be called back"
        admin.wait_for_status(server_id, "ACTIVE")
        assert last_migration(admin, server_id)["status"] == "completed"
        assert leftovers(cloud, admin, server_id)["guests"] == {other(source): GuestState.RUNNING}


@pytest.mark.parametrize(("action", "ends"), [("abort", "error"), ("force_complete", "completed")])
def test_a_move_that_takes_too_long_is_aborted_or_forced_as_the_operator_chose(action: Any, ends: str) -> None:
    with cumulet.testing.cloud(
        hosts=2, migration_timeout_seconds_per_gib=0.5, migration_timeout_action=action
    ) as cloud:
        admin = cloud.persona("admin")
        server_id = slow_server(admin, cloud.persona("member"))
        source = host_of(admin, server_id)
        assert admin.action(server_id, {"os-migrateLive": {"host": None, **AUTO}}).status == 202
        admin.wait_for_status(server_id, "ACTIVE")
        assert last_migration(admin, server_id)["status"] == ends
        assert host_of(admin, server_id) == (source if ends == "error" else other(source))
        if ends == "error":
            assert "TIMED_OUT" in event_details(admin, server_id)


class SaysItIsDone(Way):
    """The way to a source that says that every copy is completed, and sends nothing."""

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, m.StartCopy):
            return None
        if isinstance(message, m.CopyProgress):
            return MigrationProgress(phase=MigrationPhase.COMPLETED)
        return await super().send(message)


def test_a_source_that_says_it_is_done_is_not_believed_alone(
    cloud: TestCloud, admin: Client, member: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_migration, "ARRIVAL_SECONDS", 0.1)
    server_id = create_pair(member)[0]
    source = host_of(admin, server_id)
    with instead(cloud, source, SaysItIsDone):
        assert admin.action(server_id, {"os-migrateLive": {"host": other(source), **AUTO}}).status == 202
        admin.wait_for_status(server_id, "ACTIVE")
        admin.wait("the end of the move", lambda: last_migration(admin, server_id)["status"] == "error")
    assert "NOT_ARRIVED" in event_details(admin, server_id)
    assert host_of(admin, server_id) == source
    assert leftovers(cloud, admin, server_id)["guests"] == {source: GuestState.RUNNING}


def test_a_second_move_waits_for_nobody(admin: Client, member: Client) -> None:
    server_id = slow_server(admin, member)
    assert admin.action(server_id, {"os-migrateLive": {"host": None, **AUTO}}).status == 202
    assert admin.action(server_id, {"os-migrateLive": {"host": None, **AUTO}}).status == 409


def test_a_server_deleted_while_it_moves_is_gone_everywhere(cloud: TestCloud, admin: Client, member: Client) -> None:
    server_id = slow_server(admin, member)
    assert admin.action(server_id, {"os-migrateLive": {"host": None, **AUTO}}).status == 202
    running_migration(admin, server_id)
    assert member.compute("DELETE", f"/servers/{server_id}").status == 204
    admin.wait("the server to be gone", lambda: admin.compute("GET", f"/servers/{server_id}").status == 404)
    assert leftovers(cloud, admin, server_id) == {"guests": {}, "allocated": [], "bound": []}


def test_two_moves_at_once_cannot_overfill_a_host(cloud: TestCloud, admin: Client, member: Client) -> None:
    room = cloud.embedded.settings.simulated_memory_mib
    flavor = admin.compute(
        "POST", "/flavors", {"flavor": {"name": "half", "vcpus": 1, "ram": room // 2 + 1, "disk": 1}}
    )["flavor"]
    quota = {"quota_set": {"ram": -1}}
    assert admin.compute("PUT", f"/os-quota-sets/{member.project_id}", quota).status == 200
    servers = create_pair(member, flavorRef=flavor["id"])
    assert {host_of(admin, server_id) for server_id in servers} == {"host1", "host2"}
    for server_id in servers:
        assert admin.action(server_id, {"os-migrateLive": {"host": None, **AUTO}}).status == 202
    for server_id in servers:
        admin.wait_for_status(server_id, "ACTIVE")
        assert last_migration(admin, server_id)["status"] == "error"
    assert {host_of(admin, server_id) for server_id in servers} == {"host1", "host2"}
