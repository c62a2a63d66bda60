"""A server whose first boot has failed gives back its ports, as in Nova, and is only there to be read and deleted."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from cumulet.network.store import ports as port_records
from cumulet.testing import Client, JsonObject, TestCloud
from tests.api.servers import host_of, leftovers
from tests.api.test_compute_servers import ask_for
from tests.api.test_leftovers import look
from tests.api.test_network_stories import call, make, network_with_subnet
from tests.api.test_shelve import going_down
from tests.links import instead


@pytest.fixture
def network(member: Client) -> str:
    return network_with_subnet(member)[0]


def in_error(client: Client, network: str, port: str) -> str:
    """A server that was to have this port, and one that is made for it."""
    asked = ask_for(client, networks=[{"port": port}, {"uuid": network}])
    assert asked.status == 202, asked.text
    server: str = asked["server"]["id"]
    client.wait_for_status(server, "ERROR")
    return server


def ports_of(client: Client, network: str) -> list[JsonObject]:
    found: list[JsonObject] = call(client, "GET", f"/ports?network_id={network}")["ports"]
    return [port for port in found if not port["device_owner"].startswith("network:")]


def require_given_back(cloud: TestCloud, network: str, port: str, server: str) -> None:
    """The port that it was given is as before, the other is gone, and the server has none."""
    member, admin = cloud.persona("member"), cloud.persona("admin")
    (seen,) = ports_of(admin, network)
    assert (seen["id"], seen["device_id"], seen["device_owner"]) == (port, "", "")
    assert (seen["binding:host_id"], seen["status"], seen["dns_name"]) == ("", "DOWN", "")
    assert member.server(server)["addresses"] == {}
    assert member.compute("GET", f"/servers/{server}/os-interface")["interfaceAttachments"] == []
    assert leftovers(cloud, admin, server) == {"guests": {}, "allocated": [], "bound": []}


def test_one_that_finds_no_host_has_no_ports(cloud: TestCloud, member: Client, network: str) -> None:
    port = make(member, "port", network_id=network, **{"binding:vnic_type": "direct"})["id"]
    server = in_error(member, network, port)
    require_given_back(cloud, network, port, server)
    # The port is of use again.
    assert call(member, "PUT", f"/ports/{port}", {"port": {"binding:vnic_type": "normal"}}).status == 200
    other = ask_for(member, networks=[{"port": port}])["server"]["id"]
    assert member.wait_for_status(other, "ACTIVE")["addresses"]
    assert member.compute("DELETE", f"/servers/{server}").status == 204
    cloud.idle()
    assert [one["device_id"] for one in ports_of(member, network)] == [other]


def test_nor_has_one_that_no_host_could_make(cloud: TestCloud, member: Client, network: str) -> None:
    cloud.faults.fail("boot", step="create_guest", times=2)
    port = make(member, "port", network_id=network)["id"]
    require_given_back(cloud, network, port, in_error(member, network, port))
    assert call(member, "DELETE", f"/ports/{port}").status == 204


def test_a_trunk_keeps_its_parent(cloud: TestCloud, member: Client, network: str) -> None:
    parent, child = (make(member, "port", network_id=network, name=name)["id"] for name in ("parent", "child"))
    subports = [{"port_id": child, "segmentation_type": "vlan", "segmentation_id": 100}]
    trunk = make(member, "trunk", port_id=parent, sub_ports=subports)["id"]
    cloud.faults.fail("boot", step="create_guest", times=2)
    server = in_error(member, network, parent)
    assert sorted(one["name"] for one in ports_of(member, network)) == ["child", "parent"]
    assert {one["status"] for one in ports_of(member, network)} == {"DOWN"}
    assert member.server(server)["addresses"] == {}
    assert call(member, "DELETE", f"/trunks/{trunk}").status == 204


def test_it_keeps_them_while_a_host_that_is_down_may_run_it(
    cloud: TestCloud, admin: Client, member: Client, network: str
) -> None:
    port = make(member, "port", network_id=network)["id"]
    services = admin.compute("GET", "/os-services?binary=nova-compute")["services"]
    second = next(service["id"] for service in services if service["host"] == "host2")
    assert admin.compute("PUT", f"/os-services/{second}", {"status": "disabled"}).status == 200
    with instead(cloud, "host1", going_down(cloud, "host1", made=True)):
        server = in_error(member, network, port)
        look(cloud)
        assert host_of(admin, server) == "host1"
        assert {one["device_id"] for one in ports_of(admin, network)} == {server}
        assert {one["binding:host_id"] for one in ports_of(admin, network)} == {"host1"}
        assert call(member, "DELETE", f"/ports/{port}").status == 403
    cloud.reconcile()
    assert cloud.guests("host1") == {}
    assert member.compute("DELETE", f"/servers/{server}").status == 204
    cloud.idle()
    (seen,) = ports_of(admin, network)
    assert (seen["id"], seen["device_id"]) == (port, "")


ACTIONS: dict[str, object] = {
    "rebuild": {},
    "evacuate": {},
    "reboot": {"type": "HARD"},
    "rescue": None,
    "os-start": None,
    "os-stop": None,
    "migrate": None,
    "shelve": None,
}


@pytest.mark.parametrize("reset", [False, True])
def test_nothing_is_begun_with_it(cloud: TestCloud, admin: Client, member: Client, network: str, reset: bool) -> None:
    """Also if it is said to be active: it has never run."""
    cloud.faults.fail("boot", step="create_guest", times=2)
    server = in_error(member, network, make(member, "port", network_id=network)["id"])
    if reset:
        assert admin.action(server, {"os-resetState": {"state": "active"}}).status == 202
    image = member.server(server)["image"]["id"]
    for action, asked in ACTIONS.items():
        refused = admin.action(server, {action: {"imageRef": image} if action == "rebuild" else asked})
        assert refused.status == 409, (action, refused.text)
    attached = member.compute("POST", f"/servers/{server}/os-interface", {"interfaceAttachment": {"net_id": network}})
    assert attached.status == 409


def test_failed_servers_of_before_give_theirs_back(cloud: TestCloud, member: Client, network: str) -> None:
    """They kept their ports until they were deleted."""
    cloud.faults.fail("boot", step="create_guest", times=2)
    port = make(member, "port", network_id=network)["id"]
    server = in_error(member, network, port)
    kept = sa.update(port_records).where(port_records.c.id == port).values(server_id=server, device_id=server)
    cloud.embedded.db.write(lambda tx: tx.execute(kept))
    assert member.server(server)["addresses"]
    look(cloud)
    require_given_back(cloud, network, port, server)
    findings = cloud.persona("admin").compute("GET", "/cumulet/findings")["findings"]
    assert [one["finding"] for one in findings if one["server_id"] == server] == ["port-of-nobody"]
