"""Rules of QoS policies: which there may be beside each other, and which a host cannot keep."""

from __future__ import annotations

from collections.abc import Mapping
from unittest import mock

import pytest

from cumulet.compute import hosts as host_records
from cumulet.testing import Client, TestCloud
from tests.api.test_compute_servers import create
from tests.api.test_network_stories import call, make, network_with_subnet, public
from tests.api.test_qos import LIMITS, keeping, manager, plugged, qos_policy, told

__all__ = ["manager"]
MARKS = "dscp_marking_rules"


def marked(client: Client, mark: object) -> str:
    """A policy with this DSCP mark."""
    policy = qos_policy(client)
    made = call(client, "POST", f"/qos/policies/{policy}/{MARKS}", {"dscp_marking_rule": {"dscp_mark": mark}})
    assert made.status == 201, made.text
    return policy


def test_a_ports_host_is_told_the_mark_of_its_packets(cloud: TestCloud, manager: Client, member: Client) -> None:
    policy = marked(manager, "26")
    network, _ = network_with_subnet(member)
    port = plugged(cloud, member, network)["id"]
    assert told(cloud, port).dscp_mark is None
    assert call(member, "PUT", f"/networks/{network}", {"network": {"qos_policy_id": policy}}).status == 200
    assert told(cloud, port).dscp_mark == 26
    (rule,) = call(member, "GET", f"/qos/policies/{policy}")["policy"]["rules"]
    assert rule == {"id": rule["id"], "qos_policy_id": policy, "type": "dscp_marking", "dscp_mark": 26}
    changed = {"alias_dscp_marking_rule": {"dscp_mark": 0}}
    assert call(manager, "PUT", f"/qos/alias_{MARKS}/{rule['id']}", changed).status == 200
    assert told(cloud, port).dscp_mark == 0, "a mark like any other"
    assert call(manager, "DELETE", f"/qos/policies/{policy}/{MARKS}/{rule['id']}").status == 204
    assert told(cloud, port).dscp_mark is None


@pytest.mark.parametrize("mark", [{}, {"dscp_mark": 1}, {"dscp_mark": 64}, {"dscp_mark": "x"}, {"dscp_mark": None}])
def test_a_mark_that_no_standard_has_is_refused(manager: Client, mark: Mapping[str, object]) -> None:
    path = f"/qos/policies/{qos_policy(manager)}/{MARKS}"
    assert call(manager, "POST", path, {"dscp_marking_rule": mark}).status == 400


def test_a_policy_has_one_mark_and_ends_with_it(manager: Client) -> None:
    policy = marked(manager, 26)
    path = f"/qos/policies/{policy}/{MARKS}"
    again = call(manager, "POST", path, {"dscp_marking_rule": {"dscp_mark": 8}})
    assert (again.status, again["NeutronError"]["type"]) == (409, "QoSRulesConflict")
    assert [one["dscp_mark"] for one in call(manager, "GET", path)[MARKS]] == [26]
    assert call(manager, "DELETE", f"/qos/policies/{policy}").status == 204


def test_a_mark_is_refused_where_a_host_cannot_set_it(cloud: TestCloud, manager: Client, member: Client) -> None:
    marking = marked(manager, 26)
    network, _ = network_with_subnet(member)
    server = create(member, networks="none")["id"]
    port = make(member, "port", network_id=network, qos_policy_id=marking)["id"]
    host = cloud.persona("admin").compute("GET", f"/servers/{server}")["server"]["OS-EXT-SRV-ATTR:host"]
    with keeping("networks", "bandwidth-limits", on=[host]):
        refused = call(member, "PUT", f"/networks/{network}", {"network": {"qos_policy_id": marking}})
        assert (refused.status, "A host cannot mark" in refused.text, host in refused.text) == (501, True, False)
        attached = {"interfaceAttachment": {"port_id": port}}
        assert member.compute("POST", f"/servers/{server}/os-interface", attached).status == 501
        assert call(member, "GET", "/qos/rule-types")["rule_types"] == [{"type": "bandwidth_limit"}]
    port = plugged(cloud, member, network)["id"]
    assert call(member, "PUT", f"/ports/{port}", {"port": {"qos_policy_id": marking}}).status == 200
    assert told(cloud, port).dscp_mark == 26
    older = cloud.embedded.db.read(lambda tx: host_records.kind_of(tx, "a host that has said nothing"))
    with mock.patch.object(host_records, "kind_of", return_value=older):
        assert told(cloud, port).dscp_mark is None


PROMISES = [
    ("minimum_bandwidth", "min_kbps", "bandwidth"),
    ("minimum_packet_rate", "min_kpps", "packets a second"),
]


