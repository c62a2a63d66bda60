"""A server gets another host, or another size; its owner confirms it or takes it back. It is deleted at any moment."""

from __future__ import annotations

import pytest

from cumulet.compute.store import get_server
from cumulet.host import messages as m
from cumulet.host.driver import GuestState
from cumulet.testing import Client, TestCloud
from tests.links import silent

from .servers import LATEST, create_pair, host_of, last_migration, leftovers, other
from .test_evacuation import action_of, force_down


@pytest.fixture
def server(cloud: TestCloud, member: Client) -> str:
    return create_pair(member, networks="auto")[0]


@pytest.fixture
def larger(admin: Client) -> str:
    body = {"flavor": {"name": "larger", "id": "larger", "vcpus": 2, "ram": 512, "disk": 2}}
    assert admin.compute("POST", "/flavors", body).status == 200
    return "larger"


def resize(client: Client, server_id: str, flavor: str, **more: object) -> None:
    answer = client.action(server_id, {"resize": {"flavorRef": flavor, **more}})
    assert answer.status == 202, answer.text


def resized(client: Client, server_id: str, flavor: str) -> None:
    resize(client, server_id, flavor)
    client.wait_for_status(server_id, "VERIFY_RESIZE")


def held(admin: Client, consumer: str) -> dict[str, dict[str, int]]:
    """What a consumer holds, by the host's name."""
    names = {
        provider["uuid"]: provider["name"]
        for provider in admin.request("GET", "/placement/resource_providers")["resource_providers"]
    }
    allocations = admin.request("GET", f"/placement/allocations/{consumer}")["allocations"]
    return {names[uuid]: share["resources"] for uuid, share in allocations.items()}


def where(cloud: TestCloud, server_id: str) -> dict[str, GuestState]:
    return {host: cloud.guests(host)[server_id] for host in cloud.hosts if server_id in cloud.guests(host)}


def is_back(cloud: TestCloud, admin: Client, server_id: str, source: str, state: GuestState) -> None:
    assert leftovers(cloud, admin, server_id) == {
        "guests": {source: state},
        "allocated": [source],
        "bound": [source],
    }
    assert host_of(admin, server_id) == source


def test_a_server_whose_guest_has_crashed_gets_another_flavor_too(
    cloud: TestCloud, admin: Client, member: Client, server: str, larger: str
) -> None:
    source = host_of(admin, server)
    world = cloud.embedded.world
    assert world is not None
    world.drivers[source].crash_guest(server)
    cloud.reconcile()
    assert admin.server(server)["OS-EXT-STS:power_state"] == 6, "Crashed"
    resized(member, server, larger)
    assert where(cloud, server) == dict.fromkeys(cloud.hosts, GuestState.STOPPED)
    answer = member.action(server, {"revertResize": None})
    assert answer.status == 202, answer.text
    member.wait_for_status(server, "SHUTOFF")
    is_back(cloud, admin, server, source, GuestState.STOPPED)


def test_a_server_gets_another_flavor_on_another_host(
    cloud: TestCloud, admin: Client, member: Client, server: str, larger: str
) -> None:
    source = host_of(admin, server)
    resized(member, server, larger)
    found = admin.server(server)
    assert (found["OS-EXT-SRV-ATTR:host"], found["flavor"]["original_name"]) == (other(source), "larger")
    assert (found["OS-EXT-STS:vm_state"], found["OS-EXT-STS:power_state"]) == ("resized", 1)
    assert where(cloud, server) == {source: GuestState.STOPPED, other(source): GuestState.RUNNING}
    migration = last_migration(admin, server)
    assert (migration["migration_type"], migration["status"]) == ("resize", "finished")
    assert held(admin, server) == {other(source): {"VCPU": 2, "MEMORY_MB": 512, "DISK_GB": 2}}
    assert list(held(admin, migration["uuid"])) == [source]
    cloud.reconcile()
    assert source in where(cloud, server), "what is kept for a revert is no drift"


