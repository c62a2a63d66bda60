"""Trunks: a guest carries subports on the NIC of a parent port, wherever the guest is."""

from __future__ import annotations

from typing import Any

import pytest

from cumulet.compute.descriptions import described
from cumulet.host import wiring as w
from cumulet.network import trunk_ports
from cumulet.testing import Client, TestCloud
from tests.api.servers import host_of
from tests.api.test_compute_servers import create
from tests.api.test_network_stories import UNKNOWN, call, make, network_with_subnet
from tests.api.test_qos import keeping, qos_policy
from tests.network.test_port_status import boot, status_of


def vlan(port_id: str, tag: int) -> dict[str, object]:
    return {"port_id": port_id, "segmentation_type": "vlan", "segmentation_id": tag}


@pytest.fixture
def networks(member: Client) -> list[str]:
    return [network_with_subnet(member, f"10.{n}.0.0/24")[0] for n in (1, 2, 3)]


@pytest.fixture
def ports(member: Client, networks: list[str]) -> list[str]:
    """A parent, and two subports on other networks."""
    return [make(member, "port", network_id=network)["id"] for network in networks]


def shown(client: Client, trunk: str) -> dict[str, Any]:
    found: dict[str, Any] = call(client, "GET", f"/trunks/{trunk}")["trunk"]
    return found


def carried(cloud: TestCloud, host: str) -> dict[str, w.Port]:
    """The subports of a host's wiring."""
    wiring = cloud.embedded.db.read(lambda tx: described(tx, host))
    return {port.id: port for port in wiring.ports if port.carried is not None}


def test_a_trunk_is_made_changed_and_deleted(member: Client, ports: list[str]) -> None:
    parent, first, second = ports
    made = make(member, "trunk", name="t", description="d", port_id=parent, sub_ports=[vlan(first, 100)])
    assert made["sub_ports"] == [vlan(first, 100)]
    assert (made["name"], made["description"], made["admin_state_up"], made["status"]) == ("t", "d", True, "DOWN")
    assert (made["project_id"], made["port_id"], made["tags"]) == (member.project_id, parent, [])
    path = f"/trunks/{made['id']}"
    details = call(member, "GET", f"/ports/{parent}")["port"]["trunk_details"]
    (inside,) = details["sub_ports"]
    mac = call(member, "GET", f"/ports/{first}")["port"]["mac_address"]
    assert (details["trunk_id"], inside) == (made["id"], vlan(first, 100) | {"mac_address": mac})
    assert "trunk_details" not in call(member, "GET", f"/ports/{first}")["port"]
    assert call(member, "GET", f"/ports/{first}")["port"]["device_owner"] == "trunk:subport"

    added = call(member, "PUT", f"{path}/add_subports", {"sub_ports": [vlan(second, 7)]})
    assert (added.status, added["trunk"]["sub_ports"]) == (200, [vlan(second, 7), vlan(first, 100)])
    assert added["trunk"]["revision_number"] > made["revision_number"]
    assert call(member, "GET", f"{path}/get_subports").json == {"sub_ports": [vlan(second, 7), vlan(first, 100)]}
    removed = call(member, "PUT", f"{path}/remove_subports", {"sub_ports": [{"port_id": first}]})
    assert (removed.status, removed["trunk"]["sub_ports"]) == (200, [vlan(second, 7)])
    assert call(member, "GET", f"/ports/{first}")["port"]["device_owner"] == ""
    absent = call(member, "PUT", f"{path}/remove_subports", {"sub_ports": [{"port_id": first}]})
    assert (absent.status, absent["NeutronError"]["type"]) == (404, "SubPortNotFound")

    for port, kind in ((parent, "PortInUseAsTrunkParent"), (second, "PortInUseAsSubPort")):
        kept = call(member, "DELETE", f"/ports/{port}")
        assert (kept.status, kept["NeutronError"]["type"]) == (409, kind)
    for owner in ("", "compute:nova"):
        kept = call(member, "PUT", f"/ports/{second}", {"port": {"device_owner": owner}})
        assert (kept.status, kept["NeutronError"]["type"]) == (409, "PortInUseAsSubPort")
    disabled = call(member, "PUT", path, {"trunk": {"admin_state_up": False, "name": "u"}})["trunk"]
    assert (disabled["admin_state_up"], disabled["name"]) == (False, "u")
    for method, wanted, body in (
        ("PUT", f"{path}/add_subports", {"sub_ports": [vlan(first, 5)]}),
        ("PUT", f"{path}/remove_subports", {"sub_ports": [{"port_id": second}]}),
        ("DELETE", path, None),
    ):
        refused = call(member, method, wanted, body)
        assert (refused.status, refused["NeutronError"]["type"]) == (409, "TrunkDisabled")
    assert call(member, "PUT", path, {"trunk": {"port_id": first}}).status == 400
    assert call(member, "PUT", path, {"trunk": {"admin_state_up": True}}).status == 200
    assert call(member, "DELETE", path).status == 204
    assert call(member, "GET", path).status == 404
    for port in ports:
        assert call(member, "DELETE", f"/ports/{port}").status == 204


