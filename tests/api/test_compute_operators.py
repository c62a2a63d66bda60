"""What operators see and set: services, hypervisors, zones and aggregates, quotas, use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from cumulet.host.diagnostics import GuestCounters
from cumulet.testing import Client, JsonObject, TestCloud
from tests.api.test_compute_servers import ask_for, create

LATEST = "2.104"


def services(admin: Client, query: str = "") -> dict[str, JsonObject]:
    return {s["host"]: s for s in admin.compute("GET", f"/os-services?binary=nova-compute{query}")["services"]}


@pytest.mark.parametrize(
    "path",
    [
        "/os-services",
        "/os-hypervisors",
        "/os-hypervisors/detail",
        "/os-aggregates",
        "/os-availability-zone/detail",
        "/os-quota-class-sets/default",
        "/os-simple-tenant-usage",
    ],
)
def test_operators_pages_are_for_administrators(admin: Client, manager: Client, path: str) -> None:
    assert admin.compute("GET", path).status == 200
    assert manager.compute("GET", path).status == 403


def test_a_disabled_host_gets_no_new_servers(admin: Client) -> None:
    host1 = services(admin)["host1"]["id"]
    off = admin.compute("PUT", f"/os-services/{host1}", {"status": "disabled", "disabled_reason": "repair"})
    assert (off["service"]["status"], off["service"]["disabled_reason"]) == ("disabled", "repair")
    placed = {create(admin, name=f"s{n}")["OS-EXT-SRV-ATTR:host"] for n in range(3)}
    assert placed == {"host2"}
    on = admin.compute("PUT", f"/os-services/{host1}", {"status": "enabled"})
    assert on["service"]["disabled_reason"] is None


def test_a_host_forced_down_shows_as_down_everywhere(admin: Client) -> None:
    server = create(admin, host="host1")
    host1 = services(admin)["host1"]["id"]
    assert admin.compute("PUT", f"/os-services/{host1}", {"forced_down": True})["service"]["state"] == "down"
    hypervisors = admin.compute("GET", "/os-hypervisors")["hypervisors"]
    assert {h["hypervisor_hostname"]: h["state"] for h in hypervisors}["host1"] == "down"
    assert admin.server(server["id"])["host_status"] == "DOWN"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"status": "enabled", "disabled_reason": "x"}, 400),
        ({"status": "off"}, 400),
        ({"host": "host1"}, 400),
    ],
)
def test_a_service_update_that_says_nothing_is_refused(admin: Client, body: Mapping[str, object], status: int) -> None:
    host1 = services(admin)["host1"]["id"]
    assert admin.compute("PUT", f"/os-services/{host1}", body).status == status


def test_before_2_53_services_are_named_by_host_and_binary(admin: Client) -> None:
    body = {"host": "host1", "binary": "nova-compute"}
    answer = admin.compute("PUT", "/os-services/disable", body, version="2.1")
    assert answer["service"] == {**body, "status": "disabled"}
    assert admin.compute("PUT", "/os-services/disable-log-reason", body, version="2.1").status == 400
    assert admin.compute("PUT", "/os-services/enable", {**body, "host": "host9"}, version="2.1").status == 404
    assert admin.compute("PUT", "/os-services/explode", body, version="2.1").status == 404


def test_a_host_in_use_cannot_be_removed(admin: Client) -> None:
    create(admin, host="host1")
    assert admin.compute("DELETE", f"/os-services/{services(admin)['host1']['id']}").status == 409


def test_hypervisors_count_their_servers(admin: Client) -> None:
    create(admin, host="host1")
    by_name = {
        h["hypervisor_hostname"]: h
        for h in admin.compute("GET", "/os-hypervisors/detail", version="2.87")["hypervisors"]
    }
    assert (by_name["host1"]["running_vms"], by_name["host1"]["memory_mb_used"]) == (1, 128)
    assert by_name["host2"]["running_vms"] == 0
    found = admin.compute("GET", "/os-hypervisors?with_servers=true&hypervisor_hostname_pattern=host1")["hypervisors"]
    assert len(found[0]["servers"]) == 1
    assert admin.compute("GET", "/os-hypervisors?hypervisor_hostname_pattern=nothing").status == 404
    assert admin.compute("GET", "/os-hypervisors/1").status == 400


def test_hosts_say_how_long_they_have_been_up(admin: Client) -> None:
    hypervisor = admin.compute("GET", "/os-hypervisors", version="2.87")["hypervisors"][0]
    path = f"/os-hypervisors/{hypervisor['id']}"
    old = admin.compute("GET", f"{path}/uptime", version="2.87")["hypervisor"]
    assert old.keys() == {*hypervisor, "uptime"}
    for uptime in (old["uptime"], admin.compute("GET", path)["hypervisor"]["uptime"]):
        assert re.fullmatch(r"\d\d:\d\d:\d\d up 0 days, 0:\d\d", uptime)
    service = services(admin)[hypervisor["hypervisor_hostname"]]["id"]
    assert admin.compute("PUT", f"/os-services/{service}", {"forced_down": True}).status == 200
    assert admin.compute("GET", path)["hypervisor"]["uptime"] is None
    assert admin.compute("GET", f"{path}/uptime", version="2.87").status == 400


def test_a_servers_hypervisor_tells_of_its_cards_and_disks(admin: Client) -> None:
    server = create(admin, networks="auto", config_drive=True)
    found = admin.compute("GET", f"/servers/{server['id']}/diagnostics")
    (addresses,) = server["addresses"].values()
    assert [card["mac_address"] for card in found["nic_details"]] == [addresses[0]["OS-EXT-IPS-MAC:mac_addr"]]
    assert (found["num_nics"], found["num_disks"], len(found["disk_details"])) == (1, 2, 2)
    (cpu,) = found["cpu_details"]
    assert cpu["id"] == 0
    assert cpu["time"] > 0
    assert found["memory_details"] == {"maximum": server["flavor"]["ram"], "used": server["flavor"]["ram"]}
    assert found["uptime"] >= 0
    old = admin.compute("GET", f"/servers/{server['id']}/diagnostics", version="2.47").json
    assert old.keys() >= {"cpu0_time", "memory", "memory-rss"}
    assert old["memory"] == server["flavor"]["ram"] * 1024


def test_a_guest_uses_no_more_memory_than_it_has(
    cloud: TestCloud, admin: Client, member: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its process does."""
    server = create(member)
    memory_mib = server["flavor"]["ram"]
    told = GuestCounters(resident_kib=(memory_mib + 36) << 10)

    async def diagnostics(host: str, server_id: str) -> GuestCounters:
        return told

    monkeypatch.setattr(cloud.embedded.hosts, "diagnostics", diagnostics)
    path = f"/servers/{server['id']}/diagnostics"
    assert admin.compute("GET", path)["memory_details"] == {"maximum": memory_mib, "used": memory_mib}
    assert admin.compute("GET", path, version="2.47")["memory-rss"] == told.resident_kib


