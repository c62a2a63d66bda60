"""Who may do what with networks: upstream's defaults by persona and attribute; others' things do not exist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from cumulet.testing import JsonObject, TestCloud
from tests.api.test_network_stories import UNKNOWN, call, make, network_with_subnet, public

OWN = ("admin", "manager", "member", "reader", "norole")
OTHERS = ("other_member", "other_manager", "other_reader")


@pytest.fixture
def shared_network(cloud: TestCloud) -> str:
    """A network of the administrator's that every project sees."""
    network_id, _ = network_with_subnet(cloud.persona("admin"), "10.50.0.0/24", shared=True)
    return network_id


def statuses(cloud: TestCloud, method: str, path: str, body: object, personas: tuple[str, ...]) -> dict[str, int]:
    return {name: call(cloud.persona(name), method, path, body).status for name in personas}


@pytest.mark.parametrize(
    ("attributes", "allowed"),
    [
        ({}, {"admin", "manager", "member"}),
        ({"shared": False}, {"admin", "manager", "member"}),
        ({"port_security_enabled": False}, {"admin", "manager", "member"}),
        ({"shared": True}, {"admin"}),
        ({"shared": "true"}, {"admin"}),
        ({"router:external": True}, {"admin"}),
        ({"provider:network_type": "vxlan"}, {"admin"}),
        ({"provider:network_type": "vlan", "provider:physical_network": "x"}, {"admin"}),
    ],
)
def test_attributes_of_a_new_network(cloud: TestCloud, attributes: Mapping[str, object], allowed: set[str]) -> None:
    found = statuses(cloud, "POST", "/networks", {"network": attributes}, OWN)
    assert found == {name: 201 if name in allowed else 403 for name in OWN}


@pytest.mark.parametrize(
    ("attributes", "allowed"),
    [
        ({"name": "x"}, {"admin", "manager", "member"}),
        ({"shared": False}, {"admin"}),
        ({"router:external": False}, {"admin"}),
        ({"is_default": False}, {"admin"}),
        ({"port_security_enabled": True}, {"admin", "manager", "member"}),
    ],
)
def test_attributes_of_a_changed_network(cloud: TestCloud, attributes: Mapping[str, object], allowed: set[str]) -> None:
    network = make(cloud.persona("member"), "network")
    path = f"/networks/{network['id']}"
    found = statuses(cloud, "PUT", path, {"network": attributes}, ("admin", "manager", "member", "reader"))
    assert found == {name: 200 if name in allowed else 403 for name in found}
    # Who cannot see it is not told that it is there.
    assert set(statuses(cloud, "PUT", path, {"network": attributes}, ("norole", *OTHERS)).values()) == {404}


@pytest.mark.parametrize(
    ("attributes", "allowed"),
    [
        ({}, {"admin", "manager", "member", "service"}),
        ({"mac_address": "fa:16:3e:11:11:11"}, {"admin", "manager", "member", "service"}),
        ({"fixed_ips": [{"ip_address": "10.1.0.99"}]}, {"admin", "manager", "member", "service"}),
        ({"device_owner": "anything"}, {"admin", "manager", "member", "service"}),
        ({"device_owner": "network:dhcp"}, {"admin", "service"}),
        ({"binding:host_id": "host1"}, {"admin", "service"}),
        ({"binding:profile": {"a": "b"}}, {"service"}),
        ({"binding:vnic_type": "direct"}, {"admin", "manager", "member", "service"}),
        ({"allowed_address_pairs": [{"ip_address": "10.1.0.7"}]}, {"admin", "manager", "member", "service"}),
        ({"port_security_enabled": False}, {"admin", "manager", "member", "service"}),
    ],
)
def test_attributes_of_a_new_port_on_ones_own_network(
    cloud: TestCloud, attributes: JsonObject, allowed: set[str]
) -> None:
    network_id, _ = network_with_subnet(cloud.persona("member"))
    for name in ("admin", "manager", "member", "reader", "service"):
        client = cloud.persona(name)
        answer = call(client, "POST", "/ports", {"port": {"network_id": network_id} | attributes})
        assert answer.status == (201 if name in allowed else 403), (name, answer.text)
        if answer.status == 201:
            assert call(cloud.persona("admin"), "DELETE", f"/ports/{answer['port']['id']}").status == 204