def test_trunks_are_listed_by_what_they_are(member: Client, other_member: Client, ports: list[str]) -> None:
    parent, first, second = ports
    one = make(member, "trunk", name="b", port_id=parent)["id"]
    two = make(member, "trunk", name="a", port_id=first, admin_state_up=False)["id"]
    call(member, "PUT", f"/trunks/{one}/tags/blue")
    for query, found in (
        ("sort_key=name&sort_dir=asc", [two, one]),
        ("sort_key=status&sort_dir=asc&sort_key=name&sort_dir=desc", [one, two]),
        (f"port_id={parent}", [one]),
        ("admin_state_up=false", [two]),
        ("status=DOWN&name=b", [one]),
        ("status=ACTIVE", []),
        ("tags=blue", [one]),
    ):
        assert [trunk["id"] for trunk in call(member, "GET", f"/trunks?{query}")["trunks"]] == found, query
    assert call(other_member, "GET", "/trunks")["trunks"] == []
    assert call(other_member, "GET", f"/trunks/{one}").status == 404
    assert call(member, "GET", "/trunks?sub_ports=x").status == 400
    with_details = [port["id"] for port in call(member, "GET", "/ports")["ports"] if "trunk_details" in port]
    assert sorted(with_details) == sorted([parent, first])
    assert second not in with_details
    for alias in ("trunk", "trunk-details"):
        assert call(member, "GET", f"/extensions/{alias}").status == 200


def test_a_guests_host_carries_the_subports_of_its_ports_and_a_move_takes_them_along(
    cloud: TestCloud, member: Client, admin: Client, ports: list[str]
) -> None:
    parent, first, second = ports
    trunk = make(member, "trunk", port_id=parent, sub_ports=[vlan(first, 100)])["id"]
    server = boot(member, networks=[{"port": parent}])
    member.wait_for_status(server, "ACTIVE")
    assert (status_of(member, parent), status_of(member, first)) == ("ACTIVE", "ACTIVE")
    assert shown(member, trunk)["status"] == "ACTIVE"
    port = call(admin, "GET", f"/ports/{first}")["port"]
    host = port["binding:host_id"]
    assert (port["binding:vif_type"], port["device_owner"], port["device_id"]) == ("tap", "trunk:subport", "")
    (here,) = carried(cloud, host).values()
    assert (here.id, here.active, here.carried) == (first, True, w.Carried(parent=parent, tag=100))
    found = {one["id"] for one in call(admin, "GET", f"/ports?binding:host_id={host}")["ports"]}
    assert {parent, first} <= found
    assert second not in found
    assert [one["host"] for one in call(admin, "GET", f"/ports/{first}/bindings")["bindings"]] == [host]
    network = port["network_id"]
    assert [one["host"] for one in call(admin, "GET", f"/networks/{network}/dhcp-agents")["agents"]] == [host]

    added = call(member, "PUT", f"/trunks/{trunk}/add_subports", {"sub_ports": [vlan(second, 200)]})
    assert added["trunk"]["status"] == "DEGRADED", "one of two is carried"
    member.wait("the second subport", lambda: status_of(member, second) == "ACTIVE")
    assert shown(member, trunk)["status"] == "ACTIVE"
    assert member.compute("GET", f"/servers/{server}")["server"]["addresses"].keys() == {"n"}

    moved = {"os-migrateLive": {"host": None, "block_migration": "auto"}}
    assert admin.action(server, moved).status == 202
    member.wait_for_status(server, "ACTIVE")
    cloud.idle()
    there = call(admin, "GET", f"/ports/{second}")["port"]["binding:host_id"]
    assert there != host
    assert (carried(cloud, host), set(carried(cloud, there))) == ({}, {first, second})
    assert [status_of(member, one) for one in ports] == ["ACTIVE"] * 3

    call(member, "PUT", f"/trunks/{trunk}/remove_subports", {"sub_ports": [{"port_id": first}]})
    assert (status_of(member, first), set(carried(cloud, there))) == ("DOWN", {second})
    assert member.compute("DELETE", f"/servers/{server}").status == 204
    member.wait("its end", lambda: member.compute("GET", f"/servers/{server}").status == 404)
    assert (shown(member, trunk)["status"], status_of(member, second)) == ("DOWN", "DOWN")
    assert carried(cloud, there) == {}


