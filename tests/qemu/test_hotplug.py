"""Ports that come and go while a real guest runs: packets flow over them, a move takes them along, nothing is left."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from pyroute2 import NetNS

import cumulet.testing
from cumulet.drivers.linux_network import names
from cumulet.drivers.qemu.facts import QemuFacts
from cumulet.drivers.qemu.hotplug import UNPLUG_SECONDS
from cumulet.host.driver import Image
from cumulet.testing import Client, TestCloud
from tests.api.servers import host_of, last_migration, other
from tests.linux_network.lab import problem
from tests.qemu.test_networks import boot, console, network_of

pytestmark = [pytest.mark.qemu, pytest.mark.skipif(problem() is not None, reason=problem() or "")]


@pytest.fixture(scope="module")
def cloud(facts: QemuFacts, image: Image) -> Iterator[TestCloud]:
    del facts, image
    with cumulet.testing.cloud(hosts=2, driver="qemu") as running:
        yield running


def ports(client: Client, server: str) -> dict[str, str]:
    """Port id -> state."""
    answer = client.compute("GET", f"/servers/{server}/os-interface")
    return {port["port_id"]: port["port_state"] for port in answer["interfaceAttachments"]}


def attach(client: Client, server: str, network: str) -> dict[str, str]:
    body = {"interfaceAttachment": {"net_id": network}}
    answer = client.compute("POST", f"/servers/{server}/os-interface", body)
    assert answer.status == 200, answer.text
    found: dict[str, str] = answer["interfaceAttachment"]
    client.wait("the port to work", lambda: ports(client, server).get(found["port_id"]) == "ACTIVE", seconds=60)
    return found


def having(tap: str) -> int:
    """In how many of this machine's network namespaces there is a tap of this name: one is a host."""
    with_it = 0
    for namespace in Path("/run/netns").glob("*"):
        try:
            with NetNS(namespace.name, flags=0) as inside:
                with_it += bool(inside.link_lookup(ifname=tap))
        except OSError:  # Another test's, gone meanwhile.
            continue
    return with_it


def said(client: Client, server: str, pattern: str) -> int:
    return len(re.findall(pattern, console(client, server)))


def move_to_and_fro(admin: Client, server: str) -> None:
    """Live, to the other host and back."""
    for _ in range(2):
        destination = other(host_of(admin, server))
        move = {"os-migrateLive": {"block_migration": "auto", "host": destination}}
        assert admin.action(server, move).status == 202
        admin.wait("the move", lambda: last_migration(admin, server)["status"] == "completed", seconds=120)
        assert host_of(admin, server) == destination


def test_a_port_is_plugged_in_moves_along_and_is_pulled_out(cloud: TestCloud) -> None:
    admin, member = cloud.persona("admin"), cloud.persona("member")
    first, second = network_of(member, "10.9.1.0/24"), network_of(member, "10.9.2.0/24")
    server, address = boot(member, first, "tick_ms=0\n")
    member.wait("its address", lambda: said(member, server, f"eth0 has {re.escape(address)}"), seconds=60)
    port = attach(member, server, second)
    member.wait("the second address", lambda: said(member, server, r"eth1 has 10\.9\.2\."), seconds=60)
    with pytest.raises(AssertionError, match="still in use"):
        attach_port(member, server, port["port_id"])
    move_to_and_fro(admin, server)
    tap = names.tap(port["port_id"])
    assert having(tap) == 1
    assert member.compute("DELETE", f"/servers/{server}/os-interface/{port['port_id']}").status == 202
    member.wait("the port's end", lambda: port["port_id"] not in ports(member, server), seconds=60)
    member.wait("the guest to say so", lambda: said(member, server, "eth1 is gone"), seconds=60)
    assert having(tap) == 0
    assert member.request("GET", f"/network/v2.0/ports/{port['port_id']}").status == 404
    # The place is free again, and a guest that has lost a NIC moves as well as any.
    attach(member, server, second)
    destination = other(host_of(admin, server))
    assert admin.action(server, {"os-migrateLive": {"block_migration": "auto", "host": destination}}).status == 202
    admin.wait("the move", lambda: last_migration(admin, server)["status"] == "completed", seconds=120)
    assert host_of(admin, server) == destination
    assert member.compute("DELETE", f"/servers/{server}").status == 204


def detached_with(client: Client, server: str, port: str, seconds: float) -> str:
    """Why the guest keeps this port."""
    assert client.compute("DELETE", f"/servers/{server}/os-interface/{port}").status == 202
    path = f"/servers/{server}/os-instance-actions"

    def told() -> str:
        newest = client.compute("GET", path)["instanceActions"][0]
        (event,) = client.compute("GET", f"{path}/{newest['request_id']}")["instanceAction"]["events"]
        assert event["event"] == "compute_detach_interface"
        return f"{event['result']}: {event.get('details')}" if event["finish_time"] else ""

    client.wait("the end of the action", lambda: told() != "", seconds=seconds)
    return told()