def test_what_its_guest_does_is_recorded_and_it_stays_resized(
    cloud: TestCloud, admin: Client, member: Client, server: str, larger: str
) -> None:
    resized(member, server, larger)
    host = host_of(admin, server)
    assert cloud.embedded.world is not None
    driver = cloud.embedded.world.drivers[host]

    def corrected(power_state: int, finding: str) -> None:
        cloud.reconcile()
        found = admin.server(server)
        assert found["OS-EXT-STS:power_state"] == power_state
        assert (found["status"], found["OS-EXT-STS:vm_state"]) == ("VERIFY_RESIZE", "resized")
        newest = admin.compute("GET", "/cumulet/findings")["findings"][0]
        assert (newest["finding"], newest["host"], newest["server_id"]) == (finding, host, server)

    cloud.await_(driver.stop(server, grace_seconds=0.0))
    corrected(4, "state-differs")
    cloud.await_(driver.destroy(server))
    corrected(0, "guest-missing")


def test_confirmed_it_keeps_nothing_where_it_came_from(
    cloud: TestCloud, admin: Client, member: Client, server: str, larger: str
) -> None:
    source = host_of(admin, server)
    resized(member, server, larger)
    assert member.action(server, {"confirmResize": None}).status == 204
    admin.wait_for_status(server, "ACTIVE")
    is_back(cloud, admin, server, other(source), GuestState.RUNNING)
    migration = last_migration(admin, server)
    assert migration["status"] == "confirmed"
    assert held(admin, migration["uuid"]) == {}
    assert action_of(admin, server, "confirmResize")["events"][0]["result"] == "Success"
    assert member.action(server, {"revertResize": None}).status == 409


def test_reverted_it_is_as_it_was(cloud: TestCloud, admin: Client, member: Client, server: str, larger: str) -> None:
    source, before = host_of(admin, server), admin.server(server)
    resized(member, server, larger)
    assert member.action(server, {"revertResize": None}).status == 202
    admin.wait_for_status(server, "ACTIVE")
    is_back(cloud, admin, server, source, GuestState.RUNNING)
    assert admin.server(server)["flavor"] == before["flavor"]
    migration = last_migration(admin, server)
    assert (migration["status"], held(admin, migration["uuid"])) == ("reverted", {})
    resized(member, server, larger)


def test_what_comes_late_starts_no_guest_where_it_came_from(
    cloud: TestCloud, admin: Client, member: Client, server: str, larger: str
) -> None:
    source = host_of(admin, server)
    before = cloud.embedded.db.read(lambda tx: get_server(tx, server).generation)
    resized(member, server, larger)
    link = cloud.embedded.hosts.link(source)
    late = m.Start(server_id=server, operation_id="late", generation=before + 1, step=99)
    with pytest.raises(m.StaleGeneration):
        cloud.await_(link.send(late))
    assert where(cloud, server)[source] is GuestState.STOPPED


def test_a_server_whose_new_host_has_lost_it_can_be_reverted(
    cloud: TestCloud, admin: Client, member: Client, server: str, larger: str
) -> None:
    source = host_of(admin, server)
    resized(member, server, larger)
    world = cloud.embedded.world
    assert world is not None
    cloud.await_(world.drivers[host_of(admin, server)].destroy(server))
    assert member.action(server, {"revertResize": None}).status == 202
    admin.wait_for_status(server, "ACTIVE")
    is_back(cloud, admin, server, source, GuestState.RUNNING)


def test_a_stopped_server_stays_stopped_all_the_way(
    cloud: TestCloud, admin: Client, member: Client, server: str, larger: str
) -> None:
    source = host_of(admin, server)
    assert member.action(server, {"os-stop": None}).status == 202
    admin.wait_for_status(server, "SHUTOFF")
    resized(member, server, larger)
    assert where(cloud, server) == dict.fromkeys(cloud.hosts, GuestState.STOPPED)
    assert member.action(server, {"revertResize": None}).status == 202
    admin.wait_for_status(server, "SHUTOFF")
    is_back(cloud, admin, server, source, GuestState.STOPPED)
    resized(member, server, larger)
    assert member.action(server, {"confirmResize": None}).status == 204
    admin.wait_for_status(server, "SHUTOFF")


