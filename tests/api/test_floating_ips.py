"""Floating IPs: of which addresses, and on how many external networks."""

from __future__ import annotations

from cumulet.testing import Client
from tests.api.test_network_stories import call, make, network_with_subnet, public


def outside(admin: Client, name: str, *cidrs: str) -> str:
    """Another external network; its id."""
    answer = call(admin, "POST", "/networks", {"network": {"name": name, "router:external": True}})
    network: str = answer["network"]["id"]
    for cidr in cidrs:
        make(admin, "subnet", network_id=network, ip_version=6 if ":" in cidr else 4, cidr=cidr)
    return network


def test_a_floating_ip_takes_one_address_also_where_the_outside_has_both_versions(
    admin: Client, member: Client
) -> None:
    external = outside(admin, "both", "198.51.100.0/24", "2001:db8:7::/64")
    floating = make(member, "floatingip", floating_network_id=external)["floating_ip_address"]
    (port,) = call(admin, "GET", f"/ports?network_id={external}")["ports"]
    assert [fixed["ip_address"] for fixed in port["fixed_ips"]] == [floating]
    assert floating.startswith("198.51.100.")


def test_an_address_has_a_floating_ip_on_each_external_network_that_it_reaches(admin: Client, member: Client) -> None:
    network_id, _ = network_with_subnet(member)
    inside = make(member, "port", network_id=network_id)["id"]
    externals = public(member), outside(admin, "second", "198.51.100.0/24")
    for external in externals:
        router = make(member, "router", external_gateway_info={"network_id": external})["id"]
        way = {"port_id": make(member, "port", network_id=network_id)["id"]}
        assert call(member, "PUT", f"/routers/{router}/add_router_interface", way).status == 200
    made = [make(member, "floatingip", floating_network_id=external, port_id=inside) for external in externals]
    assert len({floating["router_id"] for floating in made}) == 2
    assert {floating["status"] for floating in made} == {"ACTIVE"}
    for external in externals:
        again = {"floating_network_id": external, "port_id": inside}
        refused = call(member, "POST", "/floatingips", {"floatingip": again})
        assert (refused.status, refused["NeutronError"]["type"]) == (409, "FloatingIPPortAlreadyAssociated")
