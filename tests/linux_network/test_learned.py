"""How many MAC addresses a host learns from what guests send."""

from __future__ import annotations

import json
import platform
import subprocess

import pytest
from msgspec.structs import replace

from cumulet.drivers.linux_network import links, names, rtnetlink
from cumulet.host import wiring as w
from cumulet.host.driver import DriverError
from tests.linux_network import frames as f
from tests.linux_network.lab import Guest, Lab, lab, needs_packets
from tests.linux_network.wirings import ALL_IN, ALL_OUT, NETWORK, group, network, port, revisions

pytestmark = needs_packets


def bounds_learned() -> bool:
    return tuple(map(int, platform.release().split("-")[0].split(".")[:2])) >= (6, 7)


async def flooded(place: Lab, sender: Guest, receiver: Guest, number: int) -> None:
    """Frames from so many MAC addresses, of which each arrives."""
    for place_of in range(number):
        mac = f"02:00:00:aa:{place_of >> 8:02x}:{place_of & 255:02x}"
        data = f.transport(f.UDP, "10.0.0.1", "10.0.0.2", 4000, 5000, data=b"hello")
        frame = f.ip(mac, receiver.port.mac, "10.0.0.1", "10.0.0.2", f.UDP, data)
        assert await receiver.gets(sender, frame)


def learned(place: Lab) -> int:
    command = ["ip", "netns", "exec", place.namespaces["host1"], "bridge", "-j", "fdb", "show"]
    shown = subprocess.run([*command, "br", names.bridge(NETWORK)], check=True, capture_output=True)
    return sum(one["mac"].startswith("02:00:00:aa:") for one in json.loads(shown.stdout))


@pytest.mark.skipif(not bounds_learned(), reason="the kernel does not bound what bridges learn: Linux 6.7 does")
async def test_a_guest_without_port_security_has_so_many_mac_addresses_learned_and_all_its_frames_arrive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert links.MOST_LEARNED == 4096
    monkeypatch.setattr(links, "MOST_LEARNED", 10)
    async with lab(["host1"]) as place:
        host = place.networks["host1"]
        sending = port("10.0.0.1", secured=False, groups=())
        receiving = port("10.0.0.2")
        made = w.Wiring(
            host="host1",
            revision=next(revisions),
            networks=(network(),),
            ports=(sending, receiving),
            groups=(group(*ALL_OUT, *ALL_IN),),
        )
        assert (await host.apply(made)).not_done == ()
        one, two = await place.plug("host1", sending), await place.plug("host1", receiving)
        await flooded(place, one, two, 40)
        assert 0 < learned(place) <= 10


@pytest.mark.skipif(not bounds_learned(), reason="the kernel does not bound what bridges learn: Linux 6.7 does")
async def test_a_bridge_of_an_earlier_process_gets_the_bound() -> None:
    async with lab(["host1"]) as place:
        host = place.networks["host1"]
        made = w.Wiring(host="host1", networks=(network(),), ports=(port("10.0.0.1"),), groups=(group(*ALL_OUT),))
        await host.apply(replace(made, revision=next(revisions)))
        bridge = await _bridge(place)
        assert bridge.most_learned == links.MOST_LEARNED
        await host._run(lambda: rtnetlink.bound_learned(bridge.index, 0))
        assert (await _bridge(place)).most_learned == 0
        await host.apply(replace(made, revision=next(revisions)))  # The same again: it is compared with what is there.
        assert (await _bridge(place)).most_learned == links.MOST_LEARNED
        with pytest.raises(DriverError, match="No such device"):
            await host._run(lambda: rtnetlink.bound_learned(1 << 20, 1))


async def _bridge(place: Lab) -> rtnetlink.Link:
    host = place.networks["host1"]
    return (await host._run(host._links.present))[names.bridge(NETWORK)]
