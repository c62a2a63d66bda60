"""A server's port is ACTIVE because its host says that it is plugged: before the server is ACTIVE, until it stops."""

from __future__ import annotations

import pytest

from cumulet.fleet.hosts import Hosts
from cumulet.host.wiring import InForce
from cumulet.testing import Client, TestCloud
from tests.api.test_network_stories import make, network_with_subnet


@pytest.fixture
def network(member: Client) -> str:
    return network_with_subnet(member)[0]


def boot(member: Client, **server: object) -> str:
    flavor = next(f["id"] for f in member.compute("GET", "/flavors")["flavors"] if f["name"] == "m1.nano")
    image = member.request("GET", "/image/v2/images")["images"][0]["id"]
    body = {"server": {"name": "s", "flavorRef": flavor, "imageRef": image, **server}}
    made: str = member.compute("POST", "/servers", body, version="2.37")["server"]["id"]
    return made


def status_of(member: Client, port: str) -> str:
    found: str = member.request("GET", f"/network/v2.0/ports/{port}")["port"]["status"]
    return found


def test_a_port_follows_its_guest(cloud: TestCloud, member: Client, network: str) -> None:
    port = make(member, "port", network_id=network)["id"]
    assert status_of(member, port) == "DOWN"
    server = boot(member, networks=[{"port": port}])
    member.wait_for_status(server, "ACTIVE")
    assert status_of(member, port) == "ACTIVE"
    for action, status, expected in (
        ("os-stop", "SHUTOFF", "DOWN"),
        ("os-start", "ACTIVE", "ACTIVE"),
        ("suspend", "SUSPENDED", "DOWN"),
        ("resume", "ACTIVE", "ACTIVE"),
    ):
        assert member.action(server, {action: None}).status == 202
        member.wait_for_status(server, status)
        assert (action, status_of(member, port)) == (action, expected)
    assert (
        cloud.persona("admin").action(server, {"os-migrateLive": {"host": None, "block_migration": "auto"}}).status
        == 202
    )
    member.wait_for_status(server, "ACTIVE")
    cloud.idle()
    assert status_of(member, port) == "ACTIVE"
    assert member.compute("DELETE", f"/servers/{server}").status == 204
    member.wait("its end", lambda: member.compute("GET", f"/servers/{server}").status == 404)
    assert status_of(member, port) == "DOWN"


def test_a_server_is_active_after_its_host_has_said_that_its_ports_are_plugged(
    cloud: TestCloud, member: Client, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen while the host is asked: the guest is there, and neither server nor port is ACTIVE yet."""
    port = make(member, "port", network_id=network)["id"]
    seen: list[tuple[str, str]] = []
    asked = Hosts.in_force

    async def in_force(self: Hosts, host: str) -> InForce:
        query = "SELECT p.status, s.vm_state FROM ports p JOIN servers s ON s.id = p.server_id"
        with cloud.embedded.db.engine.connect() as connection:
            seen.extend((row[0], row[1]) for row in connection.exec_driver_sql(query))
        return await asked(self, host)

    monkeypatch.setattr(Hosts, "in_force", in_force)
    server = boot(member, networks=[{"port": port}])
    member.wait_for_status(server, "ACTIVE")
    assert seen[0] == ("DOWN", "building")
    assert status_of(member, port) == "ACTIVE"


def test_what_happens_outside_of_operations_is_learned_from_the_host(
    cloud: TestCloud, member: Client, network: str
) -> None:
    """A guest that powers itself off unplugs its ports."""
    port = make(member, "port", network_id=network)["id"]
    server = boot(member, networks=[{"port": port}])
    member.wait_for_status(server, "ACTIVE")
    host = next(host for host in cloud.hosts if server in cloud.guests(host))
    world = cloud.embedded.world
    assert world is not None
    cloud.await_(world.drivers[host].stop(server, grace_seconds=0.0))
    cloud.reconcile()
    assert member.server(server)["status"] == "SHUTOFF"
    assert status_of(member, port) == "DOWN"


def test_a_port_that_is_administratively_down_is_down_although_a_guest_is_plugged_in(
    cloud: TestCloud, member: Client, network: str
) -> None:
    def set_up(port: str, *, up: bool) -> None:
        member.request("PUT", f"/network/v2.0/ports/{port}", {"port": {"admin_state_up": up}})
        cloud.reconcile()

    port, later = (make(member, "port", network_id=network, admin_state_up=False)["id"] for _ in range(2))
    server = boot(member, networks=[{"port": port}])
    member.wait_for_status(server, "ACTIVE")
    body = {"interfaceAttachment": {"port_id": later}}
    assert member.compute("POST", f"/servers/{server}/os-interface", body).status == 200
    cloud.idle()
    assert [status_of(member, one) for one in (port, later)] == ["DOWN", "DOWN"]
    set_up(port, up=True)
    assert [status_of(member, one) for one in (port, later)] == ["ACTIVE", "DOWN"]
    set_up(port, up=False)
    assert status_of(member, port) == "DOWN"
