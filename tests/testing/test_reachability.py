"""`cloud.network.reachable`: the rule that decided, and which hop stopped a packet."""

from __future__ import annotations

import pytest

from cumulet.testing import Client, TestCloud
from tests.api.test_compute_servers import create


@pytest.fixture
def member(cloud: TestCloud) -> Client:
    return cloud.persona("member")


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


def test_what_no_packet_can_do_is_said(cloud: TestCloud, member: Client) -> None:
    one, two = made(member, "network", name="one"), made(member, "network", name="two")
    for network in (one, two):
        made(member, "subnet", network_id=network, cidr="10.8.0.0/24", ip_version=4)
    here, there = port_of(member, one), port_of(member, two)
    assert "other-network" in cloud.network.reachable(here, there, "tcp", 22).reason
    unplugged = made(member, "port", network_id=one)
    assert cloud.network.reachable(here, unplugged, "tcp", 22).reason == "plugged-in-nowhere"
    with pytest.raises(KeyError):
        cloud.network.reachable(here, "no-such-port", "tcp", 22)
    with pytest.raises(ValueError, match="needs a port"):
        cloud.network.reachable(here, unplugged, "tcp")