def test_a_paused_guest_keeps_its_port_also_when_it_runs_again(cloud: TestCloud) -> None:
    admin = cloud.persona("admin")
    server, address = boot(admin, network_of(admin, "10.9.3.0/24"), "tick_ms=0\n")
    admin.wait("its address", lambda: said(admin, server, f"eth0 has {re.escape(address)}"), seconds=60)
    (port,) = ports(admin, server)
    admin.action(server, {"pause": None})
    admin.wait_for_status(server, "PAUSED")
    assert "STANDS_STILL" in detached_with(admin, server, port, seconds=UNPLUG_SECONDS / 2)
    assert ports(admin, server) == {port: "ACTIVE"}
    assert admin.action(server, {"unpause": None}).status == 202
    admin.wait_for_status(server, "ACTIVE")
    other_port = attach(admin, server, network_of(admin, "10.9.4.0/24"))["port_id"]
    admin.wait("the second address", lambda: said(admin, server, r"eth1 has 10\.9\.4\."), seconds=60)
    assert said(admin, server, "is gone") == 0, "nobody has asked it for a NIC"
    assert ports(admin, server) == {port: "ACTIVE", other_port: "ACTIVE"}
    assert admin.compute("DELETE", f"/servers/{server}").status == 204


def attach_port(client: Client, server: str, port_id: str) -> None:
    answer = client.compute("POST", f"/servers/{server}/os-interface", {"interfaceAttachment": {"port_id": port_id}})
    assert answer.status == 200, answer.text


def done(client: Client, server: str, event: str) -> bool:
    """Whether the newest action has this event, and it has succeeded. It must not have failed."""
    path = f"/servers/{server}/os-instance-actions"
    newest = client.compute("GET", path)["instanceActions"][0]
    events = client.compute("GET", f"{path}/{newest['request_id']}")["instanceAction"]["events"]
    assert all(one["result"] in (None, "Success") for one in events), events
    return any(one["event"] == event and one["result"] == "Success" for one in events)


def test_a_guest_that_has_powered_itself_off_gets_a_port_and_moves(cloud: TestCloud) -> None:
    """QEMU keeps its process until something is asked of it."""
    admin = cloud.persona("admin")
    first, second = network_of(admin, "10.9.5.0/24"), network_of(admin, "10.9.6.0/24")
    server, _ = boot(admin, first, "tick_ms=0\npoweroff_after_s=2\n")
    admin.wait_for_status(server, "SHUTOFF", seconds=120)
    body = {"interfaceAttachment": {"net_id": second}}
    assert admin.compute("POST", f"/servers/{server}/os-interface", body).status == 200
    admin.wait("the port", lambda: done(admin, server, "compute_attach_interface"), seconds=60)
    (mine,) = boot(admin, first, "tick_ms=0\npoweroff_after_s=2\n")[:1]
    admin.wait_for_status(mine, "SHUTOFF", seconds=120)
    for moved, number in ((server, 2), (mine, 1)):
        source = host_of(admin, moved)
        assert admin.action(moved, {"migrate": None}).status == 202
        admin.wait_for_status(moved, "VERIFY_RESIZE", seconds=120)
        assert host_of(admin, moved) == other(source)
        assert admin.action(moved, {"confirmResize": None}).status == 204
        admin.wait_for_status(moved, "SHUTOFF", seconds=60)
        assert len(ports(admin, moved)) == number
        assert admin.action(moved, {"os-start": None}).status == 202
        admin.wait("a boot", partial(said, admin, moved, "poweroff now"), seconds=120)
        assert admin.compute("DELETE", f"/servers/{moved}").status == 204


def deleted(client: Client, server: str, port: str) -> None:
    """In Network: the guest still has its NIC, and does not run."""
    assert client.request("DELETE", f"/network/v2.0/ports/{port}").status == 204
    client.wait("the port's end", lambda: port not in ports(client, server))


def test_a_guest_whose_port_was_deleted_while_it_was_suspended_is_resumed_without_it(cloud: TestCloud) -> None:
    admin = cloud.persona("admin")
    server, _ = boot(admin, network_of(admin, "10.9.7.0/24"), "")
    port = attach(admin, server, network_of(admin, "10.9.8.0/24"))["port_id"]
    admin.wait("the second address", lambda: said(admin, server, r"eth1 has 10\.9\.8\."), seconds=60)
    admin.action(server, {"suspend": None})
    admin.wait_for_status(server, "SUSPENDED", seconds=60)
    deleted(admin, server, port)
    assert admin.action(server, {"resume": None}).status == 202
    admin.wait_for_status(server, "ACTIVE", seconds=60)
    admin.wait("the guest to lose its NIC", lambda: said(admin, server, "eth1 is gone"), seconds=60)
    assert having(names.tap(port)) == 0
    move_to_and_fro(admin, server)
    assert admin.compute("DELETE", f"/servers/{server}").status == 204


def test_a_guest_whose_port_was_deleted_before_it_comes_back_from_a_resize_starts_without_it(cloud: TestCloud) -> None:
    admin = cloud.persona("admin")
    server, _ = boot(admin, network_of(admin, "10.9.10.0/24"), "")
    port = attach(admin, server, network_of(admin, "10.9.11.0/24"))["port_id"]
    source = host_of(admin, server)
    assert admin.action(server, {"migrate": None}).status == 202
    admin.wait_for_status(server, "VERIFY_RESIZE", seconds=120)
    deleted(admin, server, port)
    assert admin.action(server, {"revertResize": None}).status == 202
    admin.wait_for_status(server, "ACTIVE", seconds=120)
    assert host_of(admin, server) == source
    assert len(ports(admin, server)) == 1

    def gone() -> bool:
        """A guest that is just starting may not hear that it is to let go of a NIC. The next process has none."""
        assert admin.action(server, {"reboot": {"type": "HARD"}}).status == 202
        admin.wait_for_status(server, "ACTIVE", seconds=60)
        return having(names.tap(port)) == 0

    admin.wait("its NIC to go", gone, seconds=90)
    assert admin.compute("DELETE", f"/servers/{server}").status == 204
