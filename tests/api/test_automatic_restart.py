"""A host is lost for certain; what ran there starts elsewhere by itself, once, where that is asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import cumulet.testing
from cumulet.compute.automatic_restart import AutomaticRestart
from cumulet.host.driver import GuestState
from cumulet.testing import Client, TestCloud
from tests.links import silent

from .servers import create_pair, host_of, last_migration, leftovers, other
from .test_evacuation import action_of, force_down


@pytest.fixture
def cloud() -> Iterator[TestCloud]:
    with cumulet.testing.cloud(restart_servers_of_lost_hosts=True) as started:
        yield started


@pytest.fixture
def server(member: Client) -> str:
    return create_pair(member, networks="auto")[0]


def look(cloud: TestCloud) -> None:
    """As its timer would."""
    cloud.await_(cloud.embedded.conductor.reconciler(AutomaticRestart).round())
    cloud.idle()


def test_what_ran_on_a_fenced_host_starts_elsewhere(cloud: TestCloud, admin: Client, server: str) -> None:
    source = host_of(admin, server)
    with silent(cloud, source):
        force_down(admin, source)
        look(cloud)
        assert host_of(admin, server) == other(source)
        assert cloud.guests(other(source))[server] is GuestState.RUNNING
    migration = last_migration(admin, server)
    assert (migration["migration_type"], migration["status"]) == ("evacuation", "done")
    assert {event["result"] for event in action_of(admin, server, "evacuate")["events"]} == {"Success"}
    found = admin.compute("GET", "/cumulet/findings")["findings"]
    assert any((one["finding"], one["server_id"]) == ("server-of-a-lost-host", server) for one in found)
    cloud.reconcile()
    assert leftovers(cloud, admin, server) == {
        "guests": {other(source): GuestState.RUNNING},
        "allocated": [other(source)],
        "bound": [other(source)],
    }


def test_a_stopped_server_is_left_alone(cloud: TestCloud, admin: Client, member: Client, server: str) -> None:
    source = host_of(admin, server)
    assert member.action(server, {"os-stop": None}).status == 202
    admin.wait_for_status(server, "SHUTOFF")
    force_down(admin, source)
    look(cloud)
    assert host_of(admin, server) == source


def test_not_because_its_host_is_silent(cloud: TestCloud, admin: Client, server: str) -> None:
    source = host_of(admin, server)
    with silent(cloud, source):
        cloud.clock.advance(2 * cloud.embedded.settings.host_silent_seconds)
        cloud.reconcile()
        look(cloud)
        assert host_of(admin, server) == source
    cloud.reconcile()


def test_what_could_not_be_started_is_not_tried_again_at_once(cloud: TestCloud, admin: Client, server: str) -> None:
    for host in ("host1", "host2"):
        force_down(admin, host)
    look(cloud)
    look(cloud)
    moves = admin.compute("GET", "/os-migrations?migration_type=evacuation")["migrations"]
    assert [move["status"] for move in moves if move["instance_uuid"] == server] == ["error"]
    force_down(admin, other(host_of(admin, server)), down=False)
    cloud.clock.advance(60.0)
    look(cloud)
    assert last_migration(admin, server)["status"] == "done"


def test_off_unless_asked_for(admin: Client) -> None:
    with cumulet.testing.cloud() as plain:
        assert plain.embedded.conductor.reconciler(AutomaticRestart)._task is None
