"""Networks as a project builds them: a network, a subnet, ports, a router, a floating IP; lists, tags, quotas."""

from __future__ import annotations

from typing import Any

import pytest

from cumulet.testing import Answer, Client, JsonObject, TestCloud

UNKNOWN = "00000000-0000-4000-8000-000000000000"


def call(client: Client, method: str, path: str, body: object = None) -> Answer:
    return client.request(method, f"/network/v2.0{path}", body)


def make(client: Client, kind: str, path: str = "", **attributes: object) -> JsonObject:
    answer = call(client, "POST", path or f"/{kind.replace('_', '-')}s", {kind: attributes})
    assert answer.status == 201, answer.text
    made: dict[str, object] = answer[kind]
    return made


def network_with_subnet(client: Client, cidr: str = "10.1.0.0/24", **attributes: Any) -> tuple[str, str]:
    network = make(client, "network", name="n", **attributes)
    subnet = make(client, "subnet", network_id=network["id"], ip_version=4, cidr=cidr)
    return network["id"], subnet["id"]


def public(client: Client) -> str:
    found: str = call(client, "GET", "/networks?router:external=true")["networks"][0]["id"]
    return found


def test_a_project_connects_itself_to_the_outside_and_takes_it_all_down(member: Client) -> None:
    network_id, subnet_id = network_with_subnet(member)
    port = make(member, "port", network_id=network_id)
    assert port["fixed_ips"] == [{"subnet_id": subnet_id, "ip_address": "10.1.0.2"}]
    router = make(member, "router", external_gateway_info={"network_id": public(member)})
    assert router["external_gateway_info"]["external_fixed_ips"][0]["ip_address"].startswith("172.24.4.")
    floating = {"floating_network_id": public(member), "port_id": port["id"]}
    unreachable = call(member, "POST", "/floatingips", {"floatingip": floating})
    assert (unreachable.status, unreachable["NeutronError"]["type"]) == (404, "ExternalGatewayForFloatingIPNotFound")
    interface = call(member, "PUT", f"/routers/{router['id']}/add_router_interface", {"subnet_id": subnet_id})
    assert (interface.status, interface["subnet_ids"]) == (200, [subnet_id])

    floating_ip = make(member, "floatingip", **floating)
    assert (floating_ip["status"], floating_ip["fixed_ip_address"]) == ("ACTIVE", "10.1.0.2")
    for in_use, kind in (
        (f"/networks/{network_id}", "NetworkInUse"),
        (f"/subnets/{subnet_id}", "SubnetInUse"),
        (f"/ports/{interface['port_id']}", "ServicePortInUse"),
    ):
        refused = call(member, "DELETE", in_use)
        assert (refused.status, refused["NeutronError"]["type"]) == (409, kind)
    path = f"/routers/{router['id']}/remove_router_interface"
    assert call(member, "PUT", path, {"subnet_id": subnet_id}).status == 409
    assert call(member, "DELETE", f"/routers/{router['id']}").status == 409

    assert call(member, "DELETE", f"/ports/{port['id']}").status == 204
    let_go = call(member, "GET", f"/floatingips/{floating_ip['id']}")["floatingip"]
    assert (let_go["status"], let_go["port_id"], let_go["router_id"]) == ("DOWN", None, None)
    assert call(member, "PUT", path, {"subnet_id": subnet_id}).status == 200
    for gone in (f"/floatingips/{floating_ip['id']}", f"/routers/{router['id']}", f"/networks/{network_id}"):
        assert call(member, "DELETE", gone).status == 204
        assert call(member, "GET", gone).status == 404
    assert call(member, "GET", f"/subnets/{subnet_id}").status == 404


def test_every_project_has_a_default_group_that_lets_nobody_in_but_its_members(member: Client) -> None:
    (group,) = call(member, "GET", "/security-groups")["security_groups"]
    assert group["name"] == "default"
    ingress = [rule for rule in group["security_group_rules"] if rule["direction"] == "ingress"]
    assert [rule["remote_group_id"] for rule in ingress] == [group["id"]] * 2
    assert all(rule["belongs_to_default_sg"] for rule in group["security_group_rules"])
    assert call(member, "POST", "/security-groups", {"security_group": {"name": "default"}}).status == 409
    assert call(member, "DELETE", f"/security-groups/{group['id']}").status == 409
    new = make(member, "security_group", name="web")
    assert {rule["direction"] for rule in new["security_group_rules"]} == {"egress"}


