"""`cloud.network.reachable`: the rule that decided, and which hop stopped a packet."""

from __future__ import annotations

import pytest

from cumulet.compute.hosts import all_hosts
from cumulet.compute.packet_path import follow
from cumulet.host.verdict import UDP, Packet
from cumulet.testing import Client, TestCloud
from tests.api.test_compute_servers import create


def made(client: Client, kind: str, **attributes: object) -> str:
    answer = client.request("POST", f"/network/v2.0/{kind.replace('_', '-')}s", {kind: attributes})
    assert answer.status == 201, answer.text
    identifier: str = answer[kind]["id"]
    return identifier


def port_of(client: Client, network: str, **attributes: object) -> str:
    server = create(client, networks=[{"uuid": network}], **attributes)["id"]
    answer = client.compute("GET", f"/servers/{server}/os-interface")
    port: str = answer["interfaceAttachments"][0]["port_id"]
    return port


def test_a_rule_lets_packets_in_and_its_end_keeps_them_out(cloud: TestCloud, member: Client) -> None:
    network = made(member, "network", name="n")
    made(member, "subnet", network_id=network, cidr="10.8.0.0/24", ip_version=4)
    group = made(member, "security_group", name="web")
    web = port_of(member, network, security_groups=[{"name": "web"}])
    client = port_of(member, network)
    closed = cloud.network.reachable(client, web, "tcp", 22)
    assert (bool(closed), closed.reason, closed.rule) == (False, "no-rule-ingress", None)
    assert [hop.verdict.passes for hop in closed.hops] == [True, False], "it may leave, and not come in"
    rule = made(
        member,
        "security_group_rule",
        security_group_id=group,
        direction="ingress",
        protocol="tcp",
        port_range_min=22,
        port_range_max=22,
    )
    opened = cloud.network.reachable(client, web, "tcp", 22)
    assert opened
    assert opened.rule == rule
    assert not cloud.network.reachable(client, web, "tcp", 23)
    assert not cloud.network.reachable(client, web, "icmp")
    member.request("DELETE", f"/network/v2.0/security-group-rules/{rule}")
    assert not cloud.network.reachable(client, web, "tcp", 22)


def routed(client: Client, *subnets: str, outside: bool = False) -> str:
    """A router that joins these subnets, with a way out where it has one."""
    router = made(client, "router", name="r")
    for subnet in subnets:
        path = f"/network/v2.0/routers/{router}/add_router_interface"
        assert client.request("PUT", path, {"subnet_id": subnet}).status == 200
    if outside:
        public = client.request("GET", "/network/v2.0/networks?router:external=true")["networks"][0]["id"]
        gateway = {"router": {"external_gateway_info": {"network_id": public}}}
        assert client.request("PUT", f"/network/v2.0/routers/{router}", gateway).status == 200
    return router


def test_what_no_packet_can_do_is_said(cloud: TestCloud, member: Client) -> None:
    one, two = made(member, "network", name="one"), made(member, "network", name="two")
    first = made(member, "subnet", network_id=one, cidr="10.8.0.0/24", ip_version=4)
    second = made(member, "subnet", network_id=two, cidr="10.8.1.0/24", ip_version=4)
    here, there = port_of(member, one), port_of(member, two)
    assert cloud.network.reachable(here, there, "tcp", 22).reason == "address-of-nobody", "there is no router"
    router = routed(member, first, second)
    assert [hop.at for hop in cloud.network.reachable(here, there, "tcp", 22).hops] == ["sender", "router", "receiver"]
    member.request("PUT", f"/network/v2.0/routers/{router}", {"router": {"admin_state_up": False}})
    assert cloud.network.reachable(here, there, "tcp", 22).reason == "router-down"
    assert cloud.network.reachable(here, "10.8.0.77", "icmp").reason == "address-of-nobody"
    unplugged = made(member, "port", network_id=one)
    assert cloud.network.reachable(here, unplugged, "tcp", 22).reason == "plugged-in-nowhere"
    from_outside = cloud.network.reachable("192.0.2.7", here, "tcp", 22)
    assert (from_outside.reason, from_outside.hops[0].packet.destination) == ("no-floating-ip", "")
    assert cloud.network.reachable(here, "2001:db8::7", "tcp", 22).reason == "no-common-ip-version"
    member.request("PUT", f"/network/v2.0/ports/{there}", {"port": {"admin_state_up": False}})
    assert cloud.network.reachable(there, here, "icmp").reason == "port-down"
    with pytest.raises(KeyError):
        cloud.network.reachable(here, "00000000-0000-4000-8000-000000000000", "tcp", 22)
    with pytest.raises(ValueError, match="needs a port"):
        cloud.network.reachable(here, unplugged, "tcp")