def test_an_address_is_shown_in_its_one_spelling(member: Client) -> None:
    server = create(member, accessIPv6="0000:0000:0000:0000:0000:babe:220.12.22.2")
    assert server["accessIPv6"] == "::babe:dc0c:1602"
    changed = member.compute("PUT", f"/servers/{server['id']}", {"server": {"accessIPv6": "2001:DB8::0:7"}})
    assert changed["server"]["accessIPv6"] == "2001:db8::7"


def test_the_old_hosts_page_says_who_uses_what(admin: Client, member: Client) -> None:
    """Refused are its switches: real Nova's libvirt driver has none of them either."""
    create(admin, host="host1")
    hosts = admin.compute("GET", "/os-hosts?zone=nova", version="2.42")["hosts"]
    assert {host["host_name"] for host in hosts} == {"host1", "host2"}
    assert all((host["service"], host["zone"]) == ("compute", "nova") for host in hosts)
    path = "/os-hosts/host1"
    lines = [line["resource"] for line in admin.compute("GET", path, version="2.42")["host"]]
    projects = ["(total)", "(used_now)", "(used_max)", admin.project_id]
    assert [(line["host"], line["project"]) for line in lines] == [("host1", project) for project in projects]
    assert [(line["cpu"], line["memory_mb"], line["disk_gb"]) for line in lines[1:]] == [(1, 128, 1)] * 3
    assert admin.compute("GET", "/os-hosts/nohost", version="2.42").status == 404
    assert admin.compute("PUT", path, {"status": "disable"}, version="2.42").status == 501
    assert admin.compute("PUT", path, {"status": "maybe"}, version="2.42").status == 400
    assert admin.compute("GET", f"{path}/reboot", version="2.42").status == 501
    assert member.compute("GET", path, version="2.42").status == 403
    assert admin.compute("GET", path, version="2.43").status == 404