@pytest.mark.parametrize(
    ("attributes", "status"),
    [
        ({}, 201),
        ({"fixed_ips": [{"subnet_id": "SUBNET"}]}, 201),
        ({"fixed_ips": [{"ip_address": "10.50.0.99"}]}, 403),
        ({"mac_address": "fa:16:3e:11:11:11"}, 403),
        ({"port_security_enabled": False}, 403),
        ({"allowed_address_pairs": [{"ip_address": "10.50.0.7"}]}, 403),
        ({"device_owner": "network:dhcp"}, 403),
    ],
)
def test_a_guest_on_a_shared_network_cannot_pretend_to_be_another(
    cloud: TestCloud, shared_network: str, attributes: JsonObject, status: int
) -> None:
    member = cloud.persona("member")
    if attributes.get("fixed_ips") == [{"subnet_id": "SUBNET"}]:
        (subnet_id,) = call(member, "GET", f"/networks/{shared_network}")["network"]["subnets"]
        attributes = {"fixed_ips": [{"subnet_id": subnet_id}]}
    assert call(member, "POST", "/ports", {"port": {"network_id": shared_network} | attributes}).status == status
    # A change of a port that is there is judged the same, though its owner asks.
    if status == 403:
        port = make(member, "port", network_id=shared_network)
        assert call(member, "PUT", f"/ports/{port['id']}", {"port": attributes}).status == 403


def test_a_shared_network_is_not_everybodys_to_change(cloud: TestCloud, shared_network: str) -> None:
    member = cloud.persona("member")
    subnet = {"network_id": shared_network, "ip_version": 4, "cidr": "10.51.0.0/24"}
    assert call(member, "POST", "/subnets", {"subnet": subnet}).status == 403
    for method, body in (("PUT", {"network": {"name": "mine"}}), ("DELETE", None)):
        assert call(member, method, f"/networks/{shared_network}", body).status == 403
    make(member, "port", network_id=shared_network)
    unshare = {"network": {"shared": False}}
    refused = call(cloud.persona("admin"), "PUT", f"/networks/{shared_network}", unshare)
    assert (refused.status, refused["NeutronError"]["type"]) == (409, "InvalidSharedSetting")


def test_only_administrators_and_services_see_where_a_port_is(cloud: TestCloud) -> None:
    network_id, _ = network_with_subnet(cloud.persona("member"))
    port = make(cloud.persona("admin"), "port", network_id=network_id, **{"binding:host_id": "host1"})
    hidden = {"binding:host_id", "binding:profile", "binding:vif_type", "binding:vif_details"}
    for name in ("admin", "service", "manager", "member", "reader"):
        seen = call(cloud.persona(name), "GET", f"/ports/{port['id']}")["port"]
        assert hidden & seen.keys() == (hidden if name in ("admin", "service") else set()), name
        assert seen["binding:vnic_type"] == "normal"
        # Nor can one find out by asking for ports on a host.
        found = call(cloud.persona(name), "GET", "/ports?binding:host_id=host1")["ports"]
        assert len(found) == (1 if name in ("admin", "service") else 0), name
    provider = {"provider:network_type", "provider:physical_network", "provider:segmentation_id"}
    assert provider & call(cloud.persona("member"), "GET", f"/networks/{network_id}")["network"].keys() == set()
    assert provider <= call(cloud.persona("admin"), "GET", f"/networks/{network_id}")["network"].keys()
    assert call(cloud.persona("member"), "GET", "/networks?provider:network_type=vxlan")["networks"] == []