def test_a_server_without_a_host_carries_nothing_and_is_plugged_into_nothing(member: Client, ports: list[str]) -> None:
    parent, first, _ = ports
    trunk = make(member, "trunk", port_id=parent, sub_ports=[vlan(first, 100)])["id"]
    server = boot(member, networks=[{"port": parent}])
    member.wait_for_status(server, "ACTIVE")
    for action, status, of_ports in (("shelve", "SHELVED_OFFLOADED", "DOWN"), ("unshelve", "ACTIVE", "ACTIVE")):
        assert member.action(server, {action: None}).status == 202
        member.wait_for_status(server, status)
        assert [status_of(member, one) for one in (parent, first)] == [of_ports] * 2
        assert shown(member, trunk)["status"] == of_ports


def test_a_port_that_compute_made_stays_while_it_is_a_trunks_parent(
    member: Client, networks: list[str], ports: list[str]
) -> None:
    server = boot(member, networks=[{"uuid": networks[0]}])
    member.wait_for_status(server, "ACTIVE")
    made = call(member, "GET", f"/ports?device_id={server}")["ports"][0]["id"]
    trunk = make(member, "trunk", port_id=made, sub_ports=[vlan(ports[1], 1)])["id"]
    assert member.compute("DELETE", f"/servers/{server}").status == 204
    member.wait("its end", lambda: member.compute("GET", f"/servers/{server}").status == 404)
    left = call(member, "GET", f"/ports/{made}")["port"]
    assert (left["device_id"], left["trunk_details"]["trunk_id"]) == ("", trunk)
    assert call(member, "DELETE", f"/trunks/{trunk}").status == 204
    again = boot(member, networks=[{"port": made}])
    member.wait_for_status(again, "ACTIVE")
    assert member.compute("DELETE", f"/servers/{again}").status == 204
    member.wait("its end", lambda: member.compute("GET", f"/servers/{again}").status == 404)
    assert call(member, "GET", f"/ports/{made}").status == 200, "it is the user's now"


def test_a_subport_is_plugged_in_nowhere_else_and_bound_by_nobody(
    cloud: TestCloud, admin: Client, member: Client, ports: list[str]
) -> None:
    service = cloud.persona("service")
    parent, first, _ = ports
    trunk = make(member, "trunk", port_id=parent, sub_ports=[vlan(first, 100)])["id"]
    flavor = next(f["id"] for f in member.compute("GET", "/flavors")["flavors"] if f["name"] == "m1.nano")
    image = member.request("GET", "/image/v2/images")["images"][0]["id"]
    wanted = {"name": "s", "flavorRef": flavor, "imageRef": image, "networks": [{"port": first}]}
    assert member.compute("POST", "/servers", {"server": wanted}, version="2.37").status == 409
    router = make(member, "router")["id"]
    for port in (parent, first):
        assert call(member, "PUT", f"/routers/{router}/add_router_interface", {"port_id": port}).status == 409
    assert call(admin, "PUT", f"/ports/{first}", {"port": {"binding:host_id": "host1"}}).status == 409
    body = {"binding": {"host": "host1"}}
    assert call(service, "POST", f"/ports/{first}/bindings", body).status == 409
    assert call(admin, "PUT", f"/ports/{parent}", {"port": {"binding:host_id": "host1"}}).status == 200
    named = f"/ports/{first}/bindings/host1"
    assert call(admin, "GET", named)["binding"]["status"] == "ACTIVE"
    for method, path, sent in (
        ("PUT", named, {"binding": {"vnic_type": "normal"}}),
        ("DELETE", named, None),
        ("PUT", f"{named}/activate", {}),
    ):
        refused = call(service, method, path, sent)
        assert (refused.status, refused["NeutronError"]["type"]) == (409, "PortInUse"), (method, refused.text)
    assert shown(member, trunk)["status"] == "DOWN", "a binding without a server plugs nothing"
    assert cloud.embedded.db.read(trunk_ports.hosts) == [], "nor is a host told of subports because of it"


def test_hosts_that_carry_no_subports_are_said(cloud: TestCloud, member: Client, ports: list[str]) -> None:
    parent, first, _ = ports
    with keeping("networks", on=["old"]):
        refused = call(member, "POST", "/trunks", {"trunk": {"port_id": parent, "sub_ports": [vlan(first, 1)]}})
        assert (refused.status, "cannot carry the subports of trunks" in refused.text) == (501, True)
        assert call(member, "GET", "/trunks")["trunks"] == []
        trunk = make(member, "trunk", port_id=parent)["id"]
        path = f"/trunks/{trunk}/add_subports"
        assert call(member, "PUT", path, {"sub_ports": [vlan(first, 1)]}).status == 501
    assert call(member, "PUT", path, {"sub_ports": [vlan(first, 1)]}).status == 200


