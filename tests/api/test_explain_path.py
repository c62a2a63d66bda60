"""`/cumulet/paths`: what a project is told about packets of its own ports, and what only an administrator is."""

from __future__ import annotations

import pytest

from cumulet.compute import explain_path, packet_path
from cumulet.host import routing, verdict
from cumulet.testing import Client, JsonObject, TestCloud
from tests.testing.test_reachability import made, port_of, routed

PATHS = "/cumulet/paths"


def told(client: Client, one: str, two: str, query: str = "protocol=tcp&port=22") -> JsonObject:
    answer = client.compute("GET", f"{PATHS}/{one}/{two}?{query}")
    assert answer.status == 200, answer.text
    found: dict[str, object] = answer["path"]
    return found


@pytest.fixture
def two(member: Client) -> tuple[str, str]:
    """Two ports of one network."""
    network = made(member, "network", name="n")
    made(member, "subnet", network_id=network, cidr="10.8.0.0/24", ip_version=4)
    return port_of(member, network), port_of(member, network)


def test_the_rule_that_decides_is_told_with_what_its_owner_wrote(member: Client, two: tuple[str, str]) -> None:
    one, other = two
    group = made(member, "security_group", name="web")
    member.request("PUT", f"/network/v2.0/ports/{other}", {"port": {"security_groups": [group]}})
    stopped = told(member, one, other)
    assert (stopped["arrives"], stopped["reason"]) == (False, "no-rule-ingress")
    hops = [(hop["at"], hop["id"], hop["passes"]) for hop in stopped["hops"]]
    assert hops == [("sender", one, True), ("receiver", other, False)]
    ports = {"port_range_min": 20, "port_range_max": 30}
    way_in = {"direction": "ingress", "protocol": "tcp", "description": "the way in"}
    rule = made(member, "security_group_rule", security_group_id=group, **way_in, **ports)
    let = told(member, one, other)
    assert let["arrives"] is True
    said = let["hops"][-1]["rule"]
    assert said == {"id": rule, "security_group_id": group, "description": "the way in", "direction": "ingress"}
    assert let["hops"][-1]["packet"]["destination_port"] == 22
    ping = told(member, one, other, "")["hops"][-1]["packet"]
    assert (ping["protocol"], ping["type"], ping["destination_port"]) == ("icmp", 8, None)


def test_a_path_is_followed_through_a_bounded_number_of_routers(
    member: Client, two: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With none to follow, the path ends where it begins; otherwise a circle of routers would have no end."""
    monkeypatch.setattr("cumulet.compute.packet_path.MOST_ROUTERS", 0)
    path = told(member, *two)
    assert (path["arrives"], path["hops"][-1]["at"]) == (False, "router")
    assert path["reason"] == "goes-round-in-circles"


def test_hosts_are_told_to_administrators_only(member: Client, admin: Client, two: tuple[str, str]) -> None:
    assert {hop["host"] for hop in told(member, *two)["hops"]} == {None}
    assert {hop["host"] for hop in told(admin, *two)["hops"]} <= {"host1", "host2"}


def test_another_projects_ports_are_answered_like_unknown_ones(
    cloud: TestCloud, member: Client, two: tuple[str, str]
) -> None:
    other = cloud.persona("other_member")
    network = made(other, "network", name="theirs")
    made(other, "subnet", network_id=network, cidr="10.9.0.0/24", ip_version=4)
    theirs = port_of(other, network)
    for ends in ((two[0], theirs), (theirs, two[0]), (theirs, "192.0.2.7"), ("192.0.2.7", theirs)):
        answer = member.compute("GET", f"{PATHS}/{'/'.join(ends)}")
        assert (answer.status, answer["itemNotFound"]["message"]) == (404, f"Port {theirs} could not be found.")


def test_what_becomes_of_a_packet_at_another_projects_port_is_not_told(
    cloud: TestCloud, member: Client, admin: Client
) -> None:
    other = cloud.persona("other_member")
    shared = made(admin, "network", name="shared", shared=True)
    made(admin, "subnet", network_id=shared, cidr="10.3.0.0/24", ip_version=4)
    ours, theirs = port_of(member, shared), port_of(other, shared)
    address = admin.request("GET", f"/network/v2.0/ports/{theirs}")["port"]["fixed_ips"][0]["ip_address"]
    untold = [told(member, ours, to) for to in (address, "10.3.0.250")]
    for path in untold:
        assert (path["arrives"], path["reason"], path["hops"][-1]["rule"]) == (None, "beyond-sight", None)
    assert told(admin, ours, address)["reason"] == "no-rule-ingress"
    assert told(admin, ours, "10.3.0.250")["reason"] == "address-of-nobody"


def test_another_projects_floating_ip_looks_like_any_address_outside(
    cloud: TestCloud, member: Client, admin: Client
) -> None:
    floating = []
    for client in (member, cloud.persona("other_member")):
        network = made(client, "network", name="n")
        subnet = made(client, "subnet", network_id=network, cidr="10.2.0.0/24", ip_version=4)
        routed(client, subnet, outside=True)
        port = port_of(client, network)
        public = client.request("GET", "/network/v2.0/networks?router:external=true")["networks"][0]["id"]
        wanted = {"floatingip": {"floating_network_id": public, "port_id": port}}
        made_one = client.request("POST", "/network/v2.0/floatingips", wanted)
        floating.append((port, made_one["floatingip"]["floating_ip_address"]))
    (ours, our_address), (_, their_address) = floating
    path = told(member, ours, their_address)
    assert (path["arrives"], path["reason"]) == (True, "outside")
    assert [hop["at"] for hop in path["hops"]] == ["sender", "router", "outside"]
    assert told(admin, ours, their_address)["reason"] == "no-rule-ingress"
    assert told(member, "192.0.2.7", our_address)["hops"][1]["leaves"]["destination"].startswith("10.2.0.")
    for client, address in ((member, their_address), (member, "172.24.4.250"), (admin, "172.24.4.250")):
        answer = client.compute("GET", f"{PATHS}/192.0.2.7/{address}")
        assert (answer.status, answer["itemNotFound"]["message"]) == (404, f"Floating IP {address} could not be found.")


def test_every_reason_has_words() -> None:
    """Those in the source of the decisions, read from it."""
    import inspect
    import re

    sources = [inspect.getsource(module) for module in (packet_path, routing, verdict)]
    found = {word for source in sources for word in re.findall(r'"([a-z]+(?:-[a-z0-9]+)+)"', source)}
    assert len(found) > 20
    assert found - explain_path.WORDS.keys() == set()