def test_other_services_may_tell_compute_of_events(admin: Client, member: Client) -> None:
    server, path = create(member)["id"], "/os-server-external-events"
    changed = {"name": "network-changed", "server_uuid": server}
    lost = {**changed, "server_uuid": "7c2d25ca-3d12-4a09-96b4-4c32ac30e6de", "tag": "x"}
    assert member.compute("POST", path, {"events": [changed]}).status == 403
    answer = admin.compute("POST", path, {"events": [changed]})
    assert (answer.status, answer["events"]) == (200, [{**changed, "status": "completed", "code": 200}])
    answer = admin.compute("POST", path, {"events": [changed, lost, {**changed, "name": "power-update"}]})
    assert (answer.status, [event["code"] for event in answer["events"]]) == (207, [200, 404, 400])
    assert answer["events"][1] == {**lost, "status": "failed", "code": 404}
    extended = {**changed, "name": "volume-extended", "tag": "x"}
    assert admin.compute("POST", path, {"events": [extended]}, version="2.50").status == 400
    assert admin.compute("POST", path, {"events": [extended]}).status == 501


def test_an_aggregate_makes_a_zone(admin: Client, member: Client) -> None:
    wanted = {"aggregate": {"name": "north", "availability_zone": "north"}}
    aggregate = admin.compute("POST", "/os-aggregates", wanted)["aggregate"]["id"]
    path = f"/os-aggregates/{aggregate}"
    assert admin.compute("POST", f"{path}/action", {"add_host": {"host": "host2"}}).status == 200
    assert admin.compute("POST", f"{path}/action", {"add_host": {"host": "host2"}}).status == 409
    assert admin.compute("POST", f"{path}/action", {"add_host": {"host": "host9"}}).status == 404
    zones = member.compute("GET", "/os-availability-zone")["availabilityZoneInfo"]
    assert [zone["zoneName"] for zone in zones] == ["north", "nova"]
    server = create(member, availability_zone="north")
    assert server["OS-EXT-AZ:availability_zone"] == "north"
    assert admin.server(server["id"])["OS-EXT-SRV-ATTR:host"] == "host2"
    assert admin.compute("PUT", path, {"aggregate": {"availability_zone": "south"}}).status == 400
    assert admin.compute("DELETE", path).status == 400
    assert admin.compute("GET", "/os-aggregates/-1").status == 404
    assert admin.compute("POST", f"{path}/action", {"remove_host": {"host": "host2"}}).status == 409