def test_all_hosts_of_a_guest_must_keep_the_policies_of_its_subports_and_carry_them(
    cloud: TestCloud, admin: Client, manager: Client, member: Client, ports: list[str]
) -> None:
    parent, first, second = ports
    path = f"/trunks/{make(member, 'trunk', port_id=parent)['id']}/add_subports"
    slow = qos_policy(manager, ("egress", 1000, 0))
    assert call(member, "PUT", f"/ports/{first}", {"port": {"qos_policy_id": slow}}).status == 200
    bound = {"port": {"binding:host_id": "host1"}}
    assert call(admin, "PUT", f"/ports/{parent}", bound).status == 200
    with keeping("networks", "trunks", on=["host1"]):
        refused = call(member, "PUT", path, {"sub_ports": [vlan(second, 2), vlan(first, 1)]})
        assert (refused.status, "cannot limit the bandwidth of ports" in refused.text) == (501, True), refused.text
        assert call(member, "PUT", path, {"sub_ports": [vlan(second, 2)]}).status == 200
    destination = {"binding": {"host": "host2"}}
    assert call(cloud.persona("service"), "POST", f"/ports/{parent}/bindings", destination).status == 201
    with keeping("networks", "bandwidth-limits", on=["host2"]):
        refused = call(member, "PUT", path, {"sub_ports": [vlan(first, 1)]})
        assert (refused.status, "A host cannot carry" in refused.text) == (501, True), refused.text
    assert call(member, "PUT", path, {"sub_ports": [vlan(first, 1)]}).status == 200


def test_a_parent_is_attached_only_where_the_policies_of_its_subports_are_kept(
    cloud: TestCloud, admin: Client, manager: Client, member: Client, ports: list[str]
) -> None:
    parent, first, _ = ports
    make(member, "trunk", port_id=parent, sub_ports=[vlan(first, 1)])
    slow = qos_policy(manager, ("egress", 1000, 0))
    assert call(member, "PUT", f"/ports/{first}", {"port": {"qos_policy_id": slow}}).status == 200
    server = create(member, networks="none")["id"]
    attached = {"interfaceAttachment": {"port_id": parent}}
    with keeping("networks", "trunks", on=[host_of(admin, server)]):
        refused = member.compute("POST", f"/servers/{server}/os-interface", attached)
        assert (refused.status, "cannot limit the bandwidth of ports" in refused.text) == (501, True), refused.text
    assert member.compute("POST", f"/servers/{server}/os-interface", attached).status == 200


def test_a_subport_has_the_bindings_of_its_parent_and_one_of_them_counts(
    cloud: TestCloud, admin: Client, member: Client, ports: list[str]
) -> None:
    parent, first, _ = ports
    make(member, "trunk", port_id=parent, sub_ports=[vlan(first, 1)])
    assert call(admin, "PUT", f"/ports/{parent}", {"port": {"binding:host_id": "host1"}}).status == 200
    service = cloud.persona("service")
    assert call(service, "POST", f"/ports/{parent}/bindings", {"binding": {"host": "host2"}}).status == 201
    found = call(service, "GET", f"/ports/{first}/bindings")["bindings"]
    assert {one["host"]: one["status"] for one in found} == {"host1": "ACTIVE", "host2": "INACTIVE"}


