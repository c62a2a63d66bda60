"""The watcher of a guest's frames: its report of a guest on two hosts by turns, and of one that has moved."""

from __future__ import annotations

from msgspec.structs import replace

from cumulet.host import wiring as w
from tests.linux_network.lab import Guest, Lab, lab, needs_packets
from tests.linux_network.wirings import ALL_IN, ALL_OUT, group, network, port, revisions, udp
from tests.qemu.frame_watch import FrameWatch

pytestmark = needs_packets


async def both(place: Lab, one: w.Port, peer: w.Port) -> dict[str, Guest]:
    """The same port on two hosts at once, which no cloud does."""
    guests = {}
    for host in place.namespaces:
        made = w.Wiring(
            host=host,
            revision=next(revisions),
            networks=(network(),),
            ports=(one, peer),
            groups=(group(*ALL_OUT, *ALL_IN),),
        )
        await place.networks[host].apply(made)
        guests[host] = await place.plug(host, one)
    return guests


async def test_a_guest_that_has_moved_is_heard_from_one_host_and_then_from_the_other() -> None:
    async with lab(["host1", "host2"]) as place:
        one, peer = port("10.0.0.1"), port("10.0.0.2")
        guests = await both(place, one, peer)
        with FrameWatch(one.id, one.mac, place.namespaces) as watch:
            for number, host in enumerate(("host1", "host1", "host2"), start=1):
                guests[host].send(udp(one, peer))
                watch.until(number)  # Two CPUs may hear two frames in another order.
            guests["host2"].send(udp(replace(one, mac=peer.mac), peer))  # Another sender.
        assert watch.turns() == [("host1", 2), ("host2", 1)]
        assert watch.double() == []


async def test_a_guest_that_is_heard_on_a_host_again_after_another_was_twice_there() -> None:
    async with lab(["host1", "host2"]) as place:
        one, peer = port("10.0.0.1"), port("10.0.0.2")
        guests = await both(place, one, peer)
        with FrameWatch(one.id, one.mac, place.namespaces) as watch:
            for number, host in enumerate(("host1", "host2", "host1"), start=1):
                guests[host].send(udp(one, peer))
                watch.until(number)
        assert watch.double() == ["frames came by turns: [('host1', 1), ('host2', 1), ('host1', 1)]"]
