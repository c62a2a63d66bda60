"""A host dies; its servers start on another one. Never while they may still run where they were."""

from __future__ import annotations

from typing import Any

import pytest

from cumulet.host import messages as m
from cumulet.host.driver import GuestState
from cumulet.testing import Client, JsonObject, TestCloud
from tests.links import Way, instead, silent

from .servers import LATEST, create_pair, host_of, last_migration, leftovers, other

BEFORE_2_95 = "2.94"


def force_down(admin: Client, host: str, *, down: bool = True) -> None:
    services = admin.compute("GET", "/os-services?binary=nova-compute")["services"]
    service = next(service for service in services if service["host"] == host)
    answer = admin.compute("PUT", f"/os-services/{service['id']}", {"forced_down": down})
    assert answer.status == 200, answer.text


@pytest.fixture
def server(cloud: TestCloud, member: Client) -> str:
    return create_pair(member, networks="auto")[0]


def evacuate(admin: Client, server_id: str, *, version: str | None = None, **body: Any) -> None:
    answer = admin.action(server_id, {"evacuate": body}, version=version)
    assert answer.status == 200, answer.text


def action_of(admin: Client, server_id: str, name: str) -> JsonObject:
    actions = admin.compute("GET", f"/servers/{server_id}/os-instance-actions")["instanceActions"]
    request = next(action["request_id"] for action in actions if action["action"] == name)
    found: JsonObject = admin.compute("GET", f"/servers/{server_id}/os-instance-actions/{request}")["instanceAction"]
    return found


def test_a_server_of_a_dead_host_starts_on_another_one(cloud: TestCloud, admin: Client, server: str) -> None:
    source = host_of(admin, server)
    with silent(cloud, source):
        force_down(admin, source)
        evacuate(admin, server, version=BEFORE_2_95)
        admin.wait_for_status(server, "ACTIVE")
        assert host_of(admin, server) == other(source)
        assert cloud.guests(other(source))[server] is GuestState.RUNNING
    migration = last_migration(admin, server)
    assert (migration["migration_type"], migration["status"]) == ("evacuation", "done")
    assert (migration["source_compute"], migration["dest_compute"]) == (source, other(source))
    assert {event["result"] for event in action_of(admin, server, "evacuate")["events"]} == {"Success"}


def test_a_host_that_comes_back_loses_what_it_lost(cloud: TestCloud, admin: Client, server: str) -> None:
    source = host_of(admin, server)
    with silent(cloud, source):
        force_down(admin, source)
        evacuate(admin, server, version=BEFORE_2_95)
        admin.wait_for_status(server, "ACTIVE")
    assert cloud.guests(source)[server] is GuestState.RUNNING, "the stale guest, as a lying administrator left it"
    cloud.reconcile()
    assert leftovers(cloud, admin, server) == {
        "guests": {other(source): GuestState.RUNNING},
        "allocated": [other(source)],
        "bound": [other(source)],
    }
    assert any(
        (found["host"], found["server_id"], found["finding"]) == (source, server, "guest-of-another-host")
        for found in admin.compute("GET", "/cumulet/findings")["findings"]
    )


def test_a_host_that_answers_stops_the_guest_before_it_starts_elsewhere(
    cloud: TestCloud, admin: Client, server: str
) -> None:
    """The administrator was mistaken: the host was neither fenced nor dead."""
    source = host_of(admin, server)
    force_down(admin, source)
    cloud.faults.fail("evacuation", step="make_guest")
    evacuate(admin, server, version=BEFORE_2_95)
    admin.wait("the end", lambda: last_migration(admin, server)["status"] == "error")
    assert cloud.guests(source)[server] is GuestState.STOPPED
    assert server not in cloud.guests(other(source))


@pytest.mark.parametrize(("version", "status"), [("2.94", "ACTIVE"), ("2.95", "SHUTOFF"), (LATEST, "SHUTOFF")])
def test_from_2_95_an_evacuated_server_is_stopped(
    cloud: TestCloud, admin: Client, server: str, version: str, status: str
) -> None:
    source = host_of(admin, server)
    force_down(admin, source)
    evacuate(admin, server, version=version, host=other(source))
    admin.wait_for_status(server, status)
    running = GuestState.RUNNING if status == "ACTIVE" else GuestState.STOPPED
    assert cloud.guests(other(source))[server] is running


def test_a_stopped_server_stays_stopped_and_can_be_started(
    cloud: TestCloud, admin: Client, member: Client, server: str
) -> None:
    source = host_of(admin, server)
    assert member.action(server, {"os-stop": None}).status == 202
    admin.wait_for_status(server, "SHUTOFF")
    force_down(admin, source)
    evacuate(admin, server, version="2.14")
    admin.wait("the move", lambda: last_migration(admin, server)["status"] == "done")
    assert cloud.guests(other(source))[server] is GuestState.STOPPED
    assert member.action(server, {"os-start": None}).status == 202
    admin.wait_for_status(server, "ACTIVE")


class WithoutBus(Way):
    """The control plane has lost the bus when it wants to have a guest stopped; later it has it again."""

    lost_for = 3
    stopped = False

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, m.Stop):
            if self.lost_for:
                self.lost_for -= 1
                raise m.BusLost("the connection to the bus was lost")
            self.stopped = True
        return await super().send(message)


