"""What new security groups begin with is for administrators to say; groups that are there keep what they have."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from cumulet.testing import Client, JsonObject, TestCloud
from tests.api.test_network_stories import UNKNOWN, call, make

PATH = "/default-security-group-rules"
KIND = "default_security_group_rule"


def rules(client: Client, query: str = "") -> list[JsonObject]:
    found: list[dict[str, object]] = call(client, "GET", f"{PATH}{query}")[f"{KIND}s"]
    return found


def has(group: JsonObject) -> set[tuple[str, str, str | None, bool]]:
    return {
        (one["direction"], one["ethertype"], one["protocol"], one["remote_group_id"] == group["id"])
        for one in group["security_group_rules"]
    }


OUT = {("egress", "IPv4", None, False), ("egress", "IPv6", None, False)}
IN = {("ingress", "IPv4", None, True), ("ingress", "IPv6", None, True)}


def test_groups_begin_with_neutrons_rules_until_an_administrator_says_otherwise(
    cloud: TestCloud, admin: Client, member: Client
) -> None:
    assert [(one["direction"], one["used_in_non_default_sg"]) for one in rules(member)] == [
        ("egress", True),
        ("ingress", False),
        ("egress", True),
        ("ingress", False),
    ]
    assert {one["remote_group_id"] for one in rules(member, "?direction=ingress")} == {"PARENT"}
    before = make(member, "security_group", name="before")
    assert has(before) == OUT
    assert has(call(member, "GET", "/security-groups?name=default")["security_groups"][0]) == OUT | IN
    ssh = {"direction": "ingress", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22}
    made = call(admin, "POST", PATH, {KIND: ssh | {"used_in_default_sg": True}})
    assert made.status == 201, made.text
    gone = rules(admin, "?direction=egress&ethertype=IPv6")[0]["id"]
    assert call(admin, "DELETE", f"{PATH}/{gone}").status == 204
    assert call(member, "GET", f"{PATH}/{gone}").status == 404
    after = make(member, "security_group", name="after")
    allowed = {("ingress", "IPv4", "tcp", False)}
    assert has(after) == {("egress", "IPv4", None, False)} | allowed
    other = cloud.persona("other_member")
    assert has(call(other, "GET", "/security-groups?name=default")["security_groups"][0]) == (
        {("egress", "IPv4", None, False)} | allowed | IN
    )
    assert has(call(member, "GET", f"/security-groups/{before['id']}")["security_group"]) == OUT
    assert call(admin, "DELETE", f"{PATH}/{made[KIND]['id']}").status == 204
    assert len(rules(admin)) == 3


def test_only_administrators_say_so(member: Client) -> None:
    assert call(member, "POST", PATH, {KIND: {"direction": "ingress"}}).status == 403
    assert call(member, "DELETE", f"{PATH}/{rules(member)[0]['id']}").status == 403


@pytest.mark.parametrize(
    ("rule", "status"),
    [
        ({}, 400),
        ({"direction": "sideways"}, 400),
        ({"direction": "ingress", "port_range_min": 1}, 400),
        ({"direction": "ingress", "ethertype": "IPv5"}, 400),
        ({"direction": "ingress", "remote_group_id": "PARENT", "remote_ip_prefix": "10.0.0.0/8"}, 400),
        ({"direction": "egress"}, 409),
        ({"direction": "ingress", "remote_group_id": UNKNOWN}, 501),
        ({"direction": "ingress", "remote_address_group_id": UNKNOWN}, 501),
        ({"direction": "ingress", "security_group_id": UNKNOWN}, 400),
    ],
)
def test_a_rule_that_cannot_be_is_refused(admin: Client, rule: Mapping[str, object], status: int) -> None:
    assert call(admin, "POST", PATH, {KIND: rule}).status == status
    assert len(rules(admin)) == 4
