"""Rules about where servers are count places that are claimed: a destination, and a source that may be returned to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cumulet.testing
from cumulet.testing import Client, TestCloud

from .servers import AUTO, LATEST, host_of, running_migration
from .test_compute_servers import ask_for
from .test_evacuation import action_of, force_down

HOSTS = {"host1", "host2", "host3"}


@pytest.fixture(scope="module")
def three() -> Iterator[TestCloud]:
    with cumulet.testing.cloud(hosts=3) as running:
        yield running


@pytest.fixture
def cloud(three: TestCloud) -> Iterator[TestCloud]:
    yield three
    three.reset()


def flavor(admin: Client, name: str, *, vcpus: int = 1, memory_mib: int = 512, busy: bool = False) -> str:
    wanted = {"flavor": {"name": name, "id": name, "vcpus": vcpus, "ram": memory_mib, "disk": 1}}
    assert admin.compute("POST", "/flavors", wanted).status == 200
    if busy:  # Its live migration does not end by itself.
        specs = {"extra_specs": {"cumulet:dirty_rate_mib_s": "100000"}}
        assert admin.compute("POST", f"/flavors/{name}/os-extra_specs", specs).status == 200
    return name


def group(admin: Client, policy: str, **rules: int) -> str:
    wanted = {"server_group": {"name": policy, "policy": policy, "rules": rules}}
    made: str = admin.compute("POST", "/os-server-groups", wanted, version=LATEST)["server_group"]["id"]
    return made


def member_of(admin: Client, group_id: str, flavor_id: str, **attributes: Any) -> str:
    made: str = ask_for(admin, hints={"group": group_id}, flavorRef=flavor_id, **attributes)["server"]["id"]
    admin.wait_for_status(made, "ACTIVE")
    return made


def move(admin: Client, server_id: str, host: str | None = None) -> None:
    assert admin.action(server_id, {"os-migrateLive": {"host": host, **AUTO}}).status == 202


def cold(admin: Client, server_id: str) -> None:
    assert admin.action(server_id, {"migrate": None}).status == 202


def resize(admin: Client, server_id: str) -> None:
    assert admin.action(server_id, {"resize": {"flavorRef": flavor(admin, "larger", vcpus=2)}}).status == 202


def evacuate(admin: Client, server_id: str) -> None:
    force_down(admin, host_of(admin, server_id))
    assert admin.action(server_id, {"evacuate": {}}).status == 200


MOVES: dict[str, tuple[str, Callable[[Client, str], None]]] = {
    "live, any host": ("live-migration", move),
    "cold": ("migrate", cold),
    "resize": ("resize", resize),
    "evacuation": ("evacuate", evacuate),
}


def reasons(admin: Client, server_id: str, action: str) -> str:
    """What the last action of that name says to administrators, once it has failed."""
    found = admin.wait("a failed action", lambda: _failed(admin, server_id, action))
    return str(found["details"])


def _failed(admin: Client, server_id: str, action: str) -> Any:
    events = action_of(admin, server_id, action)["events"]
    return next((event for event in events if event["result"] == "Error"), None)


@pytest.mark.parametrize("kind", MOVES)
def test_a_member_does_not_move_to_where_another_is_on_its_way_to_or_from(admin: Client, kind: str) -> None:
    apart = group(admin, "anti-affinity")
    first = member_of(admin, apart, flavor(admin, "busy", memory_mib=1024, busy=True))
    second = member_of(admin, apart, flavor(admin, "quiet"))
    source, own = host_of(admin, first), host_of(admin, second)
    (destination,) = HOSTS - {source, own}
    move(admin, first, destination)
    running_migration(admin, first)
    action, ask = MOVES[kind]
    ask(admin, second)
    details = reasons(admin, second, action)
    assert f"{destination}: ANTI_AFFINITY" in details
    assert f"{source}: ANTI_AFFINITY" in details, "the first may come back to it"
    assert host_of(admin, second) == own


def test_a_server_boots_neither_where_a_member_goes_to_nor_where_it_may_come_back_to(admin: Client) -> None:
    apart = group(admin, "anti-affinity")
    first = member_of(admin, apart, flavor(admin, "quiet"))
    source = host_of(admin, first)
    resize(admin, first)
    admin.wait_for_status(first, "VERIFY_RESIZE")
    second = member_of(admin, apart, "quiet")
    assert {source, host_of(admin, first), host_of(admin, second)} == HOSTS
    third = ask_for(admin, hints={"group": apart}, flavorRef="quiet")["server"]["id"]
    admin.wait_for_status(third, "ERROR")
    assert admin.action(first, {"revertResize": None}).status == 202
    admin.wait_for_status(first, "ACTIVE")
    assert host_of(admin, first) == source


def test_no_more_members_come_to_a_host_than_its_rule_allows(admin: Client) -> None:
    apart = group(admin, "anti-affinity", max_server_per_host=2)
    flavor(admin, "busy", memory_mib=1024, busy=True)
    members = [member_of(admin, apart, "busy") for _ in range(3)]
    crowd = host_of(admin, members[0])
    moving = [server for server in members if host_of(admin, server) != crowd]
    assert len(moving) == 2
    move(admin, moving[0], crowd)
    running_migration(admin, moving[0])
    move(admin, moving[1], crowd)
    assert f"{crowd}: ANTI_AFFINITY" in reasons(admin, moving[1], "live-migration")


def test_nobody_is_sure_to_be_beside_a_member_that_is_on_its_way(admin: Client) -> None:
    together = group(admin, "affinity")
    first = member_of(admin, together, flavor(admin, "busy", memory_mib=1024, busy=True))
    move(admin, first)
    running_migration(admin, first)
    second = ask_for(admin, hints={"group": together})["server"]["id"]
    admin.wait_for_status(second, "ERROR")
    far = ask_for(admin, hints={"different_host": [first]})["server"]["id"]
    admin.wait_for_status(far, "ACTIVE")
    migration = admin.compute("GET", f"/servers/{first}/migrations")["migrations"][0]
    assert {migration["source_compute"], migration["dest_compute"], host_of(admin, far)} == HOSTS


def test_a_group_and_a_hint_that_want_different_hosts_leave_none(admin: Client) -> None:
    together = group(admin, "affinity")
    first = member_of(admin, together, flavor(admin, "quiet"))
    far = ask_for(admin, hints={"different_host": [first]})["server"]["id"]
    admin.wait_for_status(far, "ACTIVE")
    torn = ask_for(admin, hints={"group": together, "same_host": [far]})["server"]["id"]
    assert admin.wait_for_status(torn, "ERROR")["fault"]["message"].startswith("No valid host")
    beside = ask_for(admin, hints={"group": together, "same_host": [first]})["server"]["id"]
    assert admin.wait_for_status(beside, "ACTIVE")["OS-EXT-SRV-ATTR:host"] == host_of(admin, first)


def test_a_deleted_server_is_no_member_and_takes_no_member_s_room(admin: Client) -> None:
    wanted = {"quota_set": {"server_group_members": 1}}
    assert admin.compute("PUT", f"/os-quota-sets/{admin.project_id}", wanted).status == 200
    apart = group(admin, "anti-affinity")
    first = member_of(admin, apart, flavor(admin, "quiet"))
    answer = ask_for(admin, hints={"group": apart})
    assert (answer.status, "too many servers in group" in answer.text) == (403, True), answer.text
    assert admin.compute("DELETE", f"/servers/{first}").status == 204
    admin.wait("it to go", lambda: admin.compute("GET", f"/servers/{first}").status == 404)
    assert admin.compute("GET", f"/os-server-groups/{apart}")["server_group"]["members"] == []
    second = member_of(admin, apart, "quiet")
    assert admin.compute("GET", f"/os-server-groups/{apart}")["server_group"]["members"] == [second]


def test_room_in_a_group_is_counted_for_each_user(admin: Client, manager: Client, member: Client) -> None:
    assert manager.project_id == member.project_id
    wanted = {"quota_set": {"server_group_members": 1}}
    assert admin.compute("PUT", f"/os-quota-sets/{member.project_id}", wanted).status == 200
    apart, quiet = group(member, "anti-affinity"), flavor(admin, "quiet")
    assert member_of(member, apart, quiet) != member_of(manager, apart, quiet)
    assert [ask_for(client, hints={"group": apart}).status for client in (member, manager)] == [403, 403]


@pytest.mark.parametrize("policy", ["soft-affinity", "soft-anti-affinity"])
def test_a_soft_policy_is_followed_while_it_can_be(admin: Client, policy: str) -> None:
    wished = group(admin, policy)
    flavor(admin, "quiet")
    hosts = [host_of(admin, member_of(admin, wished, "quiet")) for _ in range(4)]
    assert len(set(hosts[:3])) == (1 if policy == "soft-affinity" else 3)
    assert hosts[3] in HOSTS


def test_a_host_that_a_server_is_on_its_way_to_is_in_use(admin: Client) -> None:
    first = ask_for(admin, flavorRef=flavor(admin, "busy", memory_mib=1024, busy=True))["server"]["id"]
    admin.wait_for_status(first, "ACTIVE")
    (destination, _) = sorted(HOSTS - {host_of(admin, first)})
    move(admin, first, destination)
    running_migration(admin, first)
    wanted = {"aggregate": {"name": "other", "availability_zone": "other"}}
    made = admin.compute("POST", "/os-aggregates", wanted)["aggregate"]["id"]
    answer = admin.compute("POST", f"/os-aggregates/{made}/action", {"add_host": {"host": destination}})
    assert answer.status == 409
    assert "contain instances" in answer.text


def test_a_host_in_use_leaves_an_aggregate_of_the_default_zone(admin: Client) -> None:
    used = host_of(admin, member_of(admin, group(admin, "affinity"), flavor(admin, "quiet")))
    wanted = {"aggregate": {"name": "usual", "availability_zone": "nova"}}
    path = f"/os-aggregates/{admin.compute('POST', '/os-aggregates', wanted)['aggregate']['id']}/action"
    assert [admin.compute("POST", path, {verb: {"host": used}}).status for verb in ("add_host", "remove_host")] == [
        200
    ] * 2


def test_a_resize_under_way_or_unconfirmed_counts_with_the_larger_of_its_flavors(admin: Client) -> None:
    small, large = flavor(admin, "small"), flavor(admin, "large", vcpus=4, memory_mib=1024)
    server = ask_for(admin, flavorRef=large)["server"]["id"]
    admin.wait_for_status(server, "ACTIVE")

    def used() -> tuple[int, int]:
        limits = admin.compute("GET", "/limits")["limits"]["absolute"]
        return limits["totalCoresUsed"], limits["totalRAMUsed"]

    before = used()
    assert admin.action(server, {"resize": {"flavorRef": small}}).status == 202
    assert used() == before
    admin.wait_for_status(server, "VERIFY_RESIZE")
    assert used() == before, "its user may take it back"
    assert admin.action(server, {"confirmResize": None}).status == 204
    admin.wait_for_status(server, "ACTIVE")
    assert used() == (before[0] - 3, before[1] - 512)
    assert admin.action(server, {"resize": {"flavorRef": large}}).status == 202
    assert used() == before, "the new flavor is claimed at once"