def test_a_manager_migrates_it_and_only_administrators_say_where_to(
    admin: Client, manager: Client, member: Client, server: str
) -> None:
    source = host_of(admin, server)
    assert member.action(server, {"migrate": None}).status == 403
    assert manager.action(server, {"migrate": {"host": other(source)}}).status == 403
    assert manager.action(server, {"migrate": None}).status == 202
    admin.wait_for_status(server, "VERIFY_RESIZE")
    assert last_migration(admin, server)["migration_type"] == "migration"
    assert member.action(server, {"confirmResize": None}).status == 204
    admin.wait_for_status(server, "ACTIVE")
    assert admin.action(server, {"migrate": {"host": source}}).status == 202
    admin.wait_for_status(server, "VERIFY_RESIZE")
    assert host_of(admin, server) == source


STEPS = ("stop_guest", "stand_by", "start_destination", "copy_disk", "take_in", "let_source_rest")


@pytest.mark.parametrize("step", STEPS)
def test_a_resize_that_fails_leaves_the_server_as_it_was(
    cloud: TestCloud, admin: Client, member: Client, server: str, larger: str, step: str
) -> None:
    source, before = host_of(admin, server), admin.server(server)["flavor"]
    cloud.faults.fail("resize", step=step)
    resize(member, server, larger)
    admin.wait_for_status(server, "ACTIVE")
    is_back(cloud, admin, server, source, GuestState.RUNNING)
    assert admin.server(server)["flavor"] == before
    migration = last_migration(admin, server)
    assert (migration["status"], held(admin, migration["uuid"])) == ("error", {})


def test_a_revert_that_fails_leaves_the_server_resized(
    cloud: TestCloud, admin: Client, member: Client, server: str, larger: str
) -> None:
    source = host_of(admin, server)
    resized(member, server, larger)
    for step in ("stop_destination", "look_at_source"):
        cloud.faults.fail("resize-reversion", step=step)
        assert member.action(server, {"revertResize": None}).status == 202
        cloud.idle()
        assert admin.server(server)["status"] == "VERIFY_RESIZE"
        assert last_migration(admin, server)["status"] == "finished"
        assert where(cloud, server) == {source: GuestState.STOPPED, other(source): GuestState.RUNNING}
    assert member.action(server, {"confirmResize": None}).status == 204
    admin.wait_for_status(server, "ACTIVE")


def test_deleted_while_resized_it_is_gone_everywhere(
    cloud: TestCloud, admin: Client, member: Client, server: str, larger: str
) -> None:
    resized(member, server, larger)
    migration = last_migration(admin, server)["uuid"]
    assert member.compute("DELETE", f"/servers/{server}").status == 204
    admin.wait("the server to be gone", lambda: admin.compute("GET", f"/servers/{server}").status == 404)
    assert leftovers(cloud, admin, server) == {"guests": {}, "allocated": [], "bound": []}
    assert held(admin, migration) == {}


@pytest.mark.parametrize("action", ["resize", "confirmResize", "revertResize"])
def test_deleted_while_something_is_under_way_it_is_gone_everywhere(
    cloud: TestCloud, admin: Client, member: Client, server: str, larger: str, action: str
) -> None:
    if action == "resize":
        resize(member, server, larger)
    else:
        resized(member, server, larger)
        assert member.action(server, {action: None}).status in (202, 204)
    assert member.compute("DELETE", f"/servers/{server}").status == 204
    admin.wait("the server to be gone", lambda: admin.compute("GET", f"/servers/{server}").status == 404)
    assert leftovers(cloud, admin, server) == {"guests": {}, "allocated": [], "bound": []}
    assert held(admin, last_migration(admin, server)["uuid"]) == {}


def test_no_confirmation_while_the_host_it_came_from_is_down(
    cloud: TestCloud, admin: Client, member: Client, server: str, larger: str
) -> None:
    source = host_of(admin, server)
    resized(member, server, larger)
    force_down(admin, source)
    answer = member.action(server, {"confirmResize": None})
    assert (answer.status, answer["conflictingRequest"]["message"]) == (409, "Service is unavailable at this time.")


def test_a_revert_to_a_host_that_is_silent_ends_where_it_began(
    cloud: TestCloud, admin: Client, member: Client, server: str, larger: str
) -> None:
    source = host_of(admin, server)
    resized(member, server, larger)
    with silent(cloud, source):
        assert member.action(server, {"revertResize": None}).status == 202
        cloud.idle()
    assert admin.server(server)["status"] == "VERIFY_RESIZE"
    assert where(cloud, server)[other(source)] is GuestState.RUNNING


# -- what is refused


