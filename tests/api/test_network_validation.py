"""What subnets, ports, routers and floating IPs may be: each rule with a value it takes and values it refuses.

The answers are Neutron's own: the same requests were put to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from cumulet.network import addresses
from cumulet.testing import Client, JsonObject
from tests.api.test_network_stories import UNKNOWN, call, make, network_with_subnet, public

V4, V6 = "10.0.0.0/24", "fd00::/64"


def pool(start: str, end: str) -> dict[str, str]:
    return {"start": start, "end": end}


def kind_of(answer: Any) -> str | None:
    error = answer.json.get("NeutronError") if isinstance(answer.json, dict) else None
    return None if error is None else error["type"]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"cidr": V4}, ("10.0.0.1", [pool("10.0.0.2", "10.0.0.254")])),
        ({"cidr": V4, "gateway_ip": None}, (None, [pool("10.0.0.1", "10.0.0.254")])),
        (
            {"cidr": V4, "gateway_ip": "10.0.0.7"},
            ("10.0.0.7", [pool("10.0.0.1", "10.0.0.6"), pool("10.0.0.8", "10.0.0.254")]),
        ),
        ({"cidr": V4, "allocation_pools": []}, ("10.0.0.1", [pool("10.0.0.2", "10.0.0.254")])),
        ({"cidr": V4, "allocation_pools": None}, ("10.0.0.1", [pool("10.0.0.2", "10.0.0.254")])),
        ({"cidr": "10.0.0.0/30"}, ("10.0.0.1", [pool("10.0.0.2", "10.0.0.2")])),
        ({"cidr": "10.0.0.0/31", "enable_dhcp": False, "gateway_ip": None}, (None, [pool("10.0.0.0", "10.0.0.1")])),
        ({"cidr": "10.0.0.5", "enable_dhcp": False}, ("10.0.0.6", [pool("10.0.0.5", "10.0.0.5")])),
        ({"cidr": "169.254.0.0/24"}, ("169.254.0.1", [pool("169.254.0.2", "169.254.0.254")])),
        ({"cidr": "224.0.0.0/30", "enable_dhcp": False}, ("224.0.0.1", [pool("224.0.0.2", "224.0.0.2")])),
        ({"cidr": V6}, ("fd00::", [pool("fd00::1", "fd00::ffff:ffff:ffff:ffff")])),
        ({"cidr": "fd00::/126", "gateway_ip": "fd00::1"}, ("fd00::1", [pool("fd00::2", "fd00::3")])),
        ({"cidr": V6, "gateway_ip": "fe80::1"}, ("fe80::1", [pool("fd00::1", "fd00::ffff:ffff:ffff:ffff")])),
    ],
)
def test_a_subnets_gateway_and_pools_follow_from_its_range(
    member: Client, attributes: JsonObject, expected: tuple[str | None, list[dict[str, str]]]
) -> None:
    version = 6 if ":" in attributes["cidr"] else 4
    subnet = make(member, "subnet", network_id=make(member, "network")["id"], ip_version=version, **attributes)
    assert (subnet["gateway_ip"], subnet["allocation_pools"]) == expected


@pytest.mark.parametrize(
    ("attributes", "status", "kind"),
    [
        ({"allocation_pools": [pool("10.0.0.0", "10.0.0.9")]}, 400, "OutOfBoundsAllocationPool"),
        ({"allocation_pools": [pool("10.0.0.2", "10.0.0.255")]}, 400, "OutOfBoundsAllocationPool"),
        ({"allocation_pools": [pool("10.0.0.2", "10.0.1.2")]}, 400, "OutOfBoundsAllocationPool"),
        ({"allocation_pools": [pool("10.0.0.1", "10.0.0.9")]}, 409, "GatewayConflictWithAllocationPools"),
        ({"allocation_pools": [pool("10.0.0.9", "10.0.0.2")]}, 400, "InvalidAllocationPool"),
        ({"allocation_pools": [pool("fd00::2", "fd00::9")]}, 400, "InvalidAllocationPool"),
        (
            {"allocation_pools": [pool("10.0.0.2", "10.0.0.9"), pool("10.0.0.9", "10.0.0.20")]},
            409,
            "OverlappingAllocationPools",
        ),
        ({"gateway_ip": "10.0.0.0"}, 400, "InvalidInput"),
        ({"gateway_ip": "10.0.0.255"}, 400, "InvalidInput"),
        ({"gateway_ip": "fd00::1"}, 400, "InvalidInput"),
        ({"dns_nameservers": ["::1"]}, 400, "InvalidInput"),
        ({"dns_nameservers": ["1.1.1.1", "1.1.1.1"]}, 400, None),
        ({"host_routes": [{"destination": "fd00::/8", "nexthop": "10.0.0.9"}]}, 400, "InvalidInput"),
        ({"host_routes": [{"destination": "11.0.0.0/8", "nexthop": "fd00::9"}]}, 400, "InvalidInput"),
        ({"host_routes": [{"destination": "11.0.0.7/8", "nexthop": "10.0.0.9"}]}, 400, None),
        ({"ipv6_ra_mode": "slaac"}, 400, "InvalidInput"),
        ({"cidr": "10.0.0.0/31"}, 400, "InvalidInput"),
        ({"cidr": "10.0.0.0/31", "enable_dhcp": False}, 409, "IpamValueInvalid"),
        ({"cidr": "10.0.0.0/32"}, 400, "InvalidInput"),
        ({"cidr": "0.0.0.0/8"}, 400, "InvalidInput"),
        ({"cidr": "127.0.0.0/8"}, 400, "InvalidInput"),
        ({"cidr": "224.0.0.0/24"}, 400, "InvalidInput"),
        ({"cidr": "0.0.0.0/0", "enable_dhcp": False}, 400, "InvalidInput"),
        ({"cidr": "::/64", "ip_version": 6}, 400, "InvalidInput"),
        (
            {"cidr": V6, "ip_version": 6, "allocation_pools": [pool("fd00::", "fd00::9")]},
            400,
            "OutOfBoundsAllocationPool",
        ),
        ({"cidr": "fd00::/80", "ip_version": 6, "ipv6_ra_mode": "slaac"}, 400, "InvalidInput"),
        ({"cidr": V6, "ip_version": 6, "ipv6_ra_mode": "slaac", "enable_dhcp": False}, 400, "InvalidInput"),
    ],
)
def test_an_impossible_subnet_is_refused(member: Client, attributes: JsonObject, status: int, kind: str | None) -> None:
    network_id = make(member, "network")["id"]
    body = {"subnet": {"network_id": network_id, "ip_version": 4, "cidr": V4} | attributes}
    refused = call(member, "POST", "/subnets", body)
    assert refused.status == status, refused.text
    assert kind in (None, kind_of(refused))
    assert call(member, "GET", f"/subnets?network_id={network_id}")["subnets"] == []


@pytest.mark.parametrize(
    ("attributes", "status"),
    [
        ({"allocation_pools": [pool("10.1.0.2", "10.1.0.255")]}, 400),
        ({"allocation_pools": [pool("10.1.0.1", "10.1.0.9")]}, 409),
        ({"allocation_pools": []}, 200),
        ({"gateway_ip": "10.1.0.9"}, 409),
        ({"gateway_ip": "10.1.0.255"}, 400),
        ({"gateway_ip": None}, 200),
        ({"dns_nameservers": ["::1"]}, 400),
        ({"host_routes": [{"destination": "fd00::/8", "nexthop": "10.1.0.9"}]}, 400),
    ],
)
def test_a_changed_subnet_keeps_the_same_rules(member: Client, attributes: Mapping[str, object], status: int) -> None:
    _, subnet_id = network_with_subnet(member)
    assert call(member, "PUT", f"/subnets/{subnet_id}", {"subnet": attributes}).status == status


def test_packets_too_short_for_ip_are_refused_on_either_side(member: Client) -> None:
    narrow = make(member, "network", mtu=1000)["id"]
    v6 = {"subnet": {"network_id": narrow, "ip_version": 6, "cidr": V6}}
    assert kind_of(call(member, "POST", "/subnets", v6)) == "NetworkMTUSubnetConflict"
    make(member, "subnet", network_id=narrow, ip_version=4, cidr=V4)
    assert call(member, "PUT", f"/networks/{narrow}", {"network": {"mtu": 67}}).status == 409
    assert call(member, "PUT", f"/networks/{narrow}", {"network": {"mtu": 68}}).status == 200


def slaac_network(client: Client) -> tuple[str, str, str]:
    """A network with a subnet of each version, and the two subnets; that of IPv6 is automatically addressed."""
    network_id, v4 = network_with_subnet(client)
    modes = {"ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}
    v6 = make(client, "subnet", network_id=network_id, ip_version=6, cidr=V6, **modes)["id"]
    return network_id, v4, v6


def addresses_of(port: JsonObject) -> list[str]:
    return [fixed["ip_address"] for fixed in port["fixed_ips"]]


def test_in_an_automatic_subnet_every_port_has_the_address_its_guest_will_give_itself(admin: Client) -> None:
    network_id, v4, v6 = slaac_network(admin)
    mac, other_mac = "fa:16:3e:00:00:01", "fa:16:3e:00:00:02"
    own, others = (addresses.eui64_address(V6, one) for one in (mac, other_mac))
    for number, wanted in enumerate(([{"subnet_id": v6}], [], [{"ip_address": own}])):
        port = make(admin, "port", network_id=network_id, mac_address=mac, fixed_ips=wanted)
        assert addresses_of(port) == [own], f"wanted {number}"
        assert call(admin, "DELETE", f"/ports/{port['id']}").status == 204
    chosen = {"network_id": network_id, "fixed_ips": [{"subnet_id": v6, "ip_address": "fd00::1234"}]}
    assert kind_of(call(admin, "POST", "/ports", {"port": chosen})) == "AllocationOnAutoAddressSubnet"

    port = make(admin, "port", network_id=network_id, mac_address=mac, fixed_ips=[{"subnet_id": v4}])
    path, (v4_address, _) = f"/ports/{port['id']}", addresses_of(port)
    assert addresses_of(port)[1] == own

    def changed(**attributes: object) -> list[str]:
        return addresses_of(call(admin, "PUT", path, {"port": attributes})["port"])

    assert changed(fixed_ips=[]) == [own]
    assert changed(fixed_ips=[{"ip_address": v4_address}]) == [v4_address, own]
    assert changed(mac_address=other_mac) == [v4_address, others]
    assert changed(fixed_ips=[{"subnet_id": v6, "delete_subnet": True}]) == []
    assert changed(fixed_ips=[{"subnet_id": v6}]) == [others]


@pytest.mark.parametrize(
    ("wanted", "status", "kind"),
    [
        ([{"ip_address": "10.1.0.0"}], 400, "InvalidIpForNetwork"),
        ([{"ip_address": "10.1.0.255"}], 400, "InvalidIpForNetwork"),
        ([{"ip_address": "10.9.0.5"}], 400, "InvalidIpForNetwork"),
        ([{"subnet_id": UNKNOWN}], 404, "SubnetNotFound"),
        ([{}], 400, "InvalidInput"),
        (None, 400, None),
    ],
)
def test_an_address_that_no_port_can_have_is_refused(
    member: Client, wanted: object, status: int, kind: str | None
) -> None:
    network_id, _ = network_with_subnet(member)
    refused = call(member, "POST", "/ports", {"port": {"network_id": network_id, "fixed_ips": wanted}})
    assert refused.status == status, refused.text
    assert kind in (None, kind_of(refused))


def test_another_projects_subnet_is_answered_like_an_unknown_one(member: Client, other_member: Client) -> None:
    network_id, _ = network_with_subnet(member)
    _, foreign = network_with_subnet(other_member)
    answers = [
        call(member, "POST", "/ports", {"port": {"network_id": network_id, "fixed_ips": [{"subnet_id": one}]}})
        for one in (foreign, UNKNOWN)
    ]
    texts = {answer.text.replace(foreign, UNKNOWN) for answer in answers}
    assert ({answer.status for answer in answers}, len(texts)) == ({404}, 1)


def test_what_an_address_pair_and_a_name_may_be(member: Client) -> None:
    network_id, _ = network_with_subnet(member)

    def status(**attributes: object) -> int:
        return call(member, "POST", "/ports", {"port": {"network_id": network_id} | attributes}).status

    def pairs(*texts: str) -> int:
        return status(allowed_address_pairs=[{"ip_address": text} for text in texts])

    assert [pairs("10.7.0.1"), pairs("0.0.0.0/0"), pairs("10.7.0.1/24")] == [201] * 3
    assert [pairs("224.0.0.1"), pairs("224.0.0.0/4"), pairs("ff02::1"), pairs("128.0.0.0/1")] == [400] * 4
    assert pairs("fd00::1", "FD00:0::1") == 400
    names = {"host": 201, "a.example.org.": 201, "UPPER": 201, "-x": 400, "x_y": 400, "a.1": 400, "x" * 64: 400}
    assert {name: status(dns_name=name) for name in names} == names


def routed(client: Client) -> tuple[str, str, str]:
    """A network, its subnet and the router that connects it to the outside."""
    network_id, subnet_id = network_with_subnet(client)
    router = make(client, "router", external_gateway_info={"network_id": public(client)})["id"]
    assert call(client, "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet_id}).status == 200
    return network_id, subnet_id, router


def test_the_addresses_that_a_router_or_a_floating_ip_needs_stay(member: Client, admin: Client) -> None:
    network_id, subnet_id, router = routed(member)
    port = make(member, "port", network_id=network_id)
    floating = make(member, "floatingip", floating_network_id=public(member), port_id=port["id"])
    path, (held,) = f"/ports/{port['id']}", addresses_of(port)
    for wanted in ([{"ip_address": "10.1.0.99"}], []):
        refused = call(member, "PUT", path, {"port": {"fixed_ips": wanted}})
        assert (refused.status, kind_of(refused)) == (400, "BadRequest")
    both = [{"ip_address": held}, {"ip_address": "10.1.0.99"}]
    assert addresses_of(call(member, "PUT", path, {"port": {"fixed_ips": both}})["port"]) == [held, "10.1.0.99"]
    shown = call(member, "GET", f"/floatingips/{floating['id']}")["floatingip"]
    assert (shown["port_id"], shown["fixed_ip_address"]) == (port["id"], held)

    without: dict[str, str | None] = {"fixed_ip_address": held}
    for nowhere in (without, without | {"port_id": None}):
        refused = call(member, "PUT", f"/floatingips/{floating['id']}", {"floatingip": nowhere})
        assert (refused.status, kind_of(refused)) == (400, "BadRequest")
        assert "fixed_ip_address cannot be specified without a port_id." in refused.text
    shown = call(member, "GET", f"/floatingips/{floating['id']}")["floatingip"]
    assert (shown["port_id"], shown["fixed_ip_address"]) == (port["id"], held)

    (interface,) = call(member, "GET", f"/ports?device_id={router}&network_id={network_id}")["ports"]
    for client in (member, admin):
        wanted = [{"subnet_id": subnet_id, "ip_address": "10.1.0.98"}]
        refused = call(client, "PUT", f"/ports/{interface['id']}", {"port": {"fixed_ips": wanted}})
        assert (refused.status, kind_of(refused)) == (400, "BadRequest")
    same = [{"subnet_id": subnet_id, "ip_address": "10.1.0.1"}]
    assert call(member, "PUT", f"/ports/{interface['id']}", {"port": {"fixed_ips": same}}).status == 200


def test_a_router_has_one_interface_for_all_ipv6_ranges_of_a_network(member: Client) -> None:
    network_id, _, router = routed(member)
    first, second = (
        make(member, "subnet", network_id=network_id, ip_version=6, cidr=cidr)["id"] for cidr in (V6, "fd02::/64")
    )

    def interface(verb: str, subnet_id: str) -> str:
        answer = call(member, "PUT", f"/routers/{router}/{verb}_router_interface", {"subnet_id": subnet_id})
        assert answer.status == 200, answer.text
        port_id: str = answer["port_id"]
        return port_id

    port_id = interface("add", first)
    assert interface("add", second) == port_id
    assert addresses_of(call(member, "GET", f"/ports/{port_id}")["port"]) == ["fd00::", "fd02::"]
    assert interface("remove", first) == port_id
    assert addresses_of(call(member, "GET", f"/ports/{port_id}")["port"]) == ["fd02::"]
    interface("remove", second)
    assert call(member, "GET", f"/ports/{port_id}").status == 404


def test_what_a_router_cannot_tell_apart_is_refused(member: Client, admin: Client) -> None:
    _, _, router = routed(member)
    outside = call(admin, "GET", f"/subnets?network_id={public(admin)}&ip_version=4")["subnets"][0]
    path = f"/routers/{router}/add_router_interface"
    for cidr in ("10.1.0.128/25", outside["cidr"]):
        _, subnet_id = network_with_subnet(member, cidr)
        assert kind_of(call(member, "PUT", path, {"subnet_id": subnet_id})) == "BadRequest"
    gateways_own = {"network_id": public(admin), "external_fixed_ips": [{"ip_address": outside["gateway_ip"]}]}
    refused = call(admin, "POST", "/routers", {"router": {"external_gateway_info": gateways_own}})
    assert (refused.status, kind_of(refused)) == (400, "BadRequest")


def test_whether_a_router_is_highly_available_is_on_record(admin: Client, member: Client) -> None:
    assert call(member, "POST", "/routers", {"router": {"ha": True}}).status == 403
    router = make(admin, "router", ha=True)
    path = f"/routers/{router['id']}"
    assert router["ha"] is True
    assert [one["id"] for one in call(admin, "GET", "/routers?ha=true")["routers"]] == [router["id"]]
    refused = call(admin, "PUT", path, {"router": {"ha": False}})
    assert (refused.status, kind_of(refused)) == (400, "BadRequest")
    stopped = call(admin, "PUT", path, {"router": {"admin_state_up": False}})
    assert stopped.status == 200
    assert call(admin, "PUT", path, {"router": {"ha": False}})["router"]["ha"] is False


def test_a_pair_without_a_mac_has_the_one_that_its_port_gets(admin: Client, member: Client) -> None:
    port = make(member, "port", network_id=network_with_subnet(member)[0])["id"]
    wanted = {"mac_address": "fa:16:3e:00:00:77", "allowed_address_pairs": [{"ip_address": "10.9.9.9"}]}
    changed = call(admin, "PUT", f"/ports/{port}", {"port": wanted})["port"]
    assert changed["allowed_address_pairs"] == [{"ip_address": "10.9.9.9", "mac_address": "fa:16:3e:00:00:77"}]