def test_another_projects_things_are_answered_exactly_like_unknown_ones(cloud: TestCloud) -> None:
    member = cloud.persona("member")
    network_id, subnet_id = network_with_subnet(member)
    port = make(member, "port", network_id=network_id)
    router = make(member, "router", external_gateway_info={"network_id": public(member)})
    assert call(member, "PUT", f"/routers/{router['id']}/add_router_interface", {"subnet_id": subnet_id}).status == 200
    floating = make(member, "floatingip", floating_network_id=public(member), port_id=port["id"])
    group = make(member, "security_group", name="web")
    rule_id = group["security_group_rules"][0]["id"]
    things = {
        "networks": ("network", network_id),
        "subnets": ("subnet", subnet_id),
        "ports": ("port", port["id"]),
        "routers": ("router", router["id"]),
        "floatingips": ("floatingip", floating["id"]),
        "security-groups": ("security_group", group["id"]),
        "security-group-rules": ("security_group_rule", rule_id),
    }
    for persona in OTHERS:
        client = cloud.persona(persona)
        for collection, (kind, thing_id) in things.items():
            for method, suffix in (("GET", ""), ("DELETE", ""), ("PUT", ""), ("GET", "/tags"), ("PUT", "/tags/x")):
                body = {kind: {"description": "x"}} if (method, suffix) == ("PUT", "") else None
                if collection == "security-group-rules" and (suffix or method == "PUT"):
                    continue
                theirs = call(client, method, f"/{collection}/{thing_id}{suffix}", body)
                unknown = call(client, method, f"/{collection}/{UNKNOWN}{suffix}", body)
                assert theirs.status == unknown.status == 404, (persona, method, collection, suffix)
                assert theirs.text.replace(thing_id, UNKNOWN) == unknown.text
            plural = f"{kind}s"
            listed = call(client, "GET", f"/{collection}?id={thing_id}")
            assert (listed.status, listed[plural]) == (200, []), (persona, collection)


def test_a_reference_to_another_projects_thing_is_refused_like_one_to_nothing(cloud: TestCloud) -> None:
    member, other = cloud.persona("member"), cloud.persona("other_member")
    network_id, subnet_id = network_with_subnet(member)
    port = make(member, "port", network_id=network_id)
    group = make(member, "security_group", name="web")
    their_network, _ = network_with_subnet(other, "10.2.0.0/24")
    their_router = make(other, "router", external_gateway_info={"network_id": public(other)})
    their_group = make(other, "security_group", name="theirs")
    interface = f"/routers/{their_router['id']}/add_router_interface"
    in_group = {"security_group_id": their_group["id"], "direction": "ingress"}
    attempts: list[tuple[str, str, str, dict[str, object]]] = [
        ("POST", "/ports", network_id, {"port": {"network_id": "ID"}}),
        ("POST", "/ports", group["id"], {"port": {"network_id": their_network, "security_groups": ["ID"]}}),
        ("POST", "/ports", subnet_id, {"port": {"network_id": their_network, "fixed_ips": [{"subnet_id": "ID"}]}}),
        ("POST", "/subnets", network_id, {"subnet": {"network_id": "ID", "ip_version": 4, "cidr": "10.9.0.0/24"}}),
        ("POST", "/routers", network_id, {"router": {"external_gateway_info": {"network_id": "ID"}}}),
        ("PUT", interface, subnet_id, {"subnet_id": "ID"}),
        ("PUT", interface, port["id"], {"port_id": "ID"}),
        ("POST", "/security-group-rules", group["id"], {"security_group_rule": in_group | {"remote_group_id": "ID"}}),
        ("POST", "/floatingips", network_id, {"floatingip": {"floating_network_id": "ID"}}),
        ("POST", "/floatingips", port["id"], {"floatingip": {"floating_network_id": public(other), "port_id": "ID"}}),
    ]
    for method, path, thing_id, body in attempts:
        theirs = call(other, method, path, _named(body, thing_id))
        unknown = call(other, method, path, _named(body, UNKNOWN))
        assert theirs.status in (400, 404), (path, body, theirs.text)
        assert theirs.text.replace(thing_id, UNKNOWN) == unknown.text, path


def _named(value: object, thing_id: str) -> Any:
    """`value` with ID replaced."""
    if isinstance(value, dict):
        return {name: _named(part, thing_id) for name, part in value.items()}
    if isinstance(value, list):
        return [_named(part, thing_id) for part in value]
    return thing_id if value == "ID" else value


def test_one_cannot_make_things_in_another_project(cloud: TestCloud) -> None:
    other_project = cloud.persona("other_member").project_id
    for name in ("project_id", "tenant_id"):
        body = {"network": {name: other_project}}
        assert call(cloud.persona("member"), "POST", "/networks", body).status == 400
        made = call(cloud.persona("admin"), "POST", "/networks", body)
        assert (made.status, made["network"]["project_id"]) == (201, other_project)


