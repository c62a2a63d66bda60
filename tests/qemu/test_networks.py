"""Real guests on a network: they get their addresses, reach each other as groups allow, and go on while one moves."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cumulet.testing
from cumulet.drivers.qemu.facts import QemuFacts
from cumulet.host.driver import Image
from cumulet.testing import Client, TestCloud
from tests.api.servers import host_of, image_and_flavor, last_migration, other
from tests.linux_network.lab import problem

pytestmark = [pytest.mark.qemu, pytest.mark.skipif(problem() is not None, reason=problem() or "")]


@pytest.fixture(scope="module")
def cloud(facts: QemuFacts, image: Image) -> Iterator[TestCloud]:
    del facts, image
    with cumulet.testing.cloud(hosts=2, driver="qemu") as running:
        yield running


def network_of(client: Client, cidr: str) -> str:
    made = client.request("POST", "/network/v2.0/networks", {"network": {"name": "n"}})
    network: str = made["network"]["id"]
    subnet = {"network_id": network, "cidr": cidr, "ip_version": 4, "gateway_ip": None}
    assert client.request("POST", "/network/v2.0/subnets", {"subnet": subnet}).status == 201
    return network


def boot(member: Client, network: str, settings: str, **more: object) -> tuple[str, str]:
    """A server on a network; its id and address."""
    wanted = image_and_flavor(member) | {
        "name": "one",
        "networks": [{"uuid": network}],
        "user_data": base64.b64encode(settings.encode()).decode(),
    }
    server = member.compute("POST", "/servers", {"server": wanted | more})["server"]["id"]
    member.wait_for_status(server, "ACTIVE")
    (address,) = member.server(server)["addresses"].values()
    return server, address[0]["addr"]


def console(client: Client, server: str) -> str:
    output: str = client.action(server, {"os-getConsoleOutput": {"length": 200}})["output"]
    return output


def pongs(client: Client, server: str) -> int:
    found = re.findall(r"pong (\d+) ", console(client, server))
    return int(found[-1]) if found else 0


def answers_of(member: Client, server: str, more: int = 5) -> None:
    before = pongs(member, server)
    member.wait("answers to its pings", lambda: pongs(member, server) >= before + more, seconds=60)


def test_guests_get_their_addresses_and_ping_each_other_through_a_move(cloud: TestCloud) -> None:
    admin, member = cloud.persona("admin"), cloud.persona("member")
    network = network_of(member, "10.9.0.0/24")
    still, address = boot(member, network, "tick_ms=0\n")
    member.wait("its address", lambda: f"eth0 has {address}" in console(member, still), seconds=60)
    moving, _ = boot(member, network, f"tick_ms=0\npeer={address.rpartition('.')[2]}\n")
    answers_of(member, moving)
    for _ in range(2):
        destination = other(host_of(admin, moving))
        move = {"os-migrateLive": {"block_migration": "auto", "host": destination}}
        assert admin.action(moving, move).status == 202
        admin.wait("the move", lambda: last_migration(admin, moving)["status"] == "completed", seconds=120)
        assert host_of(admin, moving) == destination
        answers_of(member, moving)
        assert port_status(member, moving) == "ACTIVE"
    assert member.action(still, {"os-stop": None}).status == 202
    member.wait_for_status(still, "SHUTOFF")
    assert port_status(member, still) == "DOWN"
    for server in (still, moving):
        assert member.compute("DELETE", f"/servers/{server}").status == 204


def test_a_group_without_rules_lets_nothing_in_and_a_new_rule_does(cloud: TestCloud) -> None:
    member = cloud.persona("member")
    network = network_of(member, "10.9.0.0/24")  # As in the other test: another network, the same addresses.
    made = member.request("POST", "/network/v2.0/security-groups", {"security_group": {"name": "closed"}})
    group = made["security_group"]["id"]
    still, address = boot(member, network, "tick_ms=0\n", security_groups=[{"name": "closed"}])
    member.wait("its address", lambda: f"eth0 has {address}" in console(member, still), seconds=60)
    asking, _ = boot(member, network, f"tick_ms=0\npeer={address.rpartition('.')[2]}\n")
    member.wait("a ping in vain", lambda: unanswered(member, asking), seconds=60)
    assert pongs(member, asking) == 0
    rule = {"security_group_id": group, "direction": "ingress", "ethertype": "IPv4", "protocol": "icmp"}
    new = member.request("POST", "/network/v2.0/security-group-rules", {"security_group_rule": rule})
    answers_of(member, asking)
    rule_id = new["security_group_rule"]["id"]
    assert member.request("DELETE", f"/network/v2.0/security-group-rules/{rule_id}").status == 204
    member.wait("the rule's end", lambda: unanswered(member, asking), seconds=60)
    for server in (still, asking):
        assert member.compute("DELETE", f"/servers/{server}").status == 204


def test_a_moving_guest_takes_its_subports_along(cloud: TestCloud) -> None:
    """Their frames are looked at in `tests/linux_network/test_trunks.py`: the tiny guest has no VLANs."""
    admin, member = cloud.persona("admin"), cloud.persona("member")
    if not any("trunks" in agent["configurations"]["features"] for agent in agents(admin)):
        pytest.skip("this kernel loads no programs for subports")
    ports = [new_port(member, network_of(member, cidr)) for cidr in ("10.10.0.0/24", "10.11.0.0/24", "10.12.0.0/24")]
    parent, first, late = ports
    made = member.request("POST", "/network/v2.0/trunks", {"trunk": {"port_id": parent, "sub_ports": [vlan(first, 7)]}})
    trunk = made["trunk"]["id"]
    server = member.compute(
        "POST", "/servers", {"server": image_and_flavor(member) | {"name": "t", "networks": [{"port": parent}]}}
    )["server"]["id"]
    member.wait_for_status(server, "ACTIVE")
    assert trunk_status(member, trunk) == "ACTIVE"
    path = f"/network/v2.0/trunks/{trunk}/add_subports"
    assert member.request("PUT", path, {"sub_ports": [vlan(late, 8)]}).status == 200
    member.wait("the late subport", lambda: trunk_status(member, trunk) == "ACTIVE", seconds=60)
    destination = other(host_of(admin, server))
    assert admin.action(server, {"os-migrateLive": {"block_migration": "auto", "host": destination}}).status == 202
    admin.wait("the move", lambda: last_migration(admin, server)["status"] == "completed", seconds=120)
    for port in ports:
        shown = admin.request("GET", f"/network/v2.0/ports/{port}")["port"]
        assert (shown["binding:host_id"], shown["status"]) == (destination, "ACTIVE")
    assert member.action(server, {"os-stop": None}).status == 202
    member.wait_for_status(server, "SHUTOFF")
    assert trunk_status(member, trunk) == "DOWN"
    assert member.compute("DELETE", f"/servers/{server}").status == 204


def agents(admin: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = admin.request("GET", "/network/v2.0/agents")["agents"]
    return found


def new_port(member: Client, network: str) -> str:
    made: str = member.request("POST", "/network/v2.0/ports", {"port": {"network_id": network}})["port"]["id"]
    return made


def vlan(port: str, tag: int) -> dict[str, object]:
    return {"port_id": port, "segmentation_type": "vlan", "segmentation_id": tag}


def trunk_status(member: Client, trunk: str) -> str:
    status: str = member.request("GET", f"/network/v2.0/trunks/{trunk}")["trunk"]["status"]
    return status


def port_status(member: Client, server: str) -> str:
    (port,) = member.request("GET", f"/network/v2.0/ports?device_id={server}")["ports"]
    status: str = port["status"]
    return status


def unanswered(member: Client, server: str) -> bool:
    """Whether its newest ping got no answer."""
    said = re.findall(r"(pong|silence) \d+ ", console(member, server))
    return bool(said) and said[-1] == "silence"


def test_a_cloud_that_has_stopped_leaves_no_namespace(facts: QemuFacts, image: Image) -> None:
    del facts, image
    with cumulet.testing.cloud(hosts=2, driver="qemu") as running:
        agents = running.embedded._agents
        assert agents is not None
        assert agents.networks is not None
        made = list(Path("/run/netns").glob(f"{agents.networks.prefix}-*"))
        assert len(made) == 3
        routers = [f"cmr-{path.stat().st_ino}-" for path in made]

        def router() -> bool:
            return any(list(Path("/run/netns").glob(f"{beginning}*")) for beginning in routers)

        running.persona("admin").wait("the router of project demo", router, seconds=30)
    assert not any(path.exists() for path in made)
    assert not router()


def test_a_provider_network_that_no_host_could_connect_is_refused_in_words(cloud: TestCloud) -> None:
    admin = cloud.persona("admin")
    for kind, more in (
        ("vlan", {"provider:physical_network": "public", "provider:segmentation_id": 7}),
        ("flat", {"provider:physical_network": "elsewhere"}),
    ):
        wanted = {"provider:network_type": kind, **more}
        answer = admin.request("POST", "/network/v2.0/networks", {"network": wanted})
        assert answer.status == 501
        assert f"do not connect real guests to {kind}" in answer.text
