"""What is done to servers: power, locks, console, what is recorded of it, and who may."""

from __future__ import annotations

import pytest

from cumulet.testing import Client, TestCloud
from tests.api.test_compute_servers import ask_for, create


@pytest.fixture
def server_id(member: Client) -> str:
    found: str = create(member)["id"]
    return found


def test_power_goes_off_and_on_again(member: Client, server_id: str) -> None:
    assert member.action(server_id, {"os-start": None}).status == 409
    for action, status in (
        ({"os-stop": None}, "SHUTOFF"),
        ({"os-start": None}, "ACTIVE"),
        ({"pause": None}, "PAUSED"),
        ({"unpause": None}, "ACTIVE"),
        ({"suspend": None}, "SUSPENDED"),
        ({"resume": None}, "ACTIVE"),
        ({"reboot": {"type": "SOFT"}}, "ACTIVE"),
        ({"reboot": {"type": "HARD"}}, "ACTIVE"),
    ):
        assert member.action(server_id, action).status == 202
        member.wait_for_status(server_id, status)


def test_a_hard_reboot_boots_a_suspended_server(member: Client, server_id: str) -> None:
    assert member.action(server_id, {"suspend": None}).status == 202
    member.wait_for_status(server_id, "SUSPENDED")
    assert member.action(server_id, {"reboot": {"type": "SOFT"}}).status == 409
    assert member.action(server_id, {"reboot": {"type": "HARD"}}).status == 202
    member.wait_for_status(server_id, "ACTIVE")
    action = member.compute("GET", f"/servers/{server_id}/os-instance-actions")["instanceActions"][0]
    assert (action["action"], action["message"]) == ("reboot", None)


def test_a_refusal_says_what_the_server_is_doing(member: Client, server_id: str) -> None:
    answer = member.action(server_id, {"resume": None})
    assert answer.status == 409
    words = f"Cannot 'resume' instance {server_id} while it is in vm_state active"
    assert answer["conflictingRequest"]["message"] == words


def test_a_lock_stops_everybody_but_administrators(
    member: Client, manager: Client, admin: Client, server_id: str
) -> None:
    assert member.action(server_id, {"lock": {"locked_reason": "precious"}}).status == 202
    assert member.server(server_id)["locked_reason"] == "precious"
    for client in (member, manager):
        for action in ({"os-stop": None}, {"pause": None}, {"reboot": {"type": "HARD"}}):
            answer = client.action(server_id, action)
            assert answer.status == 409
            assert "is locked" in answer.text
        assert client.compute("DELETE", f"/servers/{server_id}").status == 409
    assert admin.action(server_id, {"pause": None}).status == 202
    member.wait_for_status(server_id, "PAUSED")


def test_what_an_administrator_locked_only_one_unlocks(member: Client, admin: Client, server_id: str) -> None:
    assert admin.action(server_id, {"lock": None}).status == 202
    assert member.server(server_id)["locked"] is True
    assert member.action(server_id, {"unlock": None}).status == 403
    assert admin.action(server_id, {"unlock": None}).status == 202
    assert member.server(server_id)["locked"] is False


@pytest.mark.parametrize(
    "action",
    [{"os-stop": None}, {"pause": None}, {"lock": None}, {"reboot": {"type": "SOFT"}}, {"os-getConsoleOutput": {}}],
)
def test_readers_change_nothing(member: Client, reader: Client, server_id: str, action: dict[str, object]) -> None:
    assert reader.action(server_id, action).status == 403
    assert member.server(server_id)["status"] == "ACTIVE"


def test_the_console_shows_its_newest_lines(member: Client, server_id: str) -> None:
    whole = member.action(server_id, {"os-getConsoleOutput": {}})
    assert whole.status == 200
    assert server_id in whole["output"]
    assert "host" not in whole["output"], "only administrators see on which host"
    few = member.action(server_id, {"os-getConsoleOutput": {"length": 2}})
    assert len(few["output"].split("\n")) <= 2
    assert member.action(server_id, {"os-getConsoleOutput": {"length": "x"}}).status == 400


