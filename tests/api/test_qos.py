"""QoS policies: what they say reaches the hosts of the ports that have them, and nobody has one that is not shared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest

from cumulet.compute import hosts as host_records
from cumulet.compute import hosts_for_network
from cumulet.compute.descriptions import described
from cumulet.host import wiring as w
from cumulet.network import hosts
from cumulet.testing import Client, JsonObject, TestCloud
from tests.api.test_compute_servers import create
from tests.api.test_network_stories import UNKNOWN, call, make, network_with_subnet, public
from tests.api.test_rbac_policies import shared

LIMITS = "bandwidth_limit_rules"


@pytest.fixture
def manager(cloud: TestCloud) -> Client:
    return cloud.persona("manager")


def qos_policy(client: Client, *limits: tuple[str, int, int], **attributes: object) -> str:
    """A policy with these limits: direction, kbps, burst."""
    answer = call(client, "POST", "/qos/policies", {"policy": {"name": "q", **attributes}})
    assert answer.status == 201, answer.text
    identifier: str = answer["policy"]["id"]
    for direction, kbps, burst in limits:
        rule = {"direction": direction, "max_kbps": kbps, "max_burst_kbps": burst}
        made = call(client, "POST", f"/qos/policies/{identifier}/{LIMITS}", {"bandwidth_limit_rule": rule})
        assert made.status == 201, made.text
    return identifier


def plugged(cloud: TestCloud, client: Client, network: str) -> JsonObject:
    """The port of a new server."""
    create(client, networks=[{"uuid": network}])
    found = call(client, "GET", f"/ports?network_id={network}&device_owner=compute:nova")["ports"]
    port: dict[str, object] = found[-1]
    return port


def told(cloud: TestCloud, port_id: str) -> w.Port:
    """What its host is told of a port."""
    database = cloud.embedded.db
    for name in ("host1", "host2"):
        for port in database.read(lambda tx, name=name: described(tx, name)).ports:  # type: ignore[misc]
            if port.id == port_id:
                return port
    raise AssertionError(f"no host has {port_id}")


def test_a_ports_host_is_told_its_own_limits_else_those_of_its_network(
    cloud: TestCloud, manager: Client, member: Client
) -> None:
    slow = qos_policy(manager, ("egress", 1000, 100), ("ingress", 2000, 0))
    network, _ = network_with_subnet(member)
    port = plugged(cloud, member, network)["id"]
    assert (told(cloud, port).egress_limit, told(cloud, port).ingress_limit) == (None, None)
    assert call(member, "PUT", f"/networks/{network}", {"network": {"qos_policy_id": slow}}).status == 200
    assert told(cloud, port).egress_limit == w.Limit(kbps=1000, burst_kbit=100)
    assert told(cloud, port).ingress_limit == w.Limit(kbps=2000)
    shown = call(member, "GET", f"/ports/{port}")["port"]
    assert (shown["qos_policy_id"], shown["qos_network_policy_id"]) == (None, slow)
    one_way = qos_policy(manager, ("ingress", 7, 0))
    assert call(member, "PUT", f"/ports/{port}", {"port": {"qos_policy_id": one_way}}).status == 200
    assert (told(cloud, port).egress_limit, told(cloud, port).ingress_limit) == (None, w.Limit(kbps=7))
    rule = call(member, "GET", f"/qos/policies/{one_way}")["policy"]["rules"][0]["id"]
    changed = {"bandwidth_limit_rule": {"max_kbps": "8"}}
    assert call(manager, "PUT", f"/qos/policies/{one_way}/{LIMITS}/{rule}", changed).status == 200
    assert told(cloud, port).ingress_limit == w.Limit(kbps=8)
    alias = f"/qos/alias_bandwidth_limit_rules/{rule}"
    assert call(manager, "PUT", alias, {"alias_bandwidth_limit_rule": {"max_kbps": 0}}).status == 200
    assert told(cloud, port).ingress_limit is None, "0 is no limit"
    assert call(manager, "DELETE", alias).status == 204
    assert call(member, "PUT", f"/ports/{port}", {"port": {"qos_policy_id": None}}).status == 200
    assert told(cloud, port).egress_limit == w.Limit(kbps=1000, burst_kbit=100)


def test_a_floating_ip_has_limits_of_its_own(cloud: TestCloud, manager: Client, member: Client) -> None:
    slow = qos_policy(manager, ("egress", 1000, 0))
    network, subnet = network_with_subnet(member)
    router = make(member, "router", external_gateway_info={"network_id": public(member)})["id"]
    call(member, "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
    port = make(member, "port", network_id=network)["id"]
    wanted = {"floating_network_id": public(member), "port_id": port, "qos_policy_id": slow}
    floating = make(member, "floatingip", **wanted)
    assert floating["qos_policy_id"] == slow

    def limits() -> list[w.Limit | None]:
        seen = [cloud.embedded.db.read(lambda tx, name=n: described(tx, name)) for n in ("host1", "host2")]  # type: ignore[misc]
        return [
            one.egress_limit for found in seen for it in found.routers for one in it.floating_ips if it.id == router
        ]

    assert limits() == [w.Limit(kbps=1000)]
    none = {"floatingip": {"qos_policy_id": None}}
    assert call(member, "PUT", f"/floatingips/{floating['id']}", none)["floatingip"]["port_id"] == port
    assert limits() == [None]


def test_a_routers_gateway_has_limits_of_its_own_and_loses_them_with_it(
    cloud: TestCloud, manager: Client, member: Client
) -> None:
    slow = qos_policy(manager, ("egress", 1000, 0), ("ingress", 2000, 0))
    network = public(member)
    gateway = {"network_id": network, "qos_policy_id": slow}
    _, subnet = network_with_subnet(member)
    router = make(member, "router", external_gateway_info=gateway)
    assert router["external_gateway_info"]["qos_policy_id"] == slow
    path = f"/routers/{router['id']}"
    call(member, "PUT", f"{path}/add_router_interface", {"subnet_id": subnet})

    def limits() -> list[tuple[w.Limit | None, w.Limit | None]]:
        seen = [cloud.embedded.db.read(lambda tx, name=n: described(tx, name)) for n in ("host1", "host2")]  # type: ignore[misc]
        mine = (one for found in seen for one in found.routers if one.id == router["id"])
        return [(one.egress_limit, one.ingress_limit) for one in mine]

    def change(info: Mapping[str, object]) -> Any:
        return call(member, "PUT", path, {"router": {"external_gateway_info": info}})["router"]["external_gateway_info"]

    assert limits() == [(w.Limit(kbps=1000), w.Limit(kbps=2000))]
    older = cloud.embedded.db.read(lambda tx: host_records.kind_of(tx, "a host that has said nothing"))
    with mock.patch.object(host_records, "kind_of", return_value=older):
        assert limits() == [(None, None)]
    refused = call(manager, "DELETE", f"/qos/policies/{slow}")
    assert (refused.status, router["id"] in refused.text) == (409, True)
    assert change({"network_id": network})["qos_policy_id"] == slow, "not named, it stays"
    assert "qos_policy_id" not in change({"network_id": network, "qos_policy_id": None})
    assert limits() == [(None, None)]
    change(gateway)
    assert change({}) is None
    assert call(manager, "DELETE", f"/qos/policies/{slow}").status == 204
    assert "qos_policy_id" not in change({"network_id": network})
    with keeping("networks", on=["host9"]):
        again = {"router": {"external_gateway_info": {"network_id": network, "qos_policy_id": qos_policy(manager)}}}
        refused = call(member, "PUT", path, again)
        assert (refused.status, "gateways" in refused.text) == (501, True)


def test_a_host_whose_agent_is_of_the_version_before_is_told_no_limits(
    cloud: TestCloud, manager: Client, member: Client
) -> None:
    """An agent of that version would refuse all of its wiring."""
    slow = qos_policy(manager, ("egress", 1000, 0))
    network, subnet = network_with_subnet(member)
    call(member, "PUT", f"/networks/{network}", {"network": {"qos_policy_id": slow}})
    port = plugged(cloud, member, network)["id"]
    router = make(member, "router", external_gateway_info={"network_id": public(member)})["id"]
    call(member, "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
    make(member, "floatingip", floating_network_id=public(member), port_id=port, qos_policy_id=slow)
    database = cloud.embedded.db

    def said() -> int:
        found = [database.read(lambda tx, name=name: described(tx, name)) for name in ("host1", "host2")]  # type: ignore[misc]
        return str(found).count("kbps=1000")

    assert said() == 2
    older = database.read(lambda tx: host_records.kind_of(tx, "a host that has said nothing"))
    with mock.patch.object(host_records, "kind_of", return_value=older):
        assert said() == 0
        assert told(cloud, port).id == port


def test_only_a_policy_in_sight_can_be_used(cloud: TestCloud, manager: Client, member: Client) -> None:
    other, admin = cloud.persona("other_member"), cloud.persona("admin")
    ours = qos_policy(manager, ("egress", 1000, 0))
    network, _ = network_with_subnet(other)
    port = make(other, "port", network_id=network)["id"]
    for path, body in (
        ("/networks", {"network": {"qos_policy_id": ours}}),
        ("/ports", {"port": {"network_id": network, "qos_policy_id": ours}}),
        ("/floatingips", {"floatingip": {"floating_network_id": public(other), "qos_policy_id": ours}}),
        ("/routers", {"router": {"external_gateway_info": {"network_id": public(other), "qos_policy_id": ours}}}),
    ):
        assert call(other, "POST", path, body).status == 404
    assert call(other, "PUT", f"/ports/{port}", {"port": {"qos_policy_id": ours}}).status == 404
    assert call(other, "GET", f"/qos/policies/{ours}").status == 404
    policy = shared(manager, "qos_policy", ours, other)
    assert call(other, "PUT", f"/ports/{port}", {"port": {"qos_policy_id": ours}}).status == 200
    assert call(other, "GET", f"/qos/policies/{ours}")["policy"]["shared"] is True
    assert call(other, "GET", f"/qos/policies/{ours}/{LIMITS}")[LIMITS] == [], "its rules are its owner's, as upstream"
    assert call(manager, "DELETE", f"/rbac-policies/{policy}").status == 409
    assert call(manager, "DELETE", f"/qos/policies/{ours}").status == 409
    theirs = qos_policy(admin, ("egress", 1, 0))
    assert call(admin, "PUT", f"/ports/{port}", {"port": {"qos_policy_id": theirs}}).status == 200
    refused = call(other, "PUT", f"/ports/{port}", {"port": {"qos_policy_id": None}})
    assert (refused.status, refused["NeutronError"]["type"]) == (403, "PolicyRemoveAuthorizationError")
    assert call(other, "PUT", f"/ports/{port}", {"port": {"name": "n"}}).status == 200
    assert call(manager, "DELETE", f"/rbac-policies/{policy}").status == 204
    assert call(manager, "DELETE", f"/qos/policies/{ours}").status == 204


def test_only_an_administrator_shares_a_policy_with_everybody(cloud: TestCloud, manager: Client) -> None:
    """Upstream lets a manager share a policy by its attribute, and refuses an RBAC policy that does the same."""
    everybodys = {"policy": {"name": "q", "shared": True}}
    assert call(manager, "POST", "/qos/policies", everybodys).status == 403
    path = f"/qos/policies/{qos_policy(manager, shared=False)}"
    assert call(manager, "PUT", path, everybodys).status == 403
    assert call(cloud.persona("admin"), "PUT", path, everybodys)["policy"]["shared"] is True
    assert call(manager, "PUT", path, {"policy": {"shared": False}})["policy"]["shared"] is False


def test_new_networks_have_the_projects_default_policy(manager: Client, member: Client) -> None:
    default = qos_policy(manager, is_default=True)
    assert make(member, "network")["qos_policy_id"] == default
    assert make(member, "network", qos_policy_id=None)["qos_policy_id"] is None
    second = call(manager, "POST", "/qos/policies", {"policy": {"is_default": True}})
    assert (second.status, second["NeutronError"]["type"]) == (409, "QoSPolicyDefaultAlreadyExists")


@contextmanager
def keeping(*features: str, on: Iterable[str]) -> Iterator[None]:
    """From now on the cloud's hosts are these, and they offer these features alone."""
    lacking = [
        hosts.Host(
            name=name,
            id=UNKNOWN,
            zone="nova",
            up=True,
            enabled=True,
            features=frozenset(features),
            created_at_us=0,
            seen_at_us=0,
            started_at_us=0,
            may_have_routers=True,
        )
        for name in on
    ]
    hosts.told_by(lambda _tx: lacking)
    try:
        yield
    finally:
        hosts.told_by(hosts_for_network.for_network)