@pytest.mark.parametrize(
    ("rule", "status"),
    [
        ({"protocol": "tcp", "port_range_min": 80, "port_range_max": 81}, 201),
        ({"protocol": "TCP", "port_range_min": "80", "port_range_max": "80"}, 201),
        ({"protocol": 6}, 201),
        ({"protocol": "icmp", "port_range_min": 8, "port_range_max": 0}, 201),
        ({"remote_ip_prefix": "10.0.0.7"}, 201),
        ({"protocol": "tcp", "port_range_min": 81, "port_range_max": 80}, 400),
        ({"protocol": "tcp", "port_range_min": 0, "port_range_max": 80}, 400),
        ({"protocol": "tcp", "port_range_min": 80}, 400),
        ({"protocol": "tcp", "port_range_min": -16, "port_range_max": 80}, 400),
        ({"port_range_min": 80, "port_range_max": 80}, 400),
        ({"protocol": "icmp", "port_range_max": 0}, 400),
        ({"protocol": "icmp", "port_range_min": 256}, 400),
        ({"protocol": "ipv6-icmp"}, 400),
        ({"protocol": "nonsense"}, 400),
        ({"protocol": 256}, 400),
        ({"ethertype": "IPv5"}, 400),
        ({"ethertype": "IPv6", "remote_ip_prefix": "10.0.0.0/8"}, 400),
        ({"remote_ip_prefix": "10.0.0.0/33"}, 400),
        ({"remote_group_id": UNKNOWN}, 404),
        ({"remote_group_id": "no-uuid"}, 404),
        ({"unknown": 1}, 400),
    ],
)
def test_only_rules_that_a_host_can_apply_are_taken(member: Client, rule: JsonObject, status: int) -> None:
    group = make(member, "security_group", name="web")
    body = {"security_group_rule": {"security_group_id": group["id"], "direction": "ingress"} | rule}
    answer = call(member, "POST", "/security-group-rules", body)
    assert answer.status == status, answer.text
    if status == 201:
        assert call(member, "POST", "/security-group-rules", body).status == 409
        rule_id = answer["security_group_rule"]["id"]
        assert call(member, "DELETE", f"/security-group-rules/{rule_id}").status == 204