def test_without_a_token_nothing_is_told(cloud: TestCloud) -> None:
    for path in ("/networks", f"/networks/{UNKNOWN}", "/ports", "/quotas/x", "/extensions", "/nothing"):
        assert call(cloud.anonymous(), "GET", path).status == 401


def test_a_move_has_a_second_binding_that_services_make_and_activate(cloud: TestCloud) -> None:
    member, service = cloud.persona("member"), cloud.persona("service")
    network_id, _ = network_with_subnet(member)
    port = make(cloud.persona("admin"), "port", network_id=network_id, **{"binding:host_id": "host1"})
    path = f"/ports/{port['id']}/bindings"

    def hosts() -> dict[str, str]:
        return {binding["host"]: binding["status"] for binding in call(service, "GET", path)["bindings"]}

    assert hosts() == {"host1": "ACTIVE"}
    assert call(cloud.persona("admin"), "POST", path, {"binding": {"host": "host2"}}).status == 403
    made = call(service, "POST", path, {"binding": {"host": "host2", "profile": {"a": "b"}}})
    assert (made.status, made["binding"]["vif_type"], made["binding"]["profile"]) == (201, "tap", {"a": "b"})
    assert call(service, "POST", path, {"binding": {"host": "host2"}}).status == 409
    assert hosts() == {"host1": "ACTIVE", "host2": "INACTIVE"}
    assert call(service, "GET", f"/ports/{port['id']}")["port"]["binding:host_id"] == "host1"
    for persona, status in (("member", 404), ("reader", 404), ("other_member", 404), ("admin", 403)):
        assert call(cloud.persona(persona), "DELETE", f"{path}/host2").status == status
        assert call(cloud.persona(persona), "PUT", f"{path}/host2/activate").status == status
    assert call(member, "GET", path)["bindings"] == []
    assert call(service, "PUT", f"{path}/host2/activate").status == 200
    assert call(service, "PUT", f"{path}/host2/activate").status == 409
    assert hosts() == {"host1": "INACTIVE", "host2": "ACTIVE"}
    assert call(service, "GET", f"/ports/{port['id']}")["port"]["binding:host_id"] == "host2"
    assert call(service, "DELETE", f"{path}/host1").status == 204
    assert call(service, "DELETE", f"{path}/host1").status == 404
    assert call(service, "PUT", f"{path}/host2", {"binding": {"vnic_type": "direct"}}).status == 200
    assert call(service, "DELETE", f"{path}/host2").status == 204
    assert hosts() == {}


def server_with(cloud: TestCloud, port: str) -> str:
    member = cloud.persona("member")
    image = member.request("GET", "/image/v2/images")["images"][0]["id"]
    flavor = member.compute("GET", "/flavors")["flavors"][0]["id"]
    server = {"name": "s", "imageRef": image, "flavorRef": flavor, "networks": [{"port": port}]}
    made = member.compute("POST", "/servers", {"server": server})
    assert made.status == 202, made.text
    cloud.idle()
    return str(made["server"]["id"])


def test_a_servers_port_is_changed_by_compute_only_until_the_server_is_gone(cloud: TestCloud) -> None:
    member, admin = cloud.persona("member"), cloud.persona("admin")
    network_id, _ = network_with_subnet(member)
    port = make(member, "port", network_id=network_id)
    server = server_with(cloud, port["id"])
    path = f"/ports/{port['id']}"
    plugged = call(admin, "GET", path)["port"]
    assert (plugged["device_id"], plugged["status"]) == (server, "ACTIVE")
    assert plugged["binding:host_id"] in cloud.hosts
    kind = "binding:vnic_type"
    others: list[JsonObject] = [{"device_id": "else"}, {"device_owner": ""}, {"binding:host_id": "host9"}]
    for body in (*others, {kind: "direct"}):
        refused = call(admin, "PUT", path, {"port": body})
        assert (refused.status, refused["NeutronError"]["type"]) == (409, "PortInUse")
    assert call(admin, "GET", path)["port"] == plugged
    same: list[JsonObject] = [{kind: "normal"}, {kind: None}, {"device_id": plugged["device_id"]}]
    for body in same:
        assert call(admin, "PUT", path, {"port": body}).status == 200
    assert call(member, "DELETE", path).status == 403
    assert member.compute("DELETE", f"/servers/{server}").status == 204
    cloud.idle()
    free = call(admin, "GET", path)["port"]
    assert (free["device_id"], free["device_owner"], free["binding:host_id"]) == ("", "", "")
    assert call(member, "PUT", path, {"port": {kind: "direct"}})["port"][kind] == "direct"
    assert call(member, "DELETE", path).status == 204