def test_tenants_with_the_same_addresses_do_not_reach_each_other(cloud: TestCloud, member: Client) -> None:
    other = cloud.persona("other_member")
    ends = []
    for client in (member, other):
        network = made(client, "network", name="same")
        subnet = made(client, "subnet", network_id=network, cidr="10.7.0.0/24", ip_version=4)
        routed(client, subnet, outside=True)
        ends += [port_of(client, network), port_of(client, network)]
    ours, ours_too, theirs, theirs_too = ends
    assert cloud.network.reachable(ours, ours_too, "icmp"), "of one default group"
    assert cloud.network.reachable(theirs, theirs_too, "icmp")
    for one, another in ((ours, theirs), (ours, theirs_too), (theirs_too, ours)):
        # What the other has as its address is an address of one's own network too.
        assert cloud.network.reachable(one, another, "icmp").reason in ("address-of-another-port", "its-own-address")


def test_a_server_that_is_off_gets_no_packet(cloud: TestCloud, member: Client) -> None:
    network = made(member, "network", name="off")
    made(member, "subnet", network_id=network, cidr="10.6.0.0/24", ip_version=4)
    one, two = port_of(member, network), port_of(member, network)
    server = member.request("GET", f"/network/v2.0/ports/{two}")["port"]["device_id"]
    assert cloud.network.reachable(one, two, "icmp")
    member.compute("POST", f"/servers/{server}/action", {"os-stop": None})
    member.wait_for_status(server, "SHUTOFF")
    assert cloud.network.reachable(one, two, "icmp").reason == "not-plugged"


def test_floating_ips_and_forwarded_ports_lead_in_and_source_nat_out(cloud: TestCloud, member: Client) -> None:
    network = made(member, "network", name="out")
    subnet = made(member, "subnet", network_id=network, cidr="10.5.0.0/24", ip_version=4)
    routed(member, subnet, outside=True)
    web, client = port_of(member, network), port_of(member, network)
    group = member.request("GET", f"/network/v2.0/ports/{web}")["port"]["security_groups"][0]
    out = cloud.network.reachable(web, "192.0.2.7", "udp", 53)
    assert out
    assert [hop.at for hop in out.hops] == ["sender", "router", "outside"]
    assert out.hops[-1].packet.source.startswith("172.24.4."), "it is seen as the router"
    assert cloud.network.reachable("192.0.2.7", web, "tcp", 22).reason == "no-floating-ip"
    public = member.request("GET", "/network/v2.0/networks?router:external=true")["networks"][0]["id"]
    floating = member.request(
        "POST", "/network/v2.0/floatingips", {"floatingip": {"floating_network_id": public, "port_id": web}}
    )["floatingip"]
    address = floating["floating_ip_address"]
    assert cloud.network.reachable(web, "192.0.2.7", "udp", 53).hops[-1].packet.source == address
    assert cloud.network.reachable("192.0.2.7", web, "tcp", 22).reason == "no-rule-ingress"
    rule = made(member, "security_group_rule", security_group_id=group, direction="ingress", protocol="tcp")
    for end in (web, address):
        come = cloud.network.reachable("192.0.2.7", end, "tcp", 22)
        assert come
        assert come.rule == rule
        assert [hop.at for hop in come.hops] == ["outside", "router", "receiver"]
    inside = cloud.network.reachable(client, address, "tcp", 22)
    assert inside
    assert inside.hops[-1].packet.source.startswith("172.24.4."), "the answer has to come back through the router"
    member.request("PUT", f"/network/v2.0/floatingips/{floating['id']}", {"floatingip": {"port_id": None}})
    assert cloud.network.reachable("192.0.2.7", address, "tcp", 22).reason == "floating-ip-leads-nowhere"
    forwarding = {"protocol": "tcp", "external_port": 2222, "internal_port": 22, "internal_port_id": client}
    forwarding["internal_ip_address"] = address_of(member, client)
    path = f"/network/v2.0/floatingips/{floating['id']}/port_forwardings"
    assert member.request("POST", path, {"port_forwarding": forwarding}).status == 201
    forwarded = cloud.network.reachable("192.0.2.7", client, "tcp", 2222)
    assert forwarded
    assert forwarded.hops[-1].packet.destination_port == 22
    assert cloud.network.reachable("192.0.2.7", address, "tcp", 2223).reason == "router-answers-pings-only"
    assert cloud.network.reachable("192.0.2.7", address, "icmp").reason == "the-router-itself"


