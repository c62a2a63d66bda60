"""What operators see and set: services, hypervisors, zones and aggregates, quotas, use."""

from __future__ import annotations

from typing import Any

import pytest

from cumulet.testing import Client
from tests.api.test_compute_servers import ask_for, create

LATEST = "2.104"


def services(admin: Client, query: str = "") -> dict[str, dict[str, Any]]:
    return {s["host"]: s for s in admin.compute("GET", f"/os-services?binary=nova-compute{query}")["services"]}


@pytest.mark.parametrize(
    "path",
    ["/os-services", "/os-hypervisors", "/os-hypervisors/detail", "/os-aggregates", "/os-availability-zone/detail",
     "/os-quota-class-sets/default", "/os-simple-tenant-usage"],
)  # fmt: skip
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
def test_a_service_update_that_says_nothing_is_refused(admin: Client, body: dict[str, Any], status: int) -> None:
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