def test_the_kind_of_nic_of_a_port_without_server_changes_while_it_is_not_bound(cloud: TestCloud) -> None:
    admin = cloud.persona("admin")
    parent_net, _ = network_with_subnet(admin)
    parent, child = (make(admin, "port", network_id=parent_net)["id"] for _ in range(2))
    subports = [{"port_id": child, "segmentation_type": "vlan", "segmentation_id": 100}]
    make(admin, "trunk", port_id=parent, sub_ports=subports)

    def change(port: str, **attributes: object) -> tuple[int, str]:
        answer = call(admin, "PUT", f"/ports/{port}", {"port": attributes})
        return answer.status, "" if answer.status == 200 else answer["NeutronError"]["type"]

    for port in (parent, child):
        assert change(port, **{"binding:vnic_type": "direct"}) == (200, "")
        assert change(port, **{"binding:vnic_type": "normal"}) == (200, "")
    assert change(parent, **{"binding:host_id": "host1"}) == (200, "")
    for port in (parent, child):  # A subport is bound with its parent.
        assert change(port, **{"binding:vnic_type": "direct"}) == (409, "PortInUse")
        assert change(port, name="n", **{"binding:vnic_type": "normal"}) == (200, "")
    # Its type is looked at as it is bound now, whatever else is asked.
    assert change(parent, **{"binding:vnic_type": "direct", "binding:host_id": ""}) == (409, "PortInUse")
    assert change(parent, **{"binding:host_id": ""}) == (200, "")
    assert change(parent, **{"binding:vnic_type": "direct", "binding:host_id": "host1"}) == (200, "")


def test_a_shelved_server_comes_back_with_the_kind_of_nic_that_it_had(cloud: TestCloud) -> None:
    member, admin = cloud.persona("member"), cloud.persona("admin")
    network_id, _ = network_with_subnet(member)
    port = make(member, "port", network_id=network_id)["id"]
    server = server_with(cloud, port)
    assert member.action(server, {"shelve": None}).status == 202
    member.wait_for_status(server, "SHELVED_OFFLOADED")
    assert call(admin, "GET", f"/ports/{port}")["port"]["binding:vif_type"] == "unbound"
    refused = call(member, "PUT", f"/ports/{port}", {"port": {"binding:vnic_type": "direct"}})
    assert (refused.status, refused["NeutronError"]["type"]) == (409, "PortInUse")


def test_a_port_names_no_device_of_another_project(cloud: TestCloud) -> None:
    member, other, admin = (cloud.persona(name) for name in ("member", "other_member", "admin"))
    flavor = member.compute("GET", "/flavors")["flavors"][0]["id"]
    image = member.request("GET", "/image/v2/images")["images"][0]["id"]
    wanted = {"name": "theirs", "flavorRef": flavor, "imageRef": image, "networks": "none"}
    server = member.compute("POST", "/servers", {"server": wanted})["server"]["id"]
    router = make(member, "router", name="theirs")["id"]
    network, _ = network_with_subnet(other, "10.77.0.0/24")
    mine = make(other, "port", network_id=network, device_id="anything at all")["id"]
    for device in (server, server.upper(), f" {server}", router):
        body = {"port": {"network_id": network, "device_id": device}}
        assert call(other, "POST", "/ports", body).status == 409
        assert call(other, "POST", "/ports", {"ports": [body["port"]]}).status == 409
        assert call(other, "PUT", f"/ports/{mine}", {"port": {"device_id": device}}).status == 409
    assert call(other, "GET", f"/ports/{mine}", None)["port"]["device_id"] == "anything at all"
    assert call(admin, "PUT", f"/ports/{mine}", {"port": {"device_id": server}}).status == 200
    own, _ = network_with_subnet(member, "10.78.0.0/24")
    make(member, "port", network_id=own, device_id=server)