def test_from_outside_an_address_of_an_external_network_is_reached_and_one_of_another_network_is_not(
    cloud: TestCloud, member: Client
) -> None:
    admin = cloud.persona("admin")
    public = admin.request("GET", "/network/v2.0/networks?router:external=true")["networks"][0]["id"]
    open_to_all = {"port_security_enabled": False, "security_groups": []}
    there = made(admin, "port", network_id=public, **open_to_all)
    create(admin, networks=[{"port": there}])
    come = cloud.network.reachable("192.0.2.7", there, "tcp", 22)
    assert (bool(come), come.reason) == (True, "no-port-security")
    assert [hop.at for hop in come.hops] == ["outside", "receiver"]
    network = made(member, "network", name="six")
    made(member, "subnet", network_id=network, cidr="2001:db8:6::/64", ip_version=6)
    within = port_of(member, network)
    for end in (within, address_of(member, within)):
        assert cloud.network.reachable("2001:db8::7", end, "icmp").reason == "no-way-in"
    assert cloud.network.reachable("192.0.2.7", "172.24.4.250", "icmp").reason == "address-of-nobody"


def address_of(client: Client, port: str) -> str:
    found: str = client.request("GET", f"/network/v2.0/ports/{port}")["port"]["fixed_ips"][0]["ip_address"]
    return found


def test_what_hosts_answer_for_their_own_guests_comes_to_no_guest_through_a_router(
    cloud: TestCloud, member: Client
) -> None:
    """As hosts' rules have it: a forwarded port that leads elsewhere does not make a DHCP request another packet."""
    network = made(member, "network", name="dhcp")
    subnet = made(member, "subnet", network_id=network, cidr="10.4.0.0/24", ip_version=4)
    routed(member, subnet, outside=True)
    port = port_of(member, network)
    public = member.request("GET", "/network/v2.0/networks?router:external=true")["networks"][0]["id"]
    wanted = {"floatingip": {"floating_network_id": public, "port_id": port}}
    outside = member.request("POST", "/network/v2.0/floatingips", wanted)["floatingip"]["floating_ip_address"]
    for numbers, reason in (((68, 67), "host-services-stay-on-their-host"), ((68, 53), "no-rule-ingress")):
        packet = Packet(
            mac="02:00:00:00:00:01",
            source="172.24.4.1",
            destination=outside,
            protocol=UDP,
            source_port=numbers[0],
            destination_port=numbers[1],
        )
        found = cloud.embedded.db.read(lambda tx, packet=packet: follow(tx, all_hosts(tx).for_routers, None, packet))  # type: ignore[misc]
        assert (bool(found), found.reason) == (False, reason)