def test_nobody_resizes_another_projects_server(cloud: TestCloud, server: str, larger: str) -> None:
    for action in ({"resize": {"flavorRef": larger}}, {"confirmResize": None}, {"revertResize": None}):
        assert cloud.persona("other_member").action(server, action).status == 404
        assert cloud.persona("reader").action(server, action).status == 403


def test_states_that_do_not_allow_it(member: Client, server: str, larger: str) -> None:
    for action in ("confirmResize", "revertResize"):
        answer = member.action(server, {action: None})
        assert answer["conflictingRequest"]["message"] == (
            f"Cannot '{action}' instance {server} while it is in vm_state active"
        )
    resized(member, server, larger)
    others: list[dict[str, object]] = [
        {"resize": {"flavorRef": larger}},
        {"os-stop": None},
        {"reboot": {"type": "HARD"}},
    ]
    for other_action in others:
        assert member.action(server, other_action).status == 409


WRONG: dict[str, tuple[str, dict[str, object], int]] = {
    "migrate with a key that is not there": (LATEST, {"migrate": {"zzz": 1}}, 400),
    "migrate to an unknown host": (LATEST, {"migrate": {"host": "nohost"}}, 400),
    "migrate to a host with a blank": (LATEST, {"migrate": {"host": "a b"}}, 400),
    "migrate to a list": (LATEST, {"migrate": []}, 400),
    "resize to nothing": (LATEST, {"resize": {}}, 400),
    "resize to an unknown flavor": (LATEST, {"resize": {"flavorRef": "nonesuch"}}, 400),
    "resize with a key that is not there": (LATEST, {"resize": {"flavorRef": "larger", "zzz": 1}}, 400),
    "resize with a wrong disk config": (LATEST, {"resize": {"flavorRef": "larger", "OS-DCF:diskConfig": "X"}}, 400),
    "resize to a flavor without disk": (LATEST, {"resize": {"flavorRef": "diskless"}}, 400),
    "resize over quota": (LATEST, {"resize": {"flavorRef": "huge"}}, 403),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_refused_and_changes_nothing(admin: Client, server: str, larger: str, name: str) -> None:
    for flavor in (
        {"name": "diskless", "vcpus": 1, "ram": 64, "disk": 0},
        {"name": "huge", "vcpus": 99, "ram": 64, "disk": 9},
    ):
        assert admin.compute("POST", "/flavors", {"flavor": {**flavor, "id": flavor["name"]}}).status == 200
    version, body, status = WRONG[name]
    before = admin.server(server)
    answer = admin.action(server, body, version=version)
    assert answer.status == status, answer.text
    assert admin.server(server) == before


def test_the_same_flavor_or_host_is_no_move(admin: Client, server: str) -> None:
    flavors = admin.compute("GET", "/flavors")["flavors"]
    same = next(flavor["id"] for flavor in flavors if flavor["name"] == "m1.nano")
    answer = admin.action(server, {"resize": {"flavorRef": same}})
    assert answer["badRequest"]["message"] == "When resizing, instances must change flavor!"
    answer = admin.action(server, {"migrate": {"host": host_of(admin, server)}})
    assert answer["badRequest"]["message"] == "Cannot migrate to the host where the server exists."


def test_until_2_55_a_migration_takes_anything_and_no_host(admin: Client, server: str) -> None:
    assert admin.action(server, {"migrate": {"host": "nohost"}}, version="2.55").status == 202
    admin.wait_for_status(server, "VERIFY_RESIZE")


def test_a_disk_does_not_shrink(admin: Client, member: Client, server: str, larger: str) -> None:
    source = host_of(admin, server)
    resized(member, server, larger)
    assert member.action(server, {"confirmResize": None}).status == 204
    admin.wait_for_status(server, "ACTIVE")
    body = {"flavor": {"name": "shallow", "id": "shallow", "vcpus": 2, "ram": 512, "disk": 1}}
    assert admin.compute("POST", "/flavors", body).status == 200
    resize(member, server, "shallow")
    admin.wait("the end", lambda: last_migration(admin, server)["status"] == "error")
    admin.wait_for_status(server, "ACTIVE")
    assert "DISK_SHRINKS" in str(action_of(admin, server, "resize")["events"])
    assert host_of(admin, server) == other(source)