def test_there_is_no_console_of_a_guest_that_its_host_has_not(
    cloud: TestCloud, admin: Client, member: Client, server_id: str
) -> None:
    host = admin.server(server_id)["OS-EXT-SRV-ATTR:host"]
    world = cloud.embedded.world
    assert world is not None
    del world.drivers[host]._guests[server_id]
    answer = member.action(server_id, {"os-getConsoleOutput": {}})
    assert (answer.status, "does not have a console available" in answer.text) == (404, True)


def test_only_an_administrator_sets_a_state(member: Client, admin: Client, server_id: str) -> None:
    assert member.action(server_id, {"os-resetState": {"state": "error"}}).status == 403
    assert admin.action(server_id, {"os-resetState": {"state": "error"}}).status == 202
    assert member.server(server_id)["status"] == "ERROR"
    assert admin.action(server_id, {"os-resetState": {"state": "active"}}).status == 202
    assert admin.action(server_id, {"os-resetState": {"state": "paused"}}).status == 400


def test_the_power_state_of_one_in_error_follows_its_guest(
    cloud: TestCloud, member: Client, admin: Client, server_id: str
) -> None:
    assert admin.action(server_id, {"os-resetState": {"state": "error"}}).status == 202
    assert cloud.embedded.world is not None
    driver = cloud.embedded.world.drivers[admin.server(server_id)["OS-EXT-SRV-ATTR:host"]]
    for change, power_state in ((driver.pause, 3), (driver.unpause, 1), (driver.destroy, 0)):
        cloud.await_(change(server_id))
        cloud.reconcile()
        found = member.server(server_id)
        assert (found["status"], found["OS-EXT-STS:power_state"]) == ("ERROR", power_state)


def test_a_server_that_is_said_to_be_active_has_no_fault_any_more(member: Client, admin: Client) -> None:
    huge = {"flavor": {"name": "huge", "id": "huge", "vcpus": 1, "ram": 256, "disk": 2**20}}
    assert admin.compute("POST", "/flavors", huge).status == 200
    server = ask_for(member, flavorRef="huge")["server"]["id"]
    assert "fault" in member.wait_for_status(server, "ERROR")
    for state in ("error", "active", "error"):
        had = "fault" in member.server(server)
        assert admin.action(server, {"os-resetState": {"state": state}}).status == 202
    assert not had
    assert "fault" not in member.server(server)


def test_what_was_asked_is_on_record(member: Client, admin: Client, server_id: str) -> None:
    asked = member.action(server_id, {"os-stop": None})
    member.wait_for_status(server_id, "SHUTOFF")
    path = f"/servers/{server_id}/os-instance-actions"
    assert [a["action"] for a in member.compute("GET", path)["instanceActions"]] == ["stop", "create"]
    request_id = asked.headers["x-openstack-request-id"]
    seen = member.compute("GET", f"{path}/{request_id}")["instanceAction"]["events"][0]
    assert (seen["event"], seen["result"]) == ("compute_stop_instance", "Success")
    assert not {"host", "traceback"} & set(seen)
    assert {"host", "traceback"} <= set(admin.compute("GET", f"{path}/{request_id}")["instanceAction"]["events"][0])
    assert member.compute("GET", f"{path}/req-unknown").status == 404


def test_a_delete_is_recorded_and_the_record_outlives_the_server(member: Client, server_id: str) -> None:
    assert member.compute("DELETE", f"/servers/{server_id}").status == 204
    member.wait("the server to be gone", lambda: member.compute("GET", f"/servers/{server_id}").status == 404)
    path = f"/servers/{server_id}/os-instance-actions"
    assert member.compute("GET", path, version="2.20").status == 404
    actions = member.compute("GET", path, version="2.21")["instanceActions"]
    assert [action["action"] for action in actions] == ["delete", "create"]


def test_an_action_on_a_server_still_building_is_refused(member: Client) -> None:
    server_id = ask_for(member)["server"]["id"]
    answer = member.action(server_id, {"resume": None})
    assert answer.status == 409
    member.wait_for_status(server_id, "ACTIVE")


def test_what_is_not_built_says_so(member: Client, server_id: str) -> None:
    answer = member.action(server_id, {"addFixedIp": {"networkId": server_id}}, version="2.43")
    assert answer.status == 501
    assert member.server(server_id)["status"] == "ACTIVE"