def test_no_port_with_limits_is_attached_where_the_host_does_not_keep_them(
    cloud: TestCloud, manager: Client, member: Client
) -> None:
    slow = qos_policy(manager, ("egress", 1000, 0))
    network, _ = network_with_subnet(member)
    server = create(member, networks="none")["id"]
    limited = {"interfaceAttachment": {"port_id": make(member, "port", network_id=network, qos_policy_id=slow)["id"]}}
    host = cloud.persona("admin").compute("GET", f"/servers/{server}")["server"]["OS-EXT-SRV-ATTR:host"]
    path = f"/servers/{server}/os-interface"
    with keeping("networks", on=[host]):
        refused = member.compute("POST", path, limited)
        assert (refused.status, "A host cannot" in refused.text, host in refused.text) == (501, True, False)
        assert member.compute("GET", path)["interfaceAttachments"] == []
        free = {"interfaceAttachment": {"port_id": make(member, "port", network_id=network)["id"]}}
        assert member.compute("POST", path, free).status == 200
    with keeping("networks", on=["host9"]):
        member.wait("the server to rest", lambda: member.compute("POST", path, limited).status == 200)


def test_a_port_without_limits_is_attached_though_another_of_the_server_has_some(
    cloud: TestCloud, manager: Client, member: Client
) -> None:
    """As if an agent of the version before had replaced the host's."""
    slow = qos_policy(manager, ("egress", 1000, 0))
    network, _ = network_with_subnet(member)
    limited = make(member, "port", network_id=network, qos_policy_id=slow)["id"]
    server = create(member, networks=[{"port": limited}])["id"]
    host = cloud.persona("admin").compute("GET", f"/servers/{server}")["server"]["OS-EXT-SRV-ATTR:host"]
    free = {"interfaceAttachment": {"port_id": make(member, "port", network_id=network)["id"]}}
    with keeping("networks", on=[host]):
        answer = member.compute("POST", f"/servers/{server}/os-interface", free)
        assert answer.status == 200, answer.text