@pytest.mark.parametrize(
    ("subnet", "status"),
    [
        ({"cidr": "10.7.0.5/24", "ip_version": 4}, 201),
        ({"cidr": "10.7.0.0/24", "ip_version": 4, "gateway_ip": None}, 201),
        ({"cidr": "fd00::/64", "ip_version": 6, "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}, 201),
        ({"cidr": "10.1.0.128/25", "ip_version": 4}, 400),
        ({"cidr": "10.7.0.0/24", "ip_version": 6}, 400),
        ({"cidr": "10.7.0.0/24"}, 400),
        ({"cidr": "0.0.0.0/0", "ip_version": 4}, 400),
        ({"cidr": "224.0.0.0/24", "ip_version": 4}, 400),
        ({"cidr": "10.7.0.0/31", "ip_version": 4}, 400),
        ({"cidr": "10.7.0.0/24\n", "ip_version": 4}, 400),
        ({"cidr": "10.7.0.0/24", "ip_version": 4, "gateway_ip": "10.7.0.255"}, 400),
        ({"cidr": "10.7.0.0/24", "ip_version": 4, "ipv6_ra_mode": "slaac"}, 400),
        ({"cidr": "fd00::/63", "ip_version": 6, "ipv6_address_mode": "slaac"}, 400),
        ({"cidr": "fd00::%lo/64", "ip_version": 6}, 400),
        ({"cidr": "10.7.0.0/24", "ip_version": 4, "dns_nameservers": ["1.1.1.1", "1.1.1.1"]}, 400),
        ({"cidr": "10.7.0.0/24", "ip_version": 4, "dns_nameservers": ["1.1.1.1; rm"]}, 400),
        ({"cidr": "10.7.0.0/24", "ip_version": 4, "allocation_pools": [{"start": "10.7.0.9", "end": "10.7.0.2"}]}, 400),
        ({"cidr": "10.7.0.0/24", "ip_version": 4, "allocation_pools": [{"start": "10.8.0.2", "end": "10.8.0.9"}]}, 400),
        ({"cidr": "10.7.0.0/24", "ip_version": 4, "allocation_pools": [{"start": "10.7.0.1", "end": "10.7.0.9"}]}, 409),
        ({"ip_version": 4}, 400),
        ({"ip_version": 4, "subnetpool_id": UNKNOWN}, 404),
        ({"ip_version": 4, "subnetpool_id": "prefix_delegation"}, 501),
        ({"cidr": "10.7.0.0/24", "ip_version": 4, "segment_id": UNKNOWN}, 403),
    ],
)
def test_a_subnet_is_a_range_that_hosts_can_have_addresses_of(member: Client, subnet: JsonObject, status: int) -> None:
    network_id, _ = network_with_subnet(member)
    answer = call(member, "POST", "/subnets", {"subnet": {"network_id": network_id} | subnet})
    assert answer.status == status, answer.text


def test_ipv6_guests_get_the_address_they_will_give_themselves(member: Client) -> None:
    network_id, _ = network_with_subnet(member)
    before = make(member, "port", network_id=network_id)
    mode = {"ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}
    make(member, "subnet", network_id=network_id, ip_version=6, cidr="2001:db8::/64", **mode)
    after = make(member, "port", network_id=network_id, mac_address="fa:16:3e:00:00:01")
    assert after["fixed_ips"][1]["ip_address"] == "2001:db8::f816:3eff:fe00:1"
    assert len(call(member, "GET", f"/ports/{before['id']}")["port"]["fixed_ips"]) == 2


def test_no_address_and_no_mac_is_given_twice(member: Client) -> None:
    network_id, subnet_id = network_with_subnet(member, "10.1.0.0/29")
    wanted: JsonObject = {
        "network_id": network_id,
        "fixed_ips": [{"ip_address": "10.1.0.5"}],
        "mac_address": "fa:16:3e:00:00:01",
    }
    make(member, "port", **wanted)
    for again in ({"fixed_ips": wanted["fixed_ips"]}, {"mac_address": wanted["mac_address"]}):
        assert call(member, "POST", "/ports", {"port": {"network_id": network_id} | again}).status == 409
    given = [make(member, "port", network_id=network_id)["fixed_ips"][0]["ip_address"] for _ in range(4)]
    assert given == ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.6"]
    full = call(member, "POST", "/ports", {"port": {"network_id": network_id}})
    assert (full.status, "No more IP addresses" in full.text) == (409, True)
    outside = {"network_id": network_id, "fixed_ips": [{"subnet_id": subnet_id, "ip_address": "10.2.0.1"}]}
    assert call(member, "POST", "/ports", {"port": outside}).status == 400


def test_a_port_keeps_the_addresses_that_a_change_names_again(member: Client) -> None:
    network_id, subnet_id = network_with_subnet(member)
    port = make(member, "port", network_id=network_id, fixed_ips=[{"ip_address": "10.1.0.7"}, {"subnet_id": subnet_id}])
    assert [fixed["ip_address"] for fixed in port["fixed_ips"]] == ["10.1.0.2", "10.1.0.7"]
    body = {"port": {"fixed_ips": [{"ip_address": "10.1.0.7"}, {"ip_address": "10.1.0.9"}]}}
    changed = call(member, "PUT", f"/ports/{port['id']}", body)["port"]
    assert [fixed["ip_address"] for fixed in changed["fixed_ips"]] == ["10.1.0.7", "10.1.0.9"]
    assert changed["revision_number"] == port["revision_number"] + 1
    assert make(member, "port", network_id=network_id)["fixed_ips"][0]["ip_address"] == "10.1.0.2"


def test_port_security_and_what_depends_on_it_go_together(member: Client) -> None:
    network_id, _ = network_with_subnet(member)
    pair = {"ip_address": "10.1.0.77"}
    port = make(member, "port", network_id=network_id, allowed_address_pairs=[pair])
    assert port["allowed_address_pairs"] == [pair | {"mac_address": port["mac_address"]}]
    path = f"/ports/{port['id']}"
    assert call(member, "PUT", path, {"port": {"port_security_enabled": False}}).status == 409
    off = {"port_security_enabled": False, "security_groups": [], "allowed_address_pairs": []}
    assert call(member, "PUT", path, {"port": off}).status == 200
    assert call(member, "PUT", path, {"port": {"allowed_address_pairs": [pair]}}).status == 409


def test_several_are_made_together_or_not_at_all(member: Client) -> None:
    before = len(call(member, "GET", "/networks")["networks"])
    made = call(member, "POST", "/networks", {"networks": [{"name": "a"}, {"name": "b"}]})
    assert (made.status, [network["name"] for network in made["networks"]]) == (201, ["a", "b"])
    assert call(member, "POST", "/networks", {"networks": [{"name": "c"}, {"shared": True}]}).status == 403
    assert len(call(member, "GET", "/networks")["networks"]) == before + 2
    wrong: list[object] = [{}, {"networks": []}, {"network": {}, "networks": [{}]}, {"network": None}, {"other": {}}]
    for nonsense in wrong:
        assert call(member, "POST", "/networks", nonsense).status == 400


def test_a_list_is_filtered_sorted_and_read_in_pages(member: Client) -> None:
    for name in ("c", "a", "b", ""):
        make(member, "network", name=name, tags=["x", name or "none"])

    def names(query: str) -> list[str]:
        answer = call(member, "GET", f"/networks?router:external=false&{query}")
        assert answer.status == 200, answer.text
        return [network["name"] for network in answer["networks"]]

    assert names("sort_key=name&sort_dir=asc") == ["", "a", "b", "c"]
    assert names("sort_key=name&sort_dir=desc") == ["c", "b", "a", ""]
    assert names("name=a&name=c&sort_key=name&sort_dir=asc") == ["a", "c"]
    assert names("name=") == [""]
    assert names("tags=x,a") == ["a"]
    assert names("tags-any=a,b&sort_key=name&sort_dir=asc") == ["a", "b"]
    assert names("not-tags-any=a,b&sort_key=name&sort_dir=asc") == ["", "c"]
    assert names("admin_state_up=false") == []
    page = call(
        member, "GET", "/networks?router:external=false&sort_key=name&sort_dir=asc&limit=3&fields=name&fields=id"
    )
    assert [network["name"] for network in page["networks"]] == ["", "a", "b"]
    (link,) = page["networks_links"]
    following = member.request("GET", "/" + link["href"].partition("//")[2].partition("/")[2])
    assert [network["name"] for network in following["networks"]] == ["c"]
    (back,) = [link for link in following["networks_links"] if link["rel"] == "previous"]
    before = member.request("GET", "/" + back["href"].partition("//")[2].partition("/")[2])
    assert [network["name"] for network in before["networks"]] == ["", "a", "b"]
    last = call(member, "GET", "/networks?router:external=false&sort_key=name&sort_dir=asc&limit=3&page_reverse=True")
    assert [network["name"] for network in last["networks"]] == ["a", "b", "c"]
    (back,) = [link for link in last["networks_links"] if link["rel"] == "previous"]
    first = member.request("GET", "/" + back["href"].partition("//")[2].partition("/")[2])
    assert [network["name"] for network in first["networks"]] == [""]
    assert [link["rel"] for link in first["networks_links"]] == ["next"]
    for nonsense in (
        "foo=1",
        "limit=-1",
        "limit=x",
        "sort_key=foo&sort_dir=asc",
        "sort_key=name",
        "sort_dir=up&sort_key=name",
        "admin_state_up=maybe",
    ):
        assert call(member, "GET", f"/networks?{nonsense}").status == 400, nonsense
    assert call(member, "GET", f"/networks?limit=1&marker={UNKNOWN}").status == 404


def test_subnets_are_cut_from_a_pool_without_overlap(member: Client, other_member: Client) -> None:
    lengths: JsonObject = {"min_prefixlen": 24, "max_prefixlen": 28, "default_prefixlen": 26}
    pool = make(member, "subnetpool", name="p", prefixes=["10.30.1.0/24", "10.30.0.0/24"], **lengths)
    assert (pool["prefixes"], pool["ip_version"], pool["min_prefixlen"]) == (["10.30.0.0/23"], 4, "24")
    network = make(member, "network")

    def cut(**attributes: Any) -> Answer:
        body = {"network_id": network["id"], "ip_version": 4, "subnetpool_id": pool["id"]} | attributes
        return call(member, "POST", "/subnets", {"subnet": body})

    assert cut(cidr="10.30.0.64/26")["subnet"]["cidr"] == "10.30.0.64/26"
    assert [cut()["subnet"]["cidr"] for _ in range(2)] == ["10.30.0.0/26", "10.30.0.128/26"]
    assert cut(prefixlen=24)["subnet"]["cidr"] == "10.30.1.0/24"
    assert cut(prefixlen=28)["subnet"]["cidr"] == "10.30.0.192/28"
    wrong_lengths, wrong_ranges = (29, 23, 24), ("10.30.0.0/28", "10.31.0.0/26")
    wrongs: list[JsonObject] = [{"prefixlen": length} for length in wrong_lengths]
    wrongs += [{"cidr": cidr} for cidr in wrong_ranges]
    for wrong in wrongs:
        assert cut(**wrong).status == 400, wrong
    path = f"/subnetpools/{pool['id']}"
    assert call(member, "PUT", path, {"subnetpool": {"prefixes": ["10.30.0.0/24"]}}).status == 400
    larger = call(member, "PUT", path, {"subnetpool": {"prefixes": ["10.30.0.0/22"]}})
    assert larger["subnetpool"]["prefixes"] == ["10.30.0.0/22"]
    shared = {"subnetpool": {"name": "x", "prefixes": ["10.0.0.0/8"], "shared": True}}
    assert call(member, "POST", "/subnetpools", shared).status == 403
    assert call(other_member, "GET", path).status == 404
    assert call(member, "DELETE", path).status == 400
    assert call(member, "DELETE", f"/networks/{network['id']}").status == 204
    assert call(member, "DELETE", path).status == 204


def test_a_pool_gives_each_project_no_more_than_its_quota(admin: Client, member: Client, other_member: Client) -> None:
    pool = make(member, "subnetpool", name="p", prefixes=["10.40.0.0/16"], default_quota=384, default_prefixlen=24)
    assert pool["default_quota"] == 384
    everybody = {"object_type": "subnetpool", "object_id": pool["id"], "target_tenant": "*"}
    body = {"rbac_policy": {**everybody, "action": "access_as_shared"}}
    assert call(admin, "POST", "/rbac-policies", body).status == 201

    def cut(prefixlen: int, client: Client = member) -> Answer:
        network = make(client, "network")["id"]
        wanted = {"network_id": network, "ip_version": 4, "subnetpool_id": pool["id"], "prefixlen": prefixlen}
        return call(client, "POST", "/subnets", {"subnet": wanted})

    assert [cut(24).status, cut(25).status, cut(24, other_member).status] == [201, 201, 201]
    over = cut(30)
    assert (over.status, over["NeutronError"]["type"]) == (409, "SubnetPoolQuotaExceeded")
    assert call(member, "PUT", f"/subnetpools/{pool['id']}", {"subnetpool": {"default_quota": 388}}).status == 200
    assert cut(30).status == 201
    assert call(member, "PUT", f"/subnetpools/{pool['id']}", {"subnetpool": {"default_quota": -1}}).status == 400


def test_tags_belong_to_whoever_may_change_the_thing(member: Client, reader: Client, other_member: Client) -> None:
    network = make(member, "network", name="n")
    path = f"/networks/{network['id']}/tags"
    assert call(member, "PUT", path, {"tags": ["a", "b"]})["tags"] == ["a", "b"]
    # Tempest's client sends the text "{}" along; nobody reads it.
    assert call(member, "PUT", f"{path}/c", "{}").status == 201
    assert call(reader, "GET", f"{path}/c").status == 204
    assert call(reader, "PUT", f"{path}/d").status == 403
    assert call(other_member, "PUT", f"{path}/d").status == 404
    assert call(member, "DELETE", f"{path}/nothing").status == 404
    assert call(member, "DELETE", f"{path}/c").status == 204
    assert call(reader, "GET", path)["tags"] == ["a", "b"]
    assert call(member, "PUT", path, {"tags": ["x" * 256]}).status == 400


def test_quotas_are_enforced_and_only_administrators_change_them(
    admin: Client, manager: Client, member: Client, cloud: TestCloud
) -> None:
    path = f"/quotas/{member.project_id}"
    assert call(manager, "PUT", path, {"quota": {"network": 5}}).status == 403
    assert call(admin, "PUT", path, {"quota": {"network": 1, "port": 0}})["quota"]["network"] == 1
    network_id, _ = network_with_subnet(member)
    over = call(member, "POST", "/networks", {"network": {}})
    assert (over.status, over["NeutronError"]["type"]) == (409, "OverQuota")
    assert call(member, "POST", "/ports", {"port": {"network_id": network_id}}).status == 409
    assert call(manager, "GET", f"{path}/details")["quota"]["network"] == {"limit": 1, "used": 1, "reserved": 0}
    assert call(cloud.persona("other_manager"), "GET", path).status == 403
    assert call(admin, "PUT", path, {"quota": {"network": 0}}).status == 400
    assert call(admin, "PUT", path, {"quota": {"network": 0, "force": True}})["quota"]["network"] == 0
    assert call(admin, "DELETE", path).status == 204
    assert call(admin, "DELETE", path).status == 404
    assert call(member, "POST", "/networks", {"network": {}}).status == 201


def test_everybody_reads_the_quotas_of_the_own_project_and_nobody_else_those_of_others(
    cloud: TestCloud, member: Client, other_member: Client
) -> None:
    for ending in ("", "/default", "/details", ".json", "/default.json", "/details.json"):
        for persona in ("manager", "member", "reader", "norole"):
            client = cloud.persona(persona)
            assert call(client, "GET", f"/quotas/{member.project_id}{ending}").status == 200
            assert call(client, "GET", f"/quotas/{other_member.project_id}{ending}").status == 403
    for word in ("project", "tenant"):
        assert call(member, "GET", f"/quotas/{word}").json == {word: {f"{word}_id": member.project_id}}


def test_the_rules_of_a_new_group_count(admin: Client, member: Client) -> None:
    present = len(call(member, "GET", "/security-group-rules")["security_group_rules"])
    groups = len(call(member, "GET", "/security-groups")["security_groups"])
    quota = {"security_group_rule": present + 4 + 3}
    assert call(admin, "PUT", f"/quotas/{member.project_id}", {"quota": quota}).status == 200
    assert call(member, "POST", "/security-groups", {"security_group": {"name": "a"}}).status == 201
    over = call(member, "POST", "/security-groups", {"security_group": {"name": "b"}})
    assert (over.status, over["NeutronError"]["type"]) == (409, "OverQuota")
    assert len(call(member, "GET", "/security-groups")["security_groups"]) == groups + 1


def test_a_path_may_end_in_json(member: Client) -> None:
    network_id = make(member, "network", "/networks.json", name="n")["id"]
    assert [n["id"] for n in call(member, "GET", "/networks.json?name=n")["networks"]] == [network_id]
    assert call(member, "GET", f"/networks/{network_id}.json")["network"]["id"] == network_id
    assert call(member, "GET", f"/networks/{network_id}.xml").status == 404
    assert call(member, "DELETE", f"/networks/{network_id}.json").status == 204


def test_a_topology_is_made_for_a_project_that_asks_for_one(member: Client, other_member: Client) -> None:
    path = f"/auto-allocated-topology/{member.project_id}"
    assert call(member, "GET", f"{path}?fields=dry-run")["auto_allocated_topology"]["id"] == "dry-run=pass"
    made = call(member, "GET", path)["auto_allocated_topology"]["id"]
    assert call(member, "GET", path)["auto_allocated_topology"]["id"] == made
    assert call(member, "GET", f"/networks/{made}").status == 200
    assert call(other_member, "GET", path).status == 403
    assert call(member, "DELETE", path).status == 204
    assert call(member, "GET", f"/networks/{made}").status == 404


def test_extensions_that_are_offered_are_listed_and_others_answer_404(member: Client) -> None:
    aliases = {extension["alias"] for extension in call(member, "GET", "/extensions")["extensions"]}
    assert {"router", "security-group", "binding-extended", "auto-allocated-topology"} <= aliases
    assert call(member, "GET", "/extensions/router").status == 200
    assert call(member, "GET", "/extensions/nothing").status == 404
    # Clients ask for what an extension brings to know whether it is there.
    for missing in ("/log/logs", "/nothing"):
        assert call(member, "GET", missing).status == 404
        assert call(member, "POST", missing, {}).status == 404
    assert call(member, "POST", f"/agents/{UNKNOWN}/l3-routers", {}).status == 501
