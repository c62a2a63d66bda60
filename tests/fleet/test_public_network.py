"""The machine's own leg on `public`: it reaches floating IPs, and guests do not reach it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cumulet.fleet.local_networks import PUBLIC_DEVICE, LocalNetworks
from cumulet.fleet.public_network import NotPublic, join_interface, join_machine, leg_name
from tests.linux_network.lab import needs_packets
from tests.linux_network.stacks import Stack

pytestmark = needs_packets
GATEWAY = ["172.24.4.1/24"]


@pytest.fixture
def machine() -> Iterator[Stack]:
    made = Stack("machine")
    yield made
    made.remove()


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalNetworks]:
    made = LocalNetworks(tmp_path, ["host1", "host2"])
    made.make()
    yield made
    made.remove()


@pytest.fixture
def host(local: LocalNetworks) -> Iterator[Stack]:
    """In place of a router: a host with an address on `public`."""
    found = Stack(f"{local.prefix}-host1", there=True)
    found.ip("address", "add", "172.24.4.9/24", "dev", PUBLIC_DEVICE)
    found.ip("link", "set", PUBLIC_DEVICE, "up")
    yield found
    found.remove()


def test_the_machine_reaches_what_is_on_public_and_is_only_pinged_from_there(
    machine: Stack, local: LocalNetworks, host: Stack
) -> None:
    for _ in range(2):  # The second time is a start that finds what the first has left.
        words = machine.do(lambda: join_machine(local, GATEWAY))
        assert words.startswith(f"this machine is 172.24.4.1/24 on `public` (interface {leg_name(local)})")
    with host.serving("172.24.4.9", 80), machine.serving("0.0.0.0", 80):
        assert machine.asks("172.24.4.9", 80) == "172.24.4.1"
        assert host.pings("172.24.4.1")
        assert host.asks("172.24.4.1", 80) is None


def test_a_machine_that_uses_the_addresses_itself_is_left_alone_and_it_is_said(
    machine: Stack, local: LocalNetworks
) -> None:
    machine.ip("address", "add", "172.24.0.1/16", "dev", "lo")
    machine.ip("link", "add", "theirs", "type", "veth", "peer", "name", "other")
    machine.ip("address", "add", "172.24.4.200/25", "dev", "theirs")
    machine.ip("link", "set", "theirs", "up")
    words = machine.do(lambda: join_machine(local, GATEWAY))
    assert words.startswith("this machine is not on `public`")
    assert "overlaps with 172.24.4.0/24" in words
    names = machine.do(lambda: {name for _, name in socket.if_nameindex()})
    assert leg_name(local) not in names
    assert machine.do(lambda: join_machine(local, [])).startswith("there is no subnet on `public`")


def test_an_interface_leads_further_unless_the_machine_needs_it(
    machine: Stack, local: LocalNetworks, host: Stack
) -> None:
    beyond = Stack("beyond")
    try:
        machine.ip("link", "add", "eth1", "type", "veth", "peer", "name", "eth0", "netns", beyond.namespace)
        beyond.ip("address", "add", "172.24.4.1/24", "dev", "eth0")
        beyond.ip("link", "set", "eth0", "up")
        machine.ip("address", "add", "192.0.2.77/24", "dev", "eth1")
        for name, reason in (
            ("eth1", "has addresses of this machine"),
            ("eth7", "has no interface eth7"),
            ("lo", "lo cannot lead to `public`: .*Invalid argument"),  # What the kernel refuses has a sentence, too.
        ):
            with pytest.raises(NotPublic, match=reason):
                machine.do(lambda name=name: join_interface(local, name))  # type: ignore[misc]
        machine.ip("address", "del", "192.0.2.77/24", "dev", "eth1")
        for _ in range(2):
            assert "goes on through eth1" in machine.do(lambda: join_interface(local, "eth1"))
        with host.serving("172.24.4.9", 80):
            assert beyond.asks("172.24.4.9", 80) == "172.24.4.1"
    finally:
        beyond.remove()