def test_what_a_host_cannot_keep_is_refused(cloud: TestCloud, manager: Client, member: Client) -> None:
    policy = qos_policy(manager, ("ingress", 0, 0))
    unlimited = call(manager, "GET", f"/qos/policies/{policy}")["policy"]["rules"][0]["id"]
    network = make(member, "network")["id"]
    set_ = {"network": {"qos_policy_id": policy}}
    with keeping("networks", on=["host9"]):
        assert call(member, "GET", "/qos/rule-types")["rule_types"] == []
        assert call(member, "PUT", f"/networks/{network}", set_).status == 501
    assert call(member, "PUT", f"/networks/{network}", set_).status == 200
    with keeping("networks", on=["host9"]):
        rule = {"bandwidth_limit_rule": {"max_kbps": 1}}
        refused = call(manager, "POST", f"/qos/policies/{policy}/{LIMITS}", rule)
        assert (refused.status, "host9" in refused.text) == (501, False)
        assert refused.headers.get("x-cumulet-details") is None
        assert call(manager, "PUT", f"/qos/policies/{policy}/{LIMITS}/{unlimited}", rule).status == 501
    kept = [{"type": "bandwidth_limit"}, {"type": "dscp_marking"}]
    assert call(member, "GET", "/qos/rule-types")["rule_types"] == kept


def test_limits_of_forwarded_ports_are_refused_with_501(manager: Client, member: Client) -> None:
    slow = qos_policy(manager, ("egress", 1000, 0))
    network, subnet = network_with_subnet(member)
    router = make(member, "router", external_gateway_info={"network_id": public(member)})["id"]
    call(member, "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
    port = make(member, "port", network_id=network)
    floating = make(member, "floatingip", floating_network_id=public(member), qos_policy_id=slow)["id"]
    path = f"/floatingips/{floating}/port_forwardings"
    wanted = {
        "internal_port_id": port["id"],
        "internal_ip_address": port["fixed_ips"][0]["ip_address"],
        "internal_port": 80,
        "external_port": 80,
        "protocol": "tcp",
    }
    assert call(member, "POST", path, {"port_forwarding": wanted}).status == 501
    call(member, "PUT", f"/floatingips/{floating}", {"floatingip": {"qos_policy_id": None}})
    assert call(member, "POST", path, {"port_forwarding": wanted}).status == 201
    limited = {"floatingip": {"qos_policy_id": slow}}
    assert call(member, "PUT", f"/floatingips/{floating}", limited).status == 409