def test_a_projects_quota_is_set_and_reset(admin: Client, member: Client) -> None:
    project = member.project_id
    path = f"/os-quota-sets/{project}"
    assert admin.compute("PUT", path, {"quota_set": {"instances": 1}})["quota_set"]["instances"] == 1
    assert ask_for(member).status == 202
    assert ask_for(member).status == 403
    detail = member.compute("GET", f"{path}/detail")["quota_set"]["instances"]
    assert detail == {"limit": 1, "in_use": 1, "reserved": 0}
    assert admin.compute("PUT", path, {"quota_set": {"instances": 0}}).status == 400
    assert member.compute("PUT", path, {"quota_set": {"instances": 99}}).status == 403
    assert admin.compute("DELETE", path).status == 202
    assert member.compute("GET", path)["quota_set"]["instances"] == 10


def test_limits_say_what_is_used(member: Client, other_member: Client) -> None:
    create(member)
    absolute = member.compute("GET", "/limits")["limits"]["absolute"]
    assert (absolute["totalInstancesUsed"], absolute["totalRAMUsed"], absolute["maxTotalCores"]) == (1, 128, 20)
    assert other_member.compute("GET", f"/limits?tenant_id={member.project_id}").status == 403


def test_use_is_counted_by_the_hour(admin: Client, member: Client) -> None:
    create(member, name="busy")
    span = "start=2020-01-01T00:00:00&end=2099-01-01T00:00:00"
    usage = member.compute("GET", f"/os-simple-tenant-usage/{member.project_id}?{span}")["tenant_usage"]
    assert [server["name"] for server in usage["server_usages"]] == ["busy"]
    assert usage["total_hours"] > 0
    assert admin.compute("GET", "/os-simple-tenant-usage?start=yesterday").status == 400


def test_use_ends_with_the_server(cloud: TestCloud, member: Client) -> None:
    def used(begin: int) -> list[JsonObject]:
        """By the servers that were there since `begin`."""
        since = datetime.fromtimestamp(begin // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        path = f"/os-simple-tenant-usage/{member.project_id}?start={since}&end=2099-01-01T00:00:00"
        found: list[JsonObject] = member.compute("GET", path)["tenant_usage"].get("server_usages", [])
        return found

    begun = cloud.clock.now_us()
    gone, stays = (create(member, name=name)["id"] for name in ("gone", "stays"))
    assert member.compute("DELETE", f"/servers/{gone}").status == 204
    cloud.idle()
    cloud.clock.advance(1800.0)
    uptimes = {one["instance_id"]: (one["state"], one["uptime"] >= 1800) for one in used(begun)}
    assert uptimes == {gone: ("terminated", False), stays: ("active", True)}
    assert [one["instance_id"] for one in used(cloud.clock.now_us() - 900_000_000)] == [stays]


def test_groups_belong_to_projects(member: Client, other_member: Client, reader: Client) -> None:
    wanted = {"server_group": {"name": "pair", "policy": "affinity"}}
    assert reader.compute("POST", "/os-server-groups", wanted).status == 403
    group = member.compute("POST", "/os-server-groups", wanted)["server_group"]
    assert group["rules"] == {}
    assert other_member.compute("GET", f"/os-server-groups/{group['id']}").status == 404
    assert other_member.compute("DELETE", f"/os-server-groups/{group['id']}").status == 404
    assert member.compute("GET", "/os-server-groups", version="2.63")["server_groups"][0]["policies"] == ["affinity"]
    assert member.compute("DELETE", f"/os-server-groups/{group['id']}").status == 204
    rules = {"server_group": {"name": "pair", "policy": "affinity", "rules": {"max_server_per_host": 2}}}
    assert member.compute("POST", "/os-server-groups", rules).status == 400


def test_default_limits_do_not_tell_whether_there_is_a_project(admin: Client, member: Client) -> None:
    unknown = "0" * 32
    seen = []
    for project_id in (admin.project_id, unknown):
        answer = member.compute("GET", f"/os-quota-sets/{project_id}/defaults")
        seen.append((answer.status, answer.text.replace(str(project_id), "")))
    assert seen[0] == seen[1]
    assert seen[0][0] == 200
    assert admin.compute("GET", f"/os-quota-sets/{unknown}/defaults").status == 400
