"""Address scopes: pools in one do not overlap, a network is in one, and no router joins two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from cumulet.testing import Client, JsonObject, TestCloud
from tests.api.test_network_stories import UNKNOWN, call, make
from tests.api.test_rbac_policies import share, shared


def scope(client: Client, version: int = 4, **attributes: Any) -> str:
    identifier: str = make(client, "address_scope", name="s", ip_version=version, **attributes)["id"]
    return identifier


def pool(client: Client, prefix: str, address_scope: str | None) -> str:
    made = make(client, "subnetpool", name="p", prefixes=[prefix], address_scope_id=address_scope)
    assert made["address_scope_id"] == address_scope
    identifier: str = made["id"]
    return identifier


def network_of(client: Client, subnet_pool: str) -> tuple[str, str]:
    network = make(client, "network")["id"]
    subnet = make(client, "subnet", network_id=network, ip_version=4, subnetpool_id=subnet_pool, prefixlen=24)["id"]
    return network, subnet


def test_a_network_shows_the_scope_it_is_in_and_has_no_subnet_in_another(member: Client) -> None:
    ours = scope(member)
    first = pool(member, "10.0.0.0/16", ours)
    network, _ = network_of(member, first)
    shown = call(member, "GET", f"/networks/{network}")["network"]
    assert (shown["ipv4_address_scope"], shown["ipv6_address_scope"]) == (ours, None)
    apart = {"subnet": {"network_id": network, "ip_version": 4, "cidr": "192.168.0.0/24"}}
    refused = call(member, "POST", "/subnets", apart)
    assert (refused.status, refused["NeutronError"]["type"]) == (400, "NetworkAddressScopeAffinityError")
    assert call(member, "POST", "/subnets", {"subnet": new_v6(network)}).status == 201
    assert call(member, "DELETE", f"/address-scopes/{ours}").status == 409
    again = {"subnetpool": {"name": "p", "prefixes": ["10.0.128.0/17"], "address_scope_id": ours}}
    assert call(member, "POST", "/subnetpools", again)["NeutronError"]["type"] == "AddressScopePrefixConflict"
    free = pool(member, "10.0.0.0/16", None)
    into = {"subnetpool": {"address_scope_id": ours}}
    assert call(member, "PUT", f"/subnetpools/{free}", into).status == 400
    wider = {"subnetpool": {"prefixes": ["10.0.0.0/16", "10.2.0.0/16"]}}
    pool(member, "10.2.0.0/16", ours)
    assert call(member, "PUT", f"/subnetpools/{first}", wider).status == 400
    listed = call(member, "GET", f"/subnetpools?address_scope_id={ours}")["subnetpools"]
    assert len(listed) == 2


def new_v6(network: str) -> JsonObject:
    return {"network_id": network, "ip_version": 6, "cidr": "2001:db8::/64"}


def test_a_router_that_would_join_two_scopes_is_refused(member: Client) -> None:
    first, second = scope(member), scope(member)
    _, one = network_of(member, pool(member, "10.0.0.0/16", first))
    _, beside = network_of(member, pool(member, "10.1.0.0/16", first))
    apart_pool = pool(member, "10.2.0.0/16", second)
    _, apart = network_of(member, apart_pool)
    router = make(member, "router")["id"]
    path = f"/routers/{router}/add_router_interface"
    assert call(member, "PUT", path, {"subnet_id": one}).status == 200
    assert call(member, "PUT", path, {"subnet_id": beside}).status == 200
    refused = call(member, "PUT", path, {"subnet_id": apart})
    assert (refused.status, "address scopes apart" in refused.text) == (501, True)
    assert len(call(member, "GET", f"/ports?device_id={router}")["ports"]) == 2, "nothing is left of it"
    assert call(member, "PUT", f"/subnetpools/{apart_pool}", {"subnetpool": {"address_scope_id": first}}).status == 200
    assert call(member, "PUT", path, {"subnet_id": apart}).status == 200
    back = {"subnetpool": {"address_scope_id": second}}
    assert call(member, "PUT", f"/subnetpools/{apart_pool}", back).status == 501
    assert call(member, "GET", f"/subnetpools/{apart_pool}")["subnetpool"]["address_scope_id"] == first


def test_a_router_within_one_scope_may_not_translate(cloud: TestCloud) -> None:
    admin = cloud.persona("admin")
    ours = scope(admin)
    outside, _ = network_of(admin, pool(admin, "10.0.0.0/16", ours))
    call(admin, "PUT", f"/networks/{outside}", {"network": {"router:external": True}})
    _, inside = network_of(admin, pool(admin, "10.1.0.0/16", ours))
    router = make(admin, "router", external_gateway_info={"network_id": outside})["id"]
    path = f"/routers/{router}/add_router_interface"
    refused = call(admin, "PUT", path, {"subnet_id": inside})
    assert (refused.status, "enable_snat" in refused.text) == (501, True)
    plain = {"router": {"external_gateway_info": {"network_id": outside, "enable_snat": False}}}
    assert call(admin, "PUT", f"/routers/{router}", plain).status == 200
    assert call(admin, "PUT", path, {"subnet_id": inside}).status == 200


def test_another_projects_scope_is_used_only_while_it_is_shared(
    cloud: TestCloud, member: Client, other_member: Client
) -> None:
    ours = scope(member)
    wanted = {"subnetpool": {"name": "p", "prefixes": ["10.0.0.0/16"], "address_scope_id": ours}}
    assert call(other_member, "POST", "/subnetpools", wanted).status == 404
    policy = shared(member, "address_scope", ours, other_member)
    theirs = call(other_member, "POST", "/subnetpools", wanted)["subnetpool"]["id"]
    assert call(member, "DELETE", f"/rbac-policies/{policy}").status == 409
    renamed = {"subnetpool": {"name": "q"}}
    refused = call(other_member, "PUT", f"/subnetpools/{theirs}", renamed)
    assert (refused.status, refused["NeutronError"]["type"]) == (400, "IllegalSubnetPoolUpdate")
    third = cloud.persona("third_member")
    own = pool(member, "10.1.0.0/16", ours)
    assert share(member, "subnetpool", own, third).status == 409, "its scope is not the third's to use"
    of_pool = shared(member, "subnetpool", own, other_member)
    to_third = {"rbac_policy": {"target_tenant": third.project_id}}
    assert call(member, "PUT", f"/rbac-policies/{of_pool}", to_third).status == 409, "nor later"
    assert call(other_member, "DELETE", f"/subnetpools/{theirs}").status == 204
    assert call(member, "DELETE", f"/rbac-policies/{policy}").status == 204


def test_a_scope_that_is_shared_with_everybody_stays_shared(cloud: TestCloud, member: Client) -> None:
    admin = cloud.persona("admin")
    ours = scope(member)
    assert call(member, "PUT", f"/address-scopes/{ours}", {"address_scope": {"shared": True}}).status == 403
    assert call(admin, "PUT", f"/address-scopes/{ours}", {"address_scope": {"shared": True}}).status == 200
    back = call(admin, "PUT", f"/address-scopes/{ours}", {"address_scope": {"shared": False}})
    assert (back.status, back["NeutronError"]["type"]) == (400, "AddressScopeUpdateError")
    sixth = {"subnetpool": {"name": "p", "prefixes": ["2001:db8::/48"], "address_scope_id": ours}}
    assert call(member, "POST", "/subnetpools", sixth).status == 400, "it is for IPv4"


@pytest.mark.parametrize(
    "wrong", [{}, {"ip_version": 5}, {"ip_version": 4, "name": "x" * 256}, {"ip_version": 4, "description": "x"}]
)
def test_a_scope_that_cannot_be_is_refused(member: Client, wrong: Mapping[str, object]) -> None:
    assert call(member, "POST", "/address-scopes", {"address_scope": wrong}).status == 400
    assert call(member, "GET", f"/address-scopes/{UNKNOWN}").status == 404