def test_what_is_not_possible_is_refused_in_neutrons_words(
    member: Client, other_member: Client, admin: Client, ports: list[str], networks: list[str]
) -> None:
    parent, first, second = ports
    theirs = make(other_member, "port", network_id=network_with_subnet(other_member)[0])["id"]
    large = make(admin, "network", name="large", project_id=member.project_id, mtu=1450)["id"]
    wide = make(member, "port", network_id=large)["id"]
    held = make(member, "port", network_id=networks[1], device_id="a thing")["id"]
    bound = make(admin, "port", network_id=networks[1], project_id=member.project_id, **{"binding:host_id": "host1"})
    for narrow in networks:
        call(member, "PUT", f"/networks/{narrow}", {"network": {"mtu": 1400}})
    trunk = make(member, "trunk", port_id=parent, sub_ports=[vlan(first, 100)])["id"]
    interface = make(member, "router")["id"]
    subnet = call(member, "GET", f"/networks/{networks[2]}")["network"]["subnets"][0]
    added = call(member, "PUT", f"/routers/{interface}/add_router_interface", {"subnet_id": subnet})
    of_router = added["port_id"]
    for status, part, new in (
        (404, f"Port {UNKNOWN} could not be found", vlan(UNKNOWN, 1)),
        (404, f"Port {theirs} could not be found", vlan(theirs, 1)),
        (409, "ParentPortInUse", vlan(parent, 1)),
        (409, "TrunkPortInUse", vlan(first, 1)),
        (409, "DuplicateSubPort", vlan(second, 100)),
        (409, "SubPortMtuGreaterThanTrunkPortMtu", vlan(wide, 1)),
        (409, "PortInUse", vlan(held, 1)),
        (409, "PortInUse", vlan(bound["id"], 1)),
        (409, "PortInUse", vlan(of_router, 1)),
        (400, "Segmentation ID '0' is not in range", vlan(second, 0)),
        (400, "Segmentation ID '4095' is not in range", vlan(second, 4095)),
        (400, "Unknown segmentation_type 'vxlan'", vlan(second, 1) | {"segmentation_type": "vxlan"}),
        (400, "Unknown segmentation_type 'vxlan'", {"port_id": second, "segmentation_type": "inherit"}),
        (400, "missing segmentation information", {"port_id": second, "segmentation_type": "vlan"}),
        (400, "missing segmentation information", {"port_id": second, "segmentation_id": 1}),
        (400, "", vlan("no uuid", 1)),
    ):
        refused = call(member, "PUT", f"/trunks/{trunk}/add_subports", {"sub_ports": [new]})
        assert (refused.status, part in refused.text) == (status, True), (new, refused.text)
    twice = [vlan(second, 1), vlan(second, 2)]
    refused = call(member, "PUT", f"/trunks/{trunk}/add_subports", {"sub_ports": twice})
    assert (refused.status, "Non unique UUID for subport" in refused.text) == (400, True)
    same = [vlan(second, 1), vlan(held, 1)]
    refused = call(member, "PUT", f"/trunks/{trunk}/add_subports", {"sub_ports": same})
    assert (refused.status, "is not unique" in refused.text) == (400, True)
    many = [vlan(second, 1)] * 129
    assert call(member, "PUT", f"/trunks/{trunk}/add_subports", {"sub_ports": many}).status == 400
    for port, kind in (
        (parent, "ParentPortInUse"),
        (first, "TrunkPortInUse"),
        (of_router, "ParentPortInUse"),
        (theirs, "PortNotFound"),
    ):
        refused = call(member, "POST", "/trunks", {"trunk": {"port_id": port}})
        assert refused["NeutronError"]["type"] == kind, refused.text
    refused = call(member, "POST", "/trunks", {"trunk": {"port_id": second, "sub_ports": twice}})
    assert (refused.status, "Non unique" in refused.text) == (400, True)
    assert shown(member, trunk)["sub_ports"] == [vlan(first, 100)]


def test_administrators_make_a_trunk_of_ports_of_several_projects(
    admin: Client, other_member: Client, ports: list[str]
) -> None:
    theirs = make(other_member, "port", network_id=network_with_subnet(other_member)[0])["id"]
    made = make(admin, "trunk", port_id=ports[0], project_id=other_member.project_id, sub_ports=[vlan(theirs, 1)])
    assert call(other_member, "GET", f"/trunks/{made['id']}")["trunk"]["sub_ports"] == [vlan(theirs, 1)]


def test_a_project_has_no_more_trunks_than_its_quota(admin: Client, member: Client, ports: list[str]) -> None:
    assert call(member, "GET", f"/quotas/{member.project_id}")["quota"]["trunk"] == -1
    assert call(admin, "PUT", f"/quotas/{member.project_id}", {"quota": {"trunk": 1}}).status == 200
    make(member, "trunk", port_id=ports[0])
    refused = call(member, "POST", "/trunks", {"trunk": {"port_id": ports[1]}})
    assert (refused.status, refused["NeutronError"]["type"]) == (409, "OverQuota")


def test_a_segment_is_inherited_from_a_vlan_network(admin: Client, ports: list[str]) -> None:
    tagged: dict[str, Any] = {
        "provider:network_type": "vlan",
        "provider:physical_network": "p",
        "provider:segmentation_id": 77,
    }
    network = make(admin, "network", name="v", mtu=1400, **tagged)["id"]
    port = make(admin, "port", network_id=network)["id"]
    inherited = {"port_id": port, "segmentation_type": "inherit"}
    made = make(admin, "trunk", port_id=ports[0], sub_ports=[inherited])
    assert made["sub_ports"] == [vlan(port, 77)]
