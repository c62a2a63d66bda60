"""Ports that come and go while a server is there: as Nova answers, at each microversion and in each state."""

from __future__ import annotations

from typing import get_args

import pytest

from cumulet.host import messages as m
from cumulet.host.link import Link
from cumulet.host.nics import MOST_NICS
from cumulet.network.port_bodies import VnicType
from cumulet.testing import Answer, Client, TestCloud
from tests.api.servers import host_of
from tests.api.test_compute_servers import ask_for, create
from tests.links import Way, instead

NOBODY = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"


@pytest.fixture
def network(member: Client) -> str:
    made = member.request("POST", "/network/v2.0/networks", {"network": {"name": "n"}})
    network: str = made["network"]["id"]
    subnet = {"network_id": network, "cidr": "10.7.0.0/24", "ip_version": 4}
    assert member.request("POST", "/network/v2.0/subnets", {"subnet": subnet}).status == 201
    return network


def attach(client: Client, server: str, version: str = "2.96", **wanted: object) -> Answer:
    return client.compute("POST", f"/servers/{server}/os-interface", {"interfaceAttachment": wanted}, version=version)


def ports(client: Client, server: str) -> dict[str, str]:
    answer = client.compute("GET", f"/servers/{server}/os-interface")
    return {port["port_id"]: port["port_state"] for port in answer["interfaceAttachments"]}


def working(client: Client, server: str, count: int) -> None:
    client.wait("all ports to work", lambda: list(ports(client, server).values()) == ["ACTIVE"] * count)


def detach(client: Client, server: str, port: str) -> None:
    assert client.compute("DELETE", f"/servers/{server}/os-interface/{port}").status == 202
    client.wait("the port's end", lambda: port not in ports(client, server))


def test_a_port_is_made_plugged_in_and_ends_with_the_server(member: Client, network: str) -> None:
    server = create(member, networks="none")["id"]
    answer = attach(member, server, net_id=network, fixed_ips=[{"ip_address": "10.7.0.77"}], tag="inner")
    assert answer.status == 200
    port = answer["interfaceAttachment"]
    assert (port["net_id"], port["tag"]) == (network, "inner")
    assert [address["ip_address"] for address in port["fixed_ips"]] == ["10.7.0.77"]
    member.wait("the port to work", lambda: ports(member, server) == {port["port_id"]: "ACTIVE"})
    actions = member.compute("GET", f"/servers/{server}/os-instance-actions")["instanceActions"]
    assert actions[0]["action"] == "attach_interface"
    member.compute("DELETE", f"/servers/{server}")
    member.wait("the server's end", lambda: member.compute("GET", f"/servers/{server}").status == 404)
    assert member.request("GET", f"/network/v2.0/ports/{port['port_id']}").status == 404


def test_a_port_of_the_users_own_is_only_unplugged(member: Client, network: str) -> None:
    own = member.request("POST", "/network/v2.0/ports", {"port": {"network_id": network}})["port"]["id"]
    server = create(member, networks="none")["id"]
    assert attach(member, server, port_id=own).status == 200
    member.wait("the port to work", lambda: ports(member, server) == {own: "ACTIVE"})
    taken = attach(member, server, port_id=own)
    assert (taken.status, taken["conflictingRequest"]["message"]) == (409, f"Port {own} is still in use.")
    detach(member, server, own)
    left = member.request("GET", f"/network/v2.0/ports/{own}")["port"]
    assert (left["device_id"], left["status"]) == ("", "DOWN")


