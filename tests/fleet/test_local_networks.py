"""Namespaces of one machine's hosts: a failed start leaves none behind, and the end of a cloud removes all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cumulet.testing
from cumulet.drivers.linux_network import names, namespaces, taps
from cumulet.fleet.local_agents import AgentProcesses
from cumulet.fleet.local_networks import LocalNetworks
from cumulet.host import messages as m
from tests.linux_network.lab import needs_packets

pytestmark = needs_packets


@pytest.fixture
def two(tmp_path: Path) -> Iterator[LocalNetworks]:
    """Left by a cloud of two hosts that was killed."""
    made = LocalNetworks(tmp_path, ["host1", "host2"])
    made.make()
    yield made
    made.remove()


def there(local: LocalNetworks) -> set[str]:
    return {name.removeprefix(f"{local.prefix}-") for name in namespaces.named(local.prefix)}


def test_a_start_that_fails_leaves_the_namespaces_that_it_has_found_and_no_others(
    tmp_path: Path, two: LocalNetworks, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_agents: AgentProcesses, _hosts: object) -> None:
        assert there(two) == {"wire", "host1", "host2", "host3"}
        raise m.HostUnreachable("no agent starts")

    monkeypatch.setattr(AgentProcesses, "start", fails)
    for found in ({"wire", "host1", "host2"}, set()):
        with (
            pytest.raises(m.HostUnreachable, match="no agent starts"),
            cumulet.testing.cloud(driver="qemu", hosts=3, state=tmp_path),
        ):
            pass
        assert there(two) == found
        two.remove()


def test_hosts_that_a_killed_cloud_had_and_the_next_has_not_go_with_it(tmp_path: Path, two: LocalNetworks) -> None:
    router = f"{names.namespaces_of((namespaces.FOLDER / f'{two.prefix}-host2').stat().st_ino)}0123456789ab"
    namespaces.make(router)
    one = LocalNetworks(tmp_path, ["host1"])
    one.make()
    assert there(two) == {"wire", "host1", "host2"}
    one.remove()
    assert there(two) == set()
    assert not namespaces.named(router)


LEAVE = "from cumulet.fleet.local_networks import LocalNetworks as L; from pathlib import Path as P; import sys; "
LEAVE += "L(P(sys.argv[1]), ['host1']).make()"


@pytest.fixture
def left(tmp_path: Path) -> Iterator[LocalNetworks]:
    """Left by a cloud whose process has ended."""
    folder = tmp_path / "left"
    subprocess.run([sys.executable, "-c", LEAVE, str(folder)], check=True)
    made = LocalNetworks(folder, ["host1"])
    yield made
    made.remove()


def test_what_a_killed_cloud_has_left_goes_when_the_next_one_starts(two: LocalNetworks, left: LocalNetworks) -> None:
    assert there(left) == {"wire", "host1"}
    router = f"{names.namespaces_of((namespaces.FOLDER / f'{left.prefix}-host1').stat().st_ino)}0123456789ab"
    namespaces.make(router)
    two.make()
    assert there(left) == set()
    assert not namespaces.named(router)
    assert there(two) == {"wire", "host1", "host2"}


def test_the_wire_goes_last_for_it_says_whose_the_others_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyroute2 import netns

    local = LocalNetworks(tmp_path, ["host1", "zeta"])
    local.make()
    gone: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(netns, "remove", gone.append)
        local.remove()
    local.remove()
    assert [name for name in gone if name.startswith(local.prefix)] == [
        f"{local.prefix}-{name}" for name in ("host1", "zeta", "wire")
    ]


def test_what_others_live_in_stays(two: LocalNetworks, left: LocalNetworks, tmp_path: Path) -> None:
    with namespaces.inside(f"{left.prefix}-host1"):
        tap = taps.open_tap(names.tap("0123456789ab"))
    try:
        two.make()
        assert there(left) == {"wire", "host1"}, "a guest is plugged in there"
    finally:
        os.close(tap)
    with namespaces.inside(f"{left.prefix}-host1"):
        two.make()
    assert there(left) == {"wire", "host1"}, "a thread was in there"
    alive = LocalNetworks(tmp_path / "alive", ["host1"])
    alive.make()
    try:
        two.make()
        assert there(alive) == {"wire", "host1"}, "its owner lives"
    finally:
        alive.remove()
    assert there(left) == set()
