"""What an administrator does by openstacksdk, unchanged: sharing, limits of bandwidth, scopes, agents, first rules."""

from __future__ import annotations

from cumulet.testing import Client, TestCloud


def test_openstacksdk_shares_limits_and_looks_at_agents(cloud: TestCloud, other_member: Client) -> None:
    network = cloud.connection("cumulet").network
    mine = network.create_network(name="mine")
    entry = network.create_rbac_policy(
        object_type="network",
        object_id=mine.id,
        action="access_as_shared",
        target_project_id=other_member.project_id,
    )
    assert [one.id for one in network.rbac_policies(object_id=mine.id)] == [entry.id]
    assert network.get_rbac_policy(entry.id).target_project_id == other_member.project_id
    network.delete_rbac_policy(entry)
    slow = network.create_qos_policy(name="slow")
    rule = network.create_qos_bandwidth_limit_rule(slow, max_kbps=1000, max_burst_kbps=100, direction="ingress")
    assert network.update_qos_bandwidth_limit_rule(rule, slow, max_kbps=2000).max_kbps == 2000
    assert [one.direction for one in network.qos_bandwidth_limit_rules(slow)] == ["ingress"]
    assert [one.type for one in network.qos_rule_types()] == ["bandwidth_limit", "dscp_marking"]
    mark = network.create_qos_dscp_marking_rule(slow, dscp_mark=26)
    assert network.update_qos_dscp_marking_rule(mark, slow, dscp_mark=46).dscp_mark == 46
    network.delete_qos_dscp_marking_rule(mark, slow)
    assert network.find_qos_rule_type("bandwidth_limit", ignore_missing=False).drivers[0]["name"] == "cumulet"
    assert network.update_network(mine, qos_policy_id=slow.id).qos_policy_id == slow.id
    assert network.find_qos_policy("slow", ignore_missing=False).rules[0]["max_kbps"] == 2000
    network.delete_network(mine)
    network.delete_qos_bandwidth_limit_rule(rule, slow)
    network.delete_qos_policy(slow)
    scope = network.create_address_scope(name="scope", ip_version=4)
    pool = network.create_subnet_pool(name="p", prefixes=["10.0.0.0/16"], address_scope_id=scope.id)
    assert network.get_subnet_pool(pool).address_scope_id == scope.id
    network.delete_subnet_pool(pool)
    network.delete_address_scope(scope)
    agents = list(network.agents(agent_type="L3 agent"))
    assert {one.host for one in agents} == {"host1", "host2"}
    assert all(one.is_alive for one in agents)
    assert network.update_agent(agents[0], description="x").description == "x"
    first = network.create_default_security_group_rule(direction="ingress", protocol="udp")
    assert first.id in [one.id for one in network.default_security_group_rules()]
    network.delete_default_security_group_rule(first)


def test_openstacksdk_meters_reads_segments_and_names_ports(cloud: TestCloud) -> None:
    network = cloud.connection("cumulet").network
    made = network.create_network(name="named", dns_domain="example.org.")
    network.create_subnet(network_id=made.id, ip_version=4, cidr="10.1.0.0/24")
    port = network.create_port(network_id=made.id, dns_name="web")
    assert [one["fqdn"] for one in port.dns_assignment] == ["web.example.org."]
    (segment,) = network.segments(network_id=made.id)
    assert (segment.network_type, segment.segmentation_id) == ("vxlan", made.provider_segmentation_id)
    made_range = network.create_network_segment_range(
        name="r", network_type="vxlan", minimum=500, maximum=501, shared=True
    )
    assert (made_range.available, made_range.used, made_range.default) == ([500, 501], {}, False)
    assert network.create_network(name="in it").provider_segmentation_id == 500
    label = network.create_metering_label(name="m", description="d")
    wanted = {"metering_label_id": label.id, "direction": "egress", "source_ip_prefix": "10.1.0.0/24"}
    rule = network.create_metering_label_rule(**wanted)
    found = network.find_metering_label("m")
    assert found is not None
    assert found.id == label.id
    assert [one.id for one in network.metering_label_rules(metering_label_id=label.id)] == [rule.id]
    network.delete_metering_label_rule(rule)
    network.delete_metering_label(label)
    assert list(network.metering_labels()) == []