@pytest.mark.parametrize(("name", "value", "what"), PROMISES)
def test_a_promise_is_kept_on_record_and_refused_in_use_while_no_host_keeps_it(
    manager: Client, member: Client, name: str, value: str, what: str
) -> None:
    policy, kind = qos_policy(manager), f"{name}_rule"
    path = f"/qos/policies/{policy}/{kind}s"
    made = call(manager, "POST", path, {kind: {value: "5"}})
    assert (made.status, made[kind]) == (201, {"id": made[kind]["id"], "direction": "egress", value: 5})
    assert call(manager, "PUT", f"{path}/{made[kind]['id']}", {kind: {value: 6}})[kind][value] == 6
    assert [one[value] for one in call(manager, "GET", path)[f"{kind}s"]] == [6]
    again = call(manager, "POST", path, {kind: {value: 7}})
    assert (again.status, again["NeutronError"]["type"]) == (409, "QoSRulesConflict")
    assert call(manager, "POST", path, {kind: {value: -1, "direction": "ingress"}}).status == 400
    assert call(member, "GET", f"/qos/rule-types/{name}").status == 404
    network, _ = network_with_subnet(member)
    port = make(member, "port", network_id=network)["id"]
    had = {"qos_policy_id": policy}
    floating = make(member, "floatingip", floating_network_id=public(member))["id"]
    router = make(member, "router", external_gateway_info={"network_id": public(member)})["id"]
    for method, place, body in (
        ("PUT", f"/networks/{network}", {"network": had}),
        ("PUT", f"/ports/{port}", {"port": had}),
        ("POST", "/networks", {"network": had}),
        ("POST", "/ports", {"port": {"network_id": network, **had}}),
        ("PUT", f"/floatingips/{floating}", {"floatingip": had}),
        ("POST", "/floatingips", {"floatingip": {"floating_network_id": public(member), **had}}),
        ("PUT", f"/routers/{router}", {"router": {"external_gateway_info": {"network_id": public(member), **had}}}),
    ):
        refused = call(member, method, place, body)
        assert (refused.status, what in refused.text) == (501, True)
    kept = qos_policy(manager)
    assert call(member, "PUT", f"/floatingips/{floating}", {"floatingip": {"qos_policy_id": kept}}).status == 200
    assert call(manager, "POST", f"/qos/policies/{kept}/{kind}s", {kind: {value: 5}}).status == 501
    assert call(member, "PUT", f"/ports/{port}", {"port": {"qos_policy_id": kept}}).status == 200
    assert call(manager, "POST", f"/qos/policies/{kept}/{kind}s", {kind: {value: 5}}).status == 501
    assert call(manager, "PUT", f"/qos/policies/{policy}", {"policy": {"is_default": True}}).status == 200
    assert call(member, "POST", "/networks", {"network": {}}).status == 501, "it would have the default policy"
    assert call(member, "POST", "/networks", {"network": {"qos_policy_id": None}}).status == 201


def test_a_policy_promises_no_more_than_it_lets_pass(manager: Client) -> None:
    policy = f"/qos/policies/{qos_policy(manager, ('egress', 10, 0))}"
    more, kind = {"minimum_bandwidth_rule": {"min_kbps": 11}}, "minimum_bandwidth_rules"
    refused = call(manager, "POST", f"{policy}/{kind}", more)
    assert (refused.status, refused["NeutronError"]["type"]) == (409, "QoSRuleParameterConflict")
    other_way = {"minimum_bandwidth_rule": {"min_kbps": 11, "direction": "ingress"}}
    assert call(manager, "POST", f"{policy}/{kind}", other_way).status == 201
    kept = call(manager, "POST", f"{policy}/{kind}", {"minimum_bandwidth_rule": {"min_kbps": 10}})
    assert kept.status == 201
    one = f"{policy}/{kind}/{kept['minimum_bandwidth_rule']['id']}"
    assert call(manager, "PUT", one, more).status == 409
    (limit,) = call(manager, "GET", f"{policy}/{LIMITS}")[LIMITS]
    less = {"bandwidth_limit_rule": {"max_kbps": 9}}
    assert call(manager, "PUT", f"{policy}/{LIMITS}/{limit['id']}", less).status == 409
    slow = {"bandwidth_limit_rule": {"max_kbps": 9, "direction": "ingress"}}
    assert call(manager, "POST", f"{policy}/{LIMITS}", slow).status == 409


def test_packets_are_promised_by_direction_or_for_both_together(manager: Client) -> None:
    path = f"/qos/policies/{qos_policy(manager)}/minimum_packet_rate_rules"
    assert call(manager, "POST", path, {"minimum_packet_rate_rule": {"min_kpps": 1}}).status == 201
    for_both = {"minimum_packet_rate_rule": {"min_kpps": 1, "direction": "any"}}
    refused = call(manager, "POST", path, for_both)
    assert (refused.status, refused["NeutronError"]["type"]) == (409, "QoSRuleParameterConflict")
    (egress,) = call(manager, "GET", path)["minimum_packet_rate_rules"]
    assert call(manager, "PUT", f"{path}/{egress['id']}", for_both).status == 200


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"max_kbps": -1},
        {"max_kbps": 2**31},
        {"max_kbps": "x"},
        {"max_kbps": 1, "max_burst_kbps": -1},
        {"max_kbps": 1, "direction": "any"},
        {"max_kbps": 1, "min_kbps": 1},
    ],
)
def test_an_invalid_rule_is_refused(manager: Client, rule: Mapping[str, object]) -> None:
    path = f"/qos/policies/{qos_policy(manager)}/{LIMITS}"
    assert call(manager, "POST", path, {"bandwidth_limit_rule": rule}).status == 400


def test_one_direction_is_limited_once(manager: Client) -> None:
    policy = qos_policy(manager, ("egress", 1, 0), ("ingress", 1, 0))
    path = f"/qos/policies/{policy}/{LIMITS}"
    again = call(manager, "POST", path, {"bandwidth_limit_rule": {"max_kbps": 5}})
    assert (again.status, again["NeutronError"]["type"]) == (409, "QoSRulesConflict")
    first, _ = call(manager, "GET", f"{path}?sort_key=direction&sort_dir=asc")[LIMITS]
    turned = {"bandwidth_limit_rule": {"direction": "ingress"}}
    assert call(manager, "PUT", f"{path}/{first['id']}", turned).status == 409
    other = qos_policy(manager)
    assert call(manager, "GET", f"/qos/policies/{other}/{LIMITS}/{first['id']}").status == 404
