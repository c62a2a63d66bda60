"""What Network refuses and no story comes upon."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest

from cumulet.network import address_groups, default_rules, limits, metering_rules
from cumulet.network.bodies import MAX_TAGS
from cumulet.network.port_views import MOST_PARTS
from cumulet.testing import Answer, JsonObject
from cumulet.web.value_lists import MOST_VALUES

from .network_scene import UNKNOWN, net, public, router, without_quotas
from .table import Refusal, Scene, table

REFUSALS, refused = table()
prepare = without_quotas


@refused(400, "Invalid input for networks: one request makes 16 at most.")
def more_networks_at_once_than_one_request_makes(scene: Scene) -> Answer:
    return scene.network("POST", "/networks", {"networks": [{"name": "n"}] * 17})


@refused(409, "IpAddressGenerationFailure")
def a_port_in_a_subnet_that_is_full(scene: Scene) -> Answer:
    network, subnet = net(scene, "10.9.0.0/30")
    scene.made("port", network_id=network)
    port = {"network_id": network, "fixed_ips": [{"subnet_id": subnet}]}
    return scene.network("POST", "/ports", {"port": port})


@refused(400, "Duplicate IP address")
def a_port_with_one_address_twice(scene: Scene) -> Answer:
    network, subnet = net(scene)
    twice = [{"subnet_id": subnet, "ip_address": "10.9.0.9"}] * 2
    return scene.network("POST", "/ports", {"port": {"network_id": network, "fixed_ips": twice}})


@refused(400, "should be non-negative")
def an_mtu_below_nothing(scene: Scene) -> Answer:
    return scene.network("POST", "/networks", {"network": {"mtu": -1}})


@refused(409, "ExternalNetworkInUse")
def an_external_network_in_use_made_internal(scene: Scene) -> Answer:
    network, _ = net(scene, external=True)
    router(scene, external_gateway_info={"network_id": network})
    return scene.network("PUT", f"/networks/{network}", {"network": {"router:external": False}})


@refused(409, "DefaultExternalNetworkExists")
def a_second_default_external_network(scene: Scene) -> Answer:
    default = {"router:external": True, "is_default": True}
    first = scene.network("POST", "/networks", {"network": default})
    second = scene.network("POST", "/networks", {"network": default})
    if first.status == 201:
        assert scene.network("DELETE", f"/networks/{first['network']['id']}").status == 204
    return second


@refused(404, "AvailabilityZoneNotFound")
def a_network_in_a_zone_that_is_not(scene: Scene) -> Answer:
    return scene.network("POST", "/networks", {"network": {"availability_zone_hints": ["mars"]}})


@refused(409, "host cannot be changed")
def a_binding_to_another_host(scene: Scene) -> Answer:
    port = scene.made("port", network_id=net(scene)[0], **{"binding:host_id": "host1"})["id"]
    body = {"binding": {"host": "host2"}}
    return scene.network("PUT", f"/ports/{port}/bindings/host1", body, who=scene.cloud.persona("admin_service"))


@refused(400, "PortSecurityAndIPRequiredForSecurityGroups")
def groups_for_a_port_without_port_security(scene: Scene) -> Answer:
    group = scene.made("security_group", name=scene.new_name())["id"]
    port = {"network_id": net(scene)[0], "port_security_enabled": False, "security_groups": [group]}
    return scene.network("POST", "/ports", {"port": port})


@refused(409, "MacAddressInUse")
def a_mac_address_that_another_port_has(scene: Scene) -> Answer:
    network, _ = net(scene)
    taken = scene.made("port", network_id=network)["mac_address"]
    other = scene.made("port", network_id=network)["id"]
    return scene.network("PUT", f"/ports/{other}", {"port": {"mac_address": taken}})


@refused(409, "PortBound")
def another_mac_address_for_a_bound_port(scene: Scene) -> Answer:
    port = scene.made("port", network_id=net(scene)[0], **{"binding:host_id": "host1"})["id"]
    return scene.network("PUT", f"/ports/{port}", {"port": {"mac_address": "fa:16:3e:00:00:99"}})


@refused(409, "PortInUse")
def another_kind_of_nic_for_a_bound_port(scene: Scene) -> Answer:
    port = scene.made("port", network_id=net(scene)[0], **{"binding:host_id": "host1"})["id"]
    return scene.network("PUT", f"/ports/{port}", {"port": {"binding:vnic_type": "direct"}})


@refused(400, "QuotaMissingTenant")
def the_quota_of_no_project(scene: Scene) -> Answer:
    passwords = scene.cloud.embedded.passwords.by_user
    system = scene.cloud.login("admin", passwords["admin"], system={"all": True})
    return scene.network("GET", "/quotas/tenant", who=system)


@refused(400, "project_id. Reason: it has more than 64 characters")
def the_quota_of_a_project_whose_id_is_too_long(scene: Scene) -> Answer:
    return scene.network("PUT", f"/quotas/{'p' * 65}", {"quota": {"port": 1}})


@refused(400, "project_id. Reason: it has more than 64 characters")
def the_topology_of_a_project_whose_id_is_too_long(scene: Scene) -> Answer:
    return scene.network("GET", f"/auto-allocated-topology/{'p' * 65}")


@refused(400, "should be -1 to")
def a_limit_below_none(scene: Scene) -> Answer:
    return scene.network("PUT", f"/quotas/{UNKNOWN.replace('-', '')}", {"quota": {"port": -2}})


@refused(400, "do not match")
def a_network_of_two_projects(scene: Scene) -> Answer:
    return scene.network("POST", "/networks", {"network": {"project_id": "a" * 32, "tenant_id": "b" * 32}})


@refused(400, "SecurityGroupMultipleRemoteEntites")
def a_rule_for_addresses_and_a_group(scene: Scene) -> Answer:
    group = scene.made("security_group", name=scene.new_name())["id"]
    rule = {"security_group_id": group, "direction": "ingress", "remote_ip_prefix": "10.0.0.0/8"}
    return scene.network("POST", "/security-group-rules", {"security_group_rule": {**rule, "remote_group_id": group}})


@refused(404, "Address group 00000000-0000-4000-8000-000000000000 could not be found.")
def a_rule_for_an_address_group_that_is_not(scene: Scene) -> Answer:
    group = scene.made("security_group", name=scene.new_name())["id"]
    rule = {"security_group_id": group, "direction": "ingress", "remote_address_group_id": UNKNOWN}
    return scene.network("POST", "/security-group-rules", {"security_group_rule": rule})


def address_group(scene: Scene, *addresses: str) -> str:
    made: str = scene.made("address_group", name="n", addresses=list(addresses))["id"]
    return made


@refused(400, "Addresses 10.0.0.0/24 already exist in the address group")
def an_address_added_twice(scene: Scene) -> Answer:
    path = f"/address-groups/{address_group(scene, '10.0.0.0/24')}/add_addresses"
    return scene.network("PUT", path, {"addresses": ["10.0.0.0/24"]})


@refused(404, "Addresses 10.0.0.7/32 not found in the address group")
def an_address_removed_that_is_not_there(scene: Scene) -> Answer:
    path = f"/address-groups/{address_group(scene, '10.0.0.0/24')}/remove_addresses"
    return scene.network("PUT", path, {"addresses": ["10.0.0.7"]})


@refused(409, "An address group has at most 1 addresses")
def an_address_too_many(scene: Scene) -> Answer:
    path = f"/address-groups/{address_group(scene, '10.0.0.0/24')}/add_addresses"
    with mock.patch.object(address_groups, "MOST_ADDRESSES", 1):
        return scene.network("PUT", path, {"addresses": ["10.1.0.0/24"]})


@refused(409, "Quota exceeded for resources: ['address_group']")
def an_address_group_too_many(scene: Scene) -> Answer:
    with mock.patch.dict(limits.FIXED_LIMITS, address_group=0):
        return scene.network("POST", "/address-groups", {"address_group": {"name": "n"}})


@refused(409, "is in use on one or more security group rules")
def an_address_group_deleted_that_a_rule_names(scene: Scene) -> Answer:
    named = address_group(scene)
    group = scene.made("security_group", name=scene.new_name())["id"]
    rule = {"security_group_id": group, "direction": "ingress", "remote_address_group_id": named}
    scene.made("security_group_rule", **rule)
    return scene.network("DELETE", f"/address-groups/{named}")


def share(
    scene: Scene, object_type: str, object_id: str, target: str = "*", action: str = "access_as_shared"
) -> Answer:
    body = {"object_type": object_type, "object_id": object_id, "target_tenant": target, "action": action}
    return scene.network("POST", "/rbac-policies", {"rbac_policy": body})


@refused(409, "An RBAC policy already exists with those values.")
def a_thing_shared_twice(scene: Scene) -> Answer:
    group = address_group(scene)
    assert share(scene, "address_group", group).status == 201
    return share(scene, "address_group", group)


@refused(400, "Invalid action 'access_as_external' for object type 'address_group'")
def an_address_group_shared_as_external(scene: Scene) -> Answer:
    return share(scene, "address_group", address_group(scene), action="access_as_external")


@refused(400, "Only admins can manipulate policies on objects they do not own.")
def what_is_shared_shared_further(scene: Scene) -> Answer:
    group = address_group(scene)
    assert share(scene, "address_group", group, scene.member.project_id or "").status == 201
    body = {"object_type": "address_group", "object_id": group, "target_tenant": UNKNOWN, "action": "access_as_shared"}
    return scene.network("POST", "/rbac-policies", {"rbac_policy": body}, who=scene.member)


@refused(409, "Default external networks must be shared to everyone.")
def the_default_external_network_for_nobody(scene: Scene) -> Answer:
    policies = scene.network("GET", "/rbac-policies?action=access_as_external")["rbac_policies"]
    return scene.network("DELETE", f"/rbac-policies/{policies[0]['id']}")


@refused(400, "Default external networks must be shared to everyone.")
def a_default_external_network_of_few(scene: Scene) -> Answer:
    network = scene.made("network")["id"]
    assert share(scene, "network", network, UNKNOWN, "access_as_external").status == 201
    (present,) = scene.network("GET", "/networks?is_default=true")["networks"]
    scene.network("PUT", f"/networks/{present['id']}", {"network": {"is_default": False}})
    try:
        return scene.network("PUT", f"/networks/{network}", {"network": {"is_default": True}})
    finally:
        scene.network("PUT", f"/networks/{present['id']}", {"network": {"is_default": True}})


@refused(409, "cannot be removed because other objects depend on it")
def a_shared_group_taken_back_that_is_used(scene: Scene) -> Answer:
    group = address_group(scene)
    policy = share(scene, "address_group", group)["rbac_policy"]["id"]
    own = scene.network("POST", "/security-groups", {"security_group": {"name": "own"}}, who=scene.member)
    rule = {"security_group_id": own["security_group"]["id"], "direction": "ingress", "remote_address_group_id": group}
    made = scene.network("POST", "/security-group-rules", {"security_group_rule": rule}, who=scene.member)
    assert made.status == 201, made.text
    return scene.network("DELETE", f"/rbac-policies/{policy}")


@refused(409, "Quota exceeded for resources: ['qos_policy']")
def a_qos_policy_too_many(scene: Scene) -> Answer:
    with mock.patch.dict(limits.FIXED_LIMITS, qos_policy=0):
        return scene.network("POST", "/qos/policies", {"policy": {"name": "n"}})


@refused(409, "Quota exceeded for resources: ['metering_label']")
def a_metering_label_too_many(scene: Scene) -> Answer:
    with mock.patch.dict(limits.FIXED_LIMITS, metering_label=0):
        return scene.network("POST", "/metering/metering-labels", {"metering_label": {"name": "n"}})


@refused(409, "Quota exceeded for resources: ['metering_label_rule']")
def a_metering_rule_too_many(scene: Scene) -> Answer:
    label = scene.network("POST", "/metering/metering-labels", {"metering_label": {"name": "n"}})["metering_label"]
    rule = {"metering_label_id": label["id"], "direction": "egress", "source_ip_prefix": "10.0.0.0/8"}
    with mock.patch.object(metering_rules, "MOST_OF_LABEL", 0):
        return scene.network("POST", "/metering/metering-label-rules", {"metering_label_rule": rule})


@refused(404, "QoS rule type minimum_bandwidth could not be found.")
def a_type_of_qos_rules_that_is_not(scene: Scene) -> Answer:
    return scene.network("GET", "/qos/rule-types/minimum_bandwidth")


@refused(409, "Quota exceeded for resources: ['default_security_group_rule']")
def a_default_rule_too_many(scene: Scene) -> Answer:
    with mock.patch.object(default_rules, "MOST", 0):
        rule = {"direction": "ingress", "protocol": "udp"}
        return scene.network("POST", "/default-security-group-rules", {"default_security_group_rule": rule})


@refused(409, "Quota exceeded for resources: ['address_scope']")
def an_address_scope_too_many(scene: Scene) -> Answer:
    with mock.patch.dict(limits.FIXED_LIMITS, address_scope=0):
        return scene.network("POST", "/address-scopes", {"address_scope": {"ip_version": 4}})


@refused(409, "Quota exceeded for resources: ['subnetpool']")
def a_subnet_pool_too_many(scene: Scene) -> Answer:
    limit = scene.network("GET", f"/quotas/{scene.member.project_id}", who=scene.member)["quota"]["subnetpool"]
    assert limit == 100
    with mock.patch.dict(limits.DEFAULT_LIMITS, subnetpool=0):
        body = {"subnetpool": {"name": "n", "prefixes": ["10.9.0.0/16"]}}
        return scene.network("POST", "/subnetpools", body, who=scene.member)


@refused(400, "The number of tags exceed the maximum 50.")
def a_tag_too_many(scene: Scene) -> Answer:
    path = f"/networks/{net(scene)[0]}/tags"
    assert scene.network("PUT", path, {"tags": [f"t{number}" for number in range(MAX_TAGS)]}).status == 200
    return scene.network("PUT", f"{path}/one-more")


@refused(400, "tags: it has more than 512 values.")
def a_list_by_more_tags_than_a_query_may_name(scene: Scene) -> Answer:
    path = "/networks?tags="
    assert scene.network("GET", path + ",".join(f"t{number}" for number in range(MOST_VALUES))).status == 200
    return scene.network("GET", path + ",".join(f"t{number}" for number in range(MOST_VALUES + 1)))


@refused(400, "ip_address_substr is asked for more than 16 times.")
def a_list_of_ports_by_too_many_parts_of_an_address(scene: Scene) -> Answer:
    asked = [f"fixed_ips=ip_address_substr={number}" for number in range(MOST_PARTS + 1)]
    assert scene.network("GET", f"/ports?{'&'.join(asked[1:])}").status == 200
    return scene.network("GET", f"/ports?{'&'.join(asked)}")


@refused(400, "router_id")
def a_floating_ip_with_a_router_of_ones_choice(scene: Scene) -> Answer:
    floating = {"floating_network_id": public(scene), "router_id": router(scene)}
    return scene.network("POST", "/floatingips", {"floatingip": floating})


@refused(400, "Subnet service type computed does not correspond to a valid device owner")
def a_subnet_for_ports_of_a_kind_that_is_not(scene: Scene) -> Answer:
    subnet = {"network_id": net(scene)[0], "ip_version": 4, "cidr": "10.8.0.0/24", "service_types": ["computed"]}
    return scene.network("POST", "/subnets", {"subnet": subnet})


def group_in_use(scene: Scene) -> str:
    group: str = scene.made("security_group", name=scene.new_name())["id"]
    scene.made("port", network_id=net(scene)[0], security_groups=[group])
    return group


@refused(409, "SecurityGroupInUse")
def the_end_of_a_group_in_use(scene: Scene) -> Answer:
    return scene.network("DELETE", f"/security-groups/{group_in_use(scene)}")


@refused(409, "SecurityGroupInUse")
def another_statefulness_of_a_group_in_use(scene: Scene) -> Answer:
    body = {"security_group": {"stateful": False}}
    return scene.network("PUT", f"/security-groups/{group_in_use(scene)}", body)


@refused(409, "SecurityGroupCannotUpdateDefault")
def another_name_for_the_default_group(scene: Scene) -> Answer:
    (group,) = scene.network("GET", f"/security-groups?name=default&project_id={scene.admin.project_id}")[
        "security_groups"
    ]
    return scene.network("PUT", f"/security-groups/{group['id']}", {"security_group": {"name": "mine"}})


@refused(400, "is not in [4, 6]")
def a_subnet_of_a_version_that_is_not(scene: Scene) -> Answer:
    subnet = {"network_id": scene.made("network")["id"], "ip_version": 5, "cidr": "10.0.0.0/24"}
    return scene.network("POST", "/subnets", {"subnet": subnet})


@refused(400, "Duplicate hostroute")
def a_host_route_twice(scene: Scene) -> Answer:
    routes = [{"destination": "10.8.0.0/24", "nexthop": "10.9.0.9"}] * 2
    subnet = {"network_id": scene.made("network")["id"], "ip_version": 4, "cidr": "10.9.0.0/24", "host_routes": routes}
    return scene.network("POST", "/subnets", {"subnet": subnet})


def new_pool(scene: Scene, **attributes: Any) -> Answer:
    pool = {"name": "p", "prefixes": ["10.0.0.0/16"], **attributes}
    return scene.network("POST", "/subnetpools", {"subnetpool": pool})


@refused(400, "IllegalSubnetPoolPrefixBounds")
def a_pool_whose_shortest_prefix_is_the_longer(scene: Scene) -> Answer:
    return new_pool(scene, min_prefixlen=28, max_prefixlen=24, default_prefixlen=26)


@refused(404, "Address scope 00000000-0000-4000-8000-000000000000 could not be found.")
def a_pool_in_an_address_scope_that_is_not(scene: Scene) -> Answer:
    return new_pool(scene, address_scope_id=UNKNOWN)


@refused(400, "PrefixVersionMismatch")
def a_pool_of_both_versions(scene: Scene) -> Answer:
    return new_pool(scene, prefixes=["10.0.0.0/16", "fd00::/48"])


@refused(409, "is in use")
def a_segment_that_another_network_has(scene: Scene) -> Answer:
    segment: JsonObject = {"provider:network_type": "vxlan", "provider:segmentation_id": 77_777}
    scene.made("network", **segment)
    return scene.network("POST", "/networks", {"network": segment})


@refused(400, "AutoAllocationFailure")
def a_topology_where_no_external_network_is_the_default(scene: Scene) -> Answer:
    defaults = scene.network("GET", "/networks?is_default=true")["networks"]
    for each in defaults:
        assert scene.network("PUT", f"/networks/{each['id']}", {"network": {"is_default": False}}).status == 200
    project = scene.member.project_id
    answer = scene.network("GET", f"/auto-allocated-topology/{project}?fields=dry-run", who=scene.member)
    for each in defaults:
        assert scene.network("PUT", f"/networks/{each['id']}", {"network": {"is_default": True}}).status == 200
    return answer


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_it_is_refused(scene: Scene, refusal: Refusal) -> None:
    refusal.check(scene)
