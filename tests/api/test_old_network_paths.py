"""Clients of before 2.36 find networks, security groups and floating IPs under Compute's own paths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

import cumulet.testing
from cumulet.testing import Client, TestCloud

NOBODYS = "3f0f0a2e-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def there() -> Iterator[TestCloud]:
    with cumulet.testing.cloud(hosts=1) as cloud:
        yield cloud


@pytest.fixture
def member(there: TestCloud) -> Client:
    return there.persona("member")


def old(client: Client, method: str, path: str, body: object = None, *, version: str = "2.1") -> Any:
    return client.compute(method, path, body, version=version)


@pytest.fixture(scope="module")
def topology(there: TestCloud) -> dict[str, str]:
    """A network with a subnet behind a router to `public`, and a server with an address there."""
    member = there.persona("member")

    def made(kind: str, more: Mapping[str, object]) -> str:
        return str(member.request("POST", f"/network/v2.0/{kind}s", {kind: more})[kind]["id"])

    public = member.request("GET", "/network/v2.0/networks?name=public")["networks"][0]["id"]
    network = made("network", {"name": "inside"})
    subnet = made("subnet", {"network_id": network, "cidr": "10.9.0.0/24", "ip_version": 4})
    router = made("router", {"external_gateway_info": {"network_id": public}})
    path = f"/network/v2.0/routers/{router}/add_router_interface"
    assert member.request("PUT", path, {"subnet_id": subnet}).status == 200
    image = member.request("GET", "/image/v2/images?name=cumulet-tiny")["images"][0]["id"]
    flavor = next(f["id"] for f in member.compute("GET", "/flavors")["flavors"] if f["name"] == "m1.nano")
    wanted = {"name": "one", "imageRef": image, "flavorRef": flavor, "networks": [{"uuid": network}]}
    server = member.compute("POST", "/servers", {"server": wanted})["server"]["id"]
    there.idle()
    return {"public": public, "network": network, "subnet": subnet, "server": server}


def test_networks_have_their_ids_and_names_and_nothing_else(member: Client, topology: dict[str, str]) -> None:
    shown = old(member, "GET", f"/os-networks/{topology['network']}")["network"]
    assert shown["label"] == "inside"
    assert {value for name, value in shown.items() if name not in ("id", "label")} == {None}
    assert shown in old(member, "GET", "/os-networks")["networks"]
    of_tenant = old(member, "GET", f"/os-tenant-networks/{topology['network']}")["network"]
    assert of_tenant == {"id": topology["network"], "cidr": "None", "label": "inside"}
    assert of_tenant in old(member, "GET", "/os-tenant-networks")["networks"]


def test_only_administrators_see_the_attributes_of_the_system(there: TestCloud, member: Client) -> None:
    assert "vlan" in old(there.persona("admin"), "GET", "/os-networks")["networks"][0]
    assert "vlan" not in old(member, "GET", "/os-networks")["networks"][0]


def test_another_projects_network_is_unknown(there: TestCloud, topology: dict[str, str]) -> None:
    other = there.persona("other_member")
    for path in ("os-networks", "os-tenant-networks"):
        answer = old(other, "GET", f"/{path}/{topology['network']}")
        assert (answer.status, answer["itemNotFound"]["message"]) == (404, "Network not found")
        assert topology["network"] not in {one["id"] for one in old(other, "GET", f"/{path}")["networks"]}


@pytest.mark.parametrize(
    "path",
    ["/os-networks", "/os-tenant-networks", "/os-security-groups", "/os-floating-ips", "/os-floating-ip-pools"],
)
def test_the_paths_end_with_235(member: Client, path: str) -> None:
    assert old(member, "GET", path, version="2.35").status == 200
    assert old(member, "GET", path, version="2.36").status == 404


def test_a_group_and_its_rules(member: Client) -> None:
    wanted = {"security_group": {"name": "web", "description": "of old"}}
    group = old(member, "POST", "/os-security-groups", wanted)["security_group"]
    assert group == {
        "id": group["id"],
        "name": "web",
        "description": "of old",
        "tenant_id": member.project_id,
        "rules": [],
    }
    rule = {"parent_group_id": group["id"], "ip_protocol": "tcp", "from_port": "80", "to_port": 443}
    made = old(member, "POST", "/os-security-group-rules", {"security_group_rule": rule})["security_group_rule"]
    assert {name: made[name] for name in ("ip_protocol", "from_port", "to_port", "ip_range", "group")} == {
        "ip_protocol": "tcp",
        "from_port": 80,
        "to_port": 443,
        "ip_range": {"cidr": "0.0.0.0/0"},
        "group": {},
    }
    of_network = member.request("GET", f"/network/v2.0/security-group-rules/{made['id']}")["security_group_rule"]
    assert (of_network["port_range_min"], of_network["port_range_max"], of_network["ethertype"]) == (80, 443, "IPv4")
    assert old(member, "GET", f"/os-security-groups/{group['id']}")["security_group"]["rules"] == [made]
    renamed = {"security_group": {"name": "shop", "description": ""}}
    assert old(member, "PUT", f"/os-security-groups/{group['id']}", renamed)["security_group"]["name"] == "shop"
    assert old(member, "DELETE", f"/os-security-group-rules/{made['id']}").status == 202
    assert old(member, "DELETE", f"/os-security-groups/{group['id']}").status == 202
    assert old(member, "GET", f"/os-security-groups/{group['id']}").status == 404


def test_from_a_groups_members_all_is_let_in_where_no_ports_are_named(member: Client) -> None:
    wanted = {"security_group": {"name": "members", "description": ""}}
    group = old(member, "POST", "/os-security-groups", wanted)["security_group"]["id"]
    rule = {"parent_group_id": group, "group_id": group}
    everything = old(member, "POST", "/os-security-group-rules", {"security_group_rule": rule})["security_group_rule"]
    assert (everything["ip_protocol"], everything["from_port"], everything["to_port"]) == (None, None, None)
    assert everything["group"] == {"name": "members", "tenant_id": member.project_id}
    of_udp = {"security_group_rule": rule | {"ip_protocol": "UDP"}}
    udp = old(member, "POST", "/os-security-group-rules", of_udp)["security_group_rule"]
    assert (udp["ip_protocol"], udp["from_port"], udp["to_port"]) == ("udp", 1, 65535)
    assert old(member, "DELETE", f"/os-security-groups/{group}").status == 202


TCP = {"ip_protocol": "tcp", "from_port": 1, "to_port": 1}
WRONG = [
    (TCP | {"from_port": 0}, "Invalid port range 0:1. Valid TCP ports should be between 1-65535"),
    (TCP | {"from_port": 2}, "Invalid port range 2:1. Former value cannot be greater than the later"),
    (TCP | {"from_port": "x"}, "Invalid input received: To and From ports must be integers"),
    (
        TCP | {"ip_protocol": "icmp", "from_port": 256},
        "Invalid port range 256:1. For ICMP, the type:code must be valid",
    ),
    (TCP | {"ip_protocol": "gre"}, "Invalid IP protocol gre."),
    ({"ip_protocol": "tcp"}, "Not enough parameters to build a valid rule."),
    (TCP | {"cidr": "10.0.0.0/33"}, "10.0.0.0/33 is not a valid IP network."),
    (TCP | {"cidr": "10.0.0.0/0"}, "Bad prefix for network in cidr 10.0.0.0/0"),
]


@pytest.mark.parametrize(("wrong", "words"), WRONG)
def test_a_rule_that_is_wrong_is_refused_in_novas_words(
    member: Client, wrong: Mapping[str, object], words: str
) -> None:
    default = old(member, "GET", "/os-security-groups")["security_groups"][0]
    rule = {"security_group_rule": {"parent_group_id": default["id"], **wrong}}
    answer = old(member, "POST", "/os-security-group-rules", rule)
    assert (answer.status, answer["badRequest"]["message"]) == (400, words)
    assert default in old(member, "GET", "/os-security-groups")["security_groups"]


def test_a_group_in_use_stays(member: Client, topology: dict[str, str]) -> None:
    default = next(g for g in old(member, "GET", "/os-security-groups")["security_groups"] if g["name"] == "default")
    assert old(member, "DELETE", f"/os-security-groups/{default['id']}").status == 400
    assert old(member, "GET", f"/os-security-groups/{default['id']}").status == 200


def test_the_quota_of_groups_is_networks(there: TestCloud) -> None:
    other = there.persona("other_member")
    quota = {"quota": {"security_group": 1}}
    path = f"/network/v2.0/quotas/{other.project_id}"
    assert there.persona("admin").request("PUT", path, quota).status == 200
    wanted = {"security_group": {"name": "one too many", "description": ""}}
    assert old(other, "POST", "/os-security-groups", wanted).status == 403


def test_an_id_that_is_no_uuid_or_unknown_is_refused(member: Client) -> None:
    assert old(member, "GET", "/os-security-groups/web").status == 400
    assert old(member, "GET", f"/os-security-groups/{NOBODYS}").status == 404
    assert old(member, "DELETE", f"/os-security-group-rules/{NOBODYS}").status == 404
    assert old(member, "GET", f"/os-floating-ips/{NOBODYS}").status == 404


def test_a_floating_ip_of_a_server(member: Client, topology: dict[str, str]) -> None:
    assert old(member, "GET", "/os-floating-ip-pools")["floating_ip_pools"] == [{"name": "public"}]
    floating = old(member, "POST", "/os-floating-ips", {"pool": "public"})["floating_ip"]
    assert (floating["pool"], floating["instance_id"], floating["fixed_ip"]) == ("public", None, None)
    action = f"/servers/{topology['server']}/action"
    assert old(member, "POST", action, {"addFloatingIp": {"address": floating["ip"]}}).status == 202
    shown = old(member, "GET", f"/os-floating-ips/{floating['id']}")["floating_ip"]
    assert shown["instance_id"] == topology["server"]
    assert shown["fixed_ip"].startswith("10.9.0.")
    assert old(member, "GET", "/os-floating-ips")["floating_ips"] == [shown]
    addresses = member.compute("GET", f"/servers/{topology['server']}/ips")["addresses"]["inside"]
    assert floating["ip"] in {one["addr"] for one in addresses}
    away = {"removeFloatingIp": {"address": floating["ip"]}}
    assert old(member, "POST", action, away, version="2.43").status == 202
    assert old(member, "POST", action, away).status == 409
    assert old(member, "POST", action, away, version="2.44").status == 404
    assert old(member, "DELETE", f"/os-floating-ips/{floating['id']}").status == 202
    assert old(member, "GET", "/os-floating-ips")["floating_ips"] == []


def test_a_pool_need_not_be_named_where_there_is_one(member: Client) -> None:
    for body in (None, {}, {"pool": None}):
        made = old(member, "POST", "/os-floating-ips", body)["floating_ip"]
        assert old(member, "DELETE", f"/os-floating-ips/{made['id']}").status == 202
    answer = old(member, "POST", "/os-floating-ips", {"pool": "nobodys"})
    assert (answer.status, answer["itemNotFound"]["message"]) == (404, "Floating IP pool not found.")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"address": "203.0.113.9"}, 404),
        ({"address": "x"}, 400),
        ({"address": "203.0.113.9", "fixed_address": "10.9.0.250"}, 400),
        ({}, 400),
    ],
)
def test_an_invalid_floating_ip_is_refused(
    member: Client, topology: dict[str, str], body: dict[str, str], status: int
) -> None:
    assert old(member, "POST", f"/servers/{topology['server']}/action", {"addFloatingIp": body}).status == status


def test_another_projects_floating_ip_cannot_be_redirected(
    there: TestCloud, member: Client, topology: dict[str, str]
) -> None:
    floating = old(there.persona("other_member"), "POST", "/os-floating-ips", {"pool": "public"})["floating_ip"]
    body = {"addFloatingIp": {"address": floating["ip"]}}
    assert old(member, "POST", f"/servers/{topology['server']}/action", body).status == 404


def test_a_projects_first_list_has_its_default_group(there: TestCloud) -> None:
    stranger = there.persona("other_member")
    (group,) = old(stranger, "GET", "/os-security-groups")["security_groups"]
    assert (group["name"], group["tenant_id"]) == ("default", stranger.project_id)
