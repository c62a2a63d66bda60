"""Address groups, and rules of security groups that name them: what they let in follows their addresses."""

from __future__ import annotations

from cumulet.testing import Answer, Client, TestCloud
from tests.testing.test_reachability import address_of, made, port_of

GROUPS = "/network/v2.0/address-groups"


def change(client: Client, group: str, what: str, *addresses: str) -> Answer:
    return client.request("PUT", f"{GROUPS}/{group}/{what}_addresses", {"addresses": list(addresses)})


def test_what_a_rule_lets_in_follows_the_addresses_of_its_group(cloud: TestCloud, member: Client) -> None:
    network = made(member, "network", name="n")
    made(member, "subnet", network_id=network, cidr="10.8.0.0/24", ip_version=4)
    security_group = made(member, "security_group", name="web")
    web, client = port_of(member, network, security_groups=[{"name": "web"}]), port_of(member, network)
    office = made(member, "address_group", name="office", addresses=["192.0.2.0/24"])
    rule = made(
        member,
        "security_group_rule",
        security_group_id=security_group,
        direction="ingress",
        remote_address_group_id=office,
    )
    assert cloud.network.reachable(client, web, "tcp", 80).reason == "no-rule-ingress"
    answer = change(member, office, "add", address_of(member, client))
    assert answer["address_group"]["addresses"] == ["192.0.2.0/24", f"{address_of(member, client)}/32"]
    assert answer["address_group"]["revision_number"] == 1
    let_in = cloud.network.reachable(client, web, "tcp", 80)
    assert (bool(let_in), let_in.rule) == (True, rule)
    assert change(member, office, "remove", f"{address_of(member, client)}/32").status == 200
    assert not cloud.network.reachable(client, web, "tcp", 80)
    shown = member.request("GET", f"/network/v2.0/security-group-rules?remote_address_group_id={office}")
    assert [one["id"] for one in shown["security_group_rules"]] == [rule]
    assert shown["security_group_rules"][0]["remote_address_group_id"] == office
    assert member.request("DELETE", f"{GROUPS}/{office}").status == 409, "a rule names it"
    member.request("DELETE", f"/network/v2.0/security-group-rules/{rule}")
    assert member.request("DELETE", f"{GROUPS}/{office}").status == 204


def test_another_projects_address_group_cannot_be_seen_nor_named(cloud: TestCloud, member: Client) -> None:
    theirs = made(cloud.persona("other_member"), "address_group", name="theirs", addresses=["10.0.0.7"])
    group = made(member, "security_group", name="web")
    rule: dict[str, object] = {"security_group_id": group, "direction": "ingress", "remote_address_group_id": theirs}
    for answer in (
        member.request("GET", f"{GROUPS}/{theirs}"),
        change(member, theirs, "add", "10.0.0.8"),
        member.request("POST", "/network/v2.0/security-group-rules", {"security_group_rule": rule}),
    ):
        assert (answer.status, answer["NeutronError"]["type"]) == (404, "AddressGroupNotFound")
    assert member.request("GET", GROUPS)["address_groups"] == []


def test_a_rule_has_one_remote_side_and_the_same_one_is_not_made_twice(member: Client) -> None:
    group = made(member, "security_group", name="web")
    office = made(member, "address_group", name="office")
    rule = {"security_group_id": group, "direction": "ingress", "remote_address_group_id": office}
    both = {"security_group_rule": rule | {"remote_ip_prefix": "10.0.0.0/8"}}
    assert member.request("POST", "/network/v2.0/security-group-rules", both).status == 400
    made(member, "security_group_rule", **rule)
    again = member.request("POST", "/network/v2.0/security-group-rules", {"security_group_rule": rule})
    assert (again.status, again["NeutronError"]["type"]) == (409, "SecurityGroupRuleExists")


def test_clients_find_that_it_is_offered(member: Client) -> None:
    assert member.request("GET", "/network/v2.0/extensions/address-group").status == 200