def test_a_host_that_could_not_be_asked_is_asked_before_its_server_starts_elsewhere(
    cloud: TestCloud, admin: Client, server: str
) -> None:
    """It may be there, although it was forced down."""
    source = host_of(admin, server)
    with instead(cloud, source, WithoutBus) as way:
        force_down(admin, source)
        evacuate(admin, server)
        admin.wait("the move", lambda: last_migration(admin, server)["status"] == "done")
        assert (way.lost_for, way.stopped) == (0, True)


def test_an_evacuation_that_fails_leaves_the_server_with_its_host(cloud: TestCloud, admin: Client, server: str) -> None:
    source = host_of(admin, server)
    with silent(cloud, source):
        force_down(admin, source)
        for step in ("stop_source", "make_guest"):
            cloud.faults.fail("evacuation", step=step)
            evacuate(admin, server)
            cloud.idle()
            assert last_migration(admin, server)["status"] == "error"
    assert leftovers(cloud, admin, server) == {
        "guests": {source: GuestState.RUNNING},
        "allocated": [source],
        "bound": [source],
    }


def test_with_no_host_left_the_record_says_why(admin: Client, server: str) -> None:
    for host in ("host1", "host2"):
        force_down(admin, host)
    evacuate(admin, server)
    admin.wait("the end", lambda: last_migration(admin, server)["status"] == "error")
    assert "HOST_DOWN" in str(action_of(admin, server, "evacuate")["events"])


def test_a_server_deleted_while_it_is_evacuated_is_gone_everywhere(
    cloud: TestCloud, admin: Client, member: Client, server: str
) -> None:
    force_down(admin, host_of(admin, server))
    evacuate(admin, server, version=BEFORE_2_95)
    assert member.compute("DELETE", f"/servers/{server}").status == 204
    admin.wait("the server to be gone", lambda: admin.compute("GET", f"/servers/{server}").status == 404)
    cloud.reconcile()
    assert leftovers(cloud, admin, server) == {"guests": {}, "allocated": [], "bound": []}


# -- who may not, and when not


def test_not_while_its_host_is_up(admin: Client, server: str) -> None:
    answer = admin.action(server, {"evacuate": {}})
    assert answer.status == 400
    assert answer["badRequest"]["message"] == f"Compute service of {host_of(admin, server)} is still in use."


def test_not_because_its_host_is_silent(cloud: TestCloud, admin: Client, server: str) -> None:
    source = host_of(admin, server)
    with silent(cloud, source):
        cloud.clock.advance(2 * cloud.embedded.settings.host_silent_seconds)
        cloud.reconcile()
        services = admin.compute("GET", f"/os-services?host={source}&binary=nova-compute")["services"]
        assert [service["state"] for service in services] == ["down"]
        answer = admin.action(server, {"evacuate": {}})
    assert answer.status == 400
    assert "force-down" in answer["badRequest"]["message"]
    cloud.reconcile()


@pytest.mark.parametrize(("persona", "status"), [("manager", 403), ("member", 403), ("other_member", 404)])
def test_nobody_but_administrators(cloud: TestCloud, admin: Client, server: str, persona: str, status: int) -> None:
    force_down(admin, host_of(admin, server))
    assert cloud.persona(persona).action(server, {"evacuate": {}}).status == status
    assert admin.compute("GET", "/os-migrations")["migrations"] == []


def test_a_paused_server_is_not_evacuated(admin: Client, member: Client, server: str) -> None:
    assert member.action(server, {"pause": None}).status == 202
    admin.wait_for_status(server, "PAUSED")
    force_down(admin, host_of(admin, server))
    answer = admin.action(server, {"evacuate": {}})
    assert answer.status == 409
    assert answer["conflictingRequest"]["message"] == (
        f"Cannot 'evacuate' instance {server} while it is in vm_state paused"
    )


WRONG: dict[str, tuple[str, JsonObject, int]] = {
    "no onSharedStorage when it was required": ("2.13", {}, 400),
    "onSharedStorage when it was gone": ("2.14", {"onSharedStorage": False}, 400),
    "force before there was force": ("2.28", {"force": True, "host": "host1"}, 400),
    "force when it was gone": ("2.68", {"force": True, "host": "host1"}, 400),
    "force to no host": ("2.29", {"force": True}, 400),
    "a null host": (LATEST, {"host": None}, 400),
    "an unknown host": (LATEST, {"host": "nohost"}, 404),
    "a password for a disk that is shared": ("2.13", {"onSharedStorage": True, "adminPass": "x"}, 400),
    "shared storage": ("2.13", {"onSharedStorage": True}, 501),
    "an extra key": (LATEST, {"zzz": 1}, 400),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_body_is_refused_and_changes_nothing(admin: Client, server: str, name: str) -> None:
    version, body, status = WRONG[name]
    force_down(admin, host_of(admin, server))
    before = admin.server(server)
    assert admin.action(server, {"evacuate": body}, version=version).status == status
    assert admin.server(server) == before


def test_not_to_the_host_it_is_on(admin: Client, server: str) -> None:
    source = host_of(admin, server)
    force_down(admin, source)
    answer = admin.action(server, {"evacuate": {"host": source}})
    assert (answer.status, answer["badRequest"]["message"]) == (400, "The target host can't be the same one.")


def test_until_2_13_the_answer_is_the_password(admin: Client, server: str) -> None:
    force_down(admin, host_of(admin, server))
    body = {"onSharedStorage": "False", "adminPass": "secret"}
    answer = admin.action(server, {"evacuate": body}, version="2.13")
    assert (answer.status, answer.text) == (200, '{"adminPass":"secret"}')
    admin.wait("the move", lambda: last_migration(admin, server)["status"] == "done")
