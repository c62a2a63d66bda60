"""Agents are the hosts as they are: alive while a host answers, with the routers and networks that it really has."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from cumulet.compute.descriptions import described
from cumulet.testing import Client, JsonObject, TestCloud
from tests.api.test_compute_servers import create
from tests.api.test_network_stories import UNKNOWN, call, make, network_with_subnet, public


def agents(client: Client, query: str = "", path: str = "/agents") -> list[JsonObject]:
    found: list[dict[str, object]] = call(client, "GET", f"{path}{query}")["agents"]
    return found


def test_each_host_has_an_agent_for_each_task_and_only_administrators_see_them(admin: Client, member: Client) -> None:
    found = agents(admin)
    assert {(one["host"], one["agent_type"]) for one in found} == {
        (host, kind)
        for host in ("host1", "host2")
        for kind in ("Cumulet agent", "DHCP agent", "L3 agent", "Metadata agent")
    }
    assert all(one["alive"] and one["admin_state_up"] for one in found)
    assert {one["id"] for one in found} == {one["id"] for one in agents(admin)}, "ids stay"
    only = agents(admin, "?agent_type=L3%20agent&host=host2")
    assert [one["host"] for one in only] == ["host2"]
    assert agents(admin, "?alive=false") == []
    assert call(admin, "GET", "/agents?nothing=1").status == 400
    assert agents(member) == []
    assert call(member, "GET", f"/agents/{only[0]['id']}").status == 404
    assert call(admin, "GET", f"/agents/{UNKNOWN}").status == 404


def test_a_page_begins_after_its_marker_so_that_pages_end(admin: Client) -> None:
    ids, marker = [one["id"] for one in agents(admin)], ""
    paged = []
    for _ in ids:
        (one,) = agents(admin, f"?limit=1{marker}")
        paged.append(one["id"])
        marker = f"&marker={one['id']}"
    assert paged == ids
    assert agents(admin, f"?limit=1{marker}") == []
    assert call(admin, "GET", f"/agents?limit=1&marker={UNKNOWN}").status == 404


def test_a_host_that_is_declared_down_has_agents_that_are_not_alive(admin: Client) -> None:
    services = admin.compute("GET", "/os-services?binary=nova-compute&host=host2")["services"]
    path = f"/os-services/{services[0]['id']}"
    assert admin.compute("PUT", path, {"forced_down": True}).status == 200
    assert {one["host"] for one in agents(admin, "?alive=false")} == {"host2"}


def test_the_agents_of_a_network_and_a_router_are_on_the_hosts_that_have_them(
    cloud: TestCloud, admin: Client, member: Client
) -> None:
    network, subnet = network_with_subnet(member)
    assert agents(admin, path=f"/networks/{network}/dhcp-agents") == []
    server = create(member, networks=[{"uuid": network}])["id"]
    host = admin.compute("GET", f"/servers/{server}")["server"]["OS-EXT-SRV-ATTR:host"]
    (dhcp,) = agents(admin, path=f"/networks/{network}/dhcp-agents")
    assert (dhcp["host"], dhcp["agent_type"]) == (host, "DHCP agent")
    served = call(admin, "GET", f"/agents/{dhcp['id']}/dhcp-networks")["networks"]
    assert [one["id"] for one in served] == [network]
    router = make(member, "router", external_gateway_info={"network_id": public(member)})["id"]
    call(member, "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
    (l3,) = agents(admin, path=f"/routers/{router}/l3-agents")
    assert router in [one["id"] for one in call(admin, "GET", f"/agents/{l3['id']}/l3-routers")["routers"]]
    there = cloud.embedded.db.read(lambda tx: described(tx, l3["host"])).routers
    assert router in [one.id for one in there], "the host is told so"
    assert call(admin, "GET", f"/agents/{l3['id']}/dhcp-networks").status == 404, "that is another agent's"
    assert call(member, "GET", f"/routers/{router}/l3-agents").status == 403
    call(member, "PUT", f"/routers/{router}", {"router": {"admin_state_up": False}})
    assert agents(admin, path=f"/routers/{router}/l3-agents") == []


def test_an_agent_is_described_and_neither_disabled_nor_deleted(admin: Client) -> None:
    path = f"/agents/{agents(admin)[0]['id']}"
    assert call(admin, "PUT", path, {"agent": {"description": "in the cellar"}})["agent"]["description"]
    assert call(admin, "GET", path)["agent"]["description"] == "in the cellar"
    assert call(admin, "PUT", path, {"agent": {"admin_state_up": True}}).status == 200
    refused = call(admin, "PUT", path, {"agent": {"admin_state_up": False, "description": "no"}})
    assert (refused.status, "disable its compute service" in refused.text) == (409, True)
    assert call(admin, "GET", path)["agent"]["description"] == "in the cellar"
    assert call(admin, "DELETE", path).status == 409


@pytest.mark.parametrize("change", [{"host": "host9"}, {"description": "x" * 256}, {"admin_state_up": "perhaps"}])
def test_an_invalid_change_is_refused(admin: Client, change: Mapping[str, object]) -> None:
    assert call(admin, "PUT", f"/agents/{agents(admin)[0]['id']}", {"agent": change}).status == 400