class PlugsUnheard(Way):
    """A port is plugged in, and its host does not say so. Notes how it is asked to take it back."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self.insisted: list[bool] = []

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, m.Unplug):
            self.insisted.append(message.insist)
        answer = await super().send(message)
        if isinstance(message, m.Plug):
            raise m.VerbFailed("a test asked for this failure, when all was done")
        return answer


def test_a_paused_guest_does_not_keep_a_port_that_could_not_be_attached(
    cloud: TestCloud, admin: Client, member: Client, network: str
) -> None:
    """It lets go of nothing while it is paused: whoever takes a port back does not insist."""
    server = create(member, networks="none")["id"]
    assert member.action(server, {"pause": None}).status == 202
    member.wait_for_status(server, "PAUSED")
    with instead(cloud, host_of(admin, server), PlugsUnheard) as way:
        assert attach(member, server, net_id=network).status == 200
        member.wait("its end", lambda: ports(member, server) == {})
        cloud.idle()
        assert way.insisted == [False]
    assert member.server(server)["status"] == "PAUSED"


def test_the_only_network_is_taken_where_none_is_named(member: Client, network: str) -> None:
    server = create(member, networks="none")["id"]
    answer = member.compute("POST", f"/servers/{server}/os-interface", {})
    assert answer["interfaceAttachment"]["net_id"] == network
    member.wait("the port to work", lambda: list(ports(member, server).values()) == ["ACTIVE"])
    member.request("POST", "/network/v2.0/networks", {"network": {"name": "another"}})
    assert member.compute("POST", f"/servers/{server}/os-interface", {}).status == 400


def test_without_any_network_no_port_is_made(member: Client) -> None:
    server = create(member, networks="none")["id"]
    answer = member.compute("POST", f"/servers/{server}/os-interface", {})
    assert answer.status == 400
    assert "none are available" in answer["badRequest"]["message"]


def test_impossible_ports_are_refused_as_by_nova(member: Client, network: str) -> None:
    server = create(member, networks="none")["id"]
    assert attach(member, server, net_id=NOBODY).status == 404
    assert attach(member, server, port_id=NOBODY).status == 404
    assert attach(member, server, port_id=NOBODY, net_id=network).status == 400
    assert attach(member, server, fixed_ips=[{"ip_address": "10.7.0.5"}]).status == 400
    assert attach(member, server, net_id=network, fixed_ips=[{"ip_address": "10.8.0.5"}]).status == 400
    assert attach(member, server, net_id=network, fixed_ips=[{"ip_address": "ten"}]).status == 400
    assert attach(member, server, version="2.48", net_id=network, tag="x").status == 400
    assert "tag" not in attach(member, server, version="2.69", net_id=network, tag="x")["interfaceAttachment"]
    member.wait("the port to work", lambda: list(ports(member, server).values()) == ["ACTIVE"])
    address = member.compute("GET", f"/servers/{server}/os-interface")["interfaceAttachments"][0]["fixed_ips"][0]
    taken = attach(member, server, net_id=network, fixed_ips=[{"ip_address": address["ip_address"]}])
    assert taken.status == 409
    assert member.compute("DELETE", f"/servers/{server}/os-interface/{NOBODY}").status == 404
    assert len(ports(member, server)) == 1, "refusals change nothing"


def test_a_stopped_server_has_the_port_at_its_next_start_and_a_suspended_one_is_refused(
    cloud: TestCloud, member: Client, network: str
) -> None:
    server = create(member, networks="none")["id"]
    member.action(server, {"os-stop": None})
    member.wait_for_status(server, "SHUTOFF")
    assert attach(member, server, net_id=network).status == 200
    cloud.idle()
    assert list(ports(member, server).values()) == ["DOWN"], "no process is plugged into it"
    member.action(server, {"os-start": None})
    member.wait_for_status(server, "ACTIVE")
    assert list(ports(member, server).values()) == ["ACTIVE"]
    member.action(server, {"suspend": None})
    member.wait_for_status(server, "SUSPENDED")
    refused = attach(member, server, net_id=network)
    assert refused.status == 409
    assert "vm_state suspended" in refused["conflictingRequest"]["message"]


def test_a_paused_server_keeps_its_port(cloud: TestCloud, member: Client, network: str) -> None:
    server = create(member, networks="none")["id"]
    port = attach(member, server, net_id=network)["interfaceAttachment"]["port_id"]
    working(member, server, 1)
    member.action(server, {"pause": None})
    member.wait_for_status(server, "PAUSED")
    assert member.compute("DELETE", f"/servers/{server}/os-interface/{port}").status == 202
    cloud.idle()
    path = f"/servers/{server}/os-instance-actions"
    newest = member.compute("GET", path)["instanceActions"][0]
    assert (newest["action"], newest["message"]) == ("detach_interface", "Error")
    assert ports(member, server) == {port: "ACTIVE"}
    assert member.action(server, {"unpause": None}).status == 202
    member.wait_for_status(server, "ACTIVE")
    detach(member, server, port)
    assert plugged(cloud, server) == ()


def test_a_server_has_a_bounded_number_of_ports(member: Client, network: str) -> None:
    server = create(member, networks="none")["id"]
    for count in range(1, MOST_NICS + 1):
        assert attach(member, server, net_id=network).status == 200
        working(member, server, count)
    assert attach(member, server, net_id=network).status == 400
    detach(member, server, next(iter(ports(member, server))))
    assert attach(member, server, net_id=network).status == 200


def test_an_evacuated_server_keeps_what_was_plugged_in(cloud: TestCloud, member: Client, network: str) -> None:
    """An evacuation describes the guest anew, from its ports."""
    admin = cloud.persona("admin")
    server = create(member, networks="none")["id"]
    attach(member, server, net_id=network)
    member.wait("the port to work", lambda: list(ports(member, server).values()) == ["ACTIVE"])
    source = admin.server(server)["OS-EXT-SRV-ATTR:host"]
    services = admin.compute("GET", f"/os-services?binary=nova-compute&host={source}")["services"]
    admin.compute("PUT", f"/os-services/{services[0]['id']}", {"forced_down": True})
    assert admin.action(server, {"evacuate": {}}, version="2.94").status == 200
    admin.wait("the evacuation", lambda: admin.server(server)["OS-EXT-SRV-ATTR:host"] != source)
    admin.wait_for_status(server, "ACTIVE")
    assert list(ports(member, server).values()) == ["ACTIVE"]
    admin.compute("PUT", f"/os-services/{services[0]['id']}", {"forced_down": False})


def test_a_port_that_is_deleted_in_network_is_pulled_out_of_its_guest(cloud: TestCloud, network: str) -> None:
    member = cloud.persona("member")
    server = create(member, networks="none")["id"]
    port = attach(member, server, net_id=network)["interfaceAttachment"]["port_id"]
    working(member, server, 1)
    admin = cloud.persona("admin")
    assert admin.request("DELETE", f"/network/v2.0/ports/{port}").status == 204
    cloud.idle()
    cloud.reconcile()
    admin.action(server, {"os-migrateLive": {"host": None, "block_migration": "auto"}})
    admin.wait_for_status(server, "ACTIVE")
    moves = admin.compute("GET", f"/os-migrations?instance_uuid={server}")["migrations"]
    assert [move["status"] for move in moves] == ["completed"]
    assert ports(member, server) == {}


@pytest.mark.parametrize(("begin", "end"), [("rescue", "unrescue"), ("suspend", "resume")])
def test_a_port_that_is_deleted_meanwhile_is_pulled_out_where_and_as_soon_as_that_can_be(
    cloud: TestCloud, network: str, begin: str, end: str
) -> None:
    """The devices of a suspended guest cannot change."""
    member = cloud.persona("member")
    server = create(member, networks="none")["id"]
    port = attach(member, server, net_id=network)["interfaceAttachment"]["port_id"]
    working(member, server, 1)
    assert member.action(server, {begin: None}).status in (200, 202)
    member.wait_for_status(server, {"rescue": "RESCUE", "suspend": "SUSPENDED"}[begin])
    assert cloud.persona("admin").request("DELETE", f"/network/v2.0/ports/{port}").status == 204
    cloud.idle()
    cloud.reconcile()
    assert plugged(cloud, server) == {"rescue": (), "suspend": (port,)}[begin]
    assert member.action(server, {end: None}).status == 202
    member.wait_for_status(server, "ACTIVE")
    cloud.idle()
    cloud.reconcile()
    assert plugged(cloud, server) == ()


def plugged(cloud: TestCloud, server: str) -> tuple[str, ...]:
    """The ports that its guest has, as its host says."""
    reports = cloud.await_(cloud.embedded.hosts.guests(cloud.persona("admin").server(server)["OS-EXT-SRV-ATTR:host"]))
    return next(report.ports or () for report in reports if report.server_id == server)


# Upstream's, as `VNIC_TYPES` of neutron-lib has them.
KINDS = (
    "direct",
    "macvtap",
    "baremetal",
    "direct-physical",
    "virtio-forwarder",
    "smart-nic",
    "vdpa",
    "accelerator-direct",
    "accelerator-direct-physical",
    "remote-managed",
)


def test_the_kinds_of_nic_are_upstreams() -> None:
    assert sorted(get_args(VnicType)) == sorted(["normal", *KINDS])


@pytest.mark.parametrize("kind", KINDS)
def test_a_port_of_a_kind_that_no_host_has_is_for_no_server(
    admin: Client, member: Client, network: str, kind: str
) -> None:
    wanted = {"network_id": network, "binding:vnic_type": kind}
    port = member.request("POST", "/network/v2.0/ports", {"port": wanted})["port"]["id"]
    server = create(member, networks="none")["id"]
    refused = attach(member, server, port_id=port)
    assert (refused.status, refused["badRequest"]["message"]) == (
        400,
        f"No host has a NIC of type {kind} for the port {port}.",
    )
    assert ports(member, server) == {}
    asked = ask_for(member, networks=[{"port": port}])["server"]["id"]
    member.wait_for_status(asked, "ERROR")
    details = admin.server(asked)["fault"]["details"]
    assert f"host1: VNIC_TYPE_NOT_KEPT ({kind})" in details
    bound = admin.request("PUT", f"/network/v2.0/ports/{port}", {"port": {"binding:host_id": "host1"}})["port"]
    assert (bound["device_id"], bound["binding:vif_type"]) == ("", "binding_failed")
