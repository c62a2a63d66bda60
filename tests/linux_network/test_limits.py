"""Limits of bandwidth: of what a port may send and be sent, and of a floating IP; what is over them is counted."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import time
from functools import partial

import pytest
from msgspec.structs import replace

from cumulet.drivers.linux_network import limits, names, namespaces, nft, taps
from cumulet.host import wiring as w
from tests.linux_network import frames as f
from tests.linux_network.lab import Guest, Lab, lab, needs_packets, reopened
from tests.linux_network.stacks import Outside, Stack
from tests.linux_network.test_packets import wire
from tests.linux_network.test_routers import ROUTES, floating, site
from tests.linux_network.wirings import ALL_IN, ALL_OUT, group, port

pytestmark = needs_packets

OPEN = group(*ALL_OUT, *ALL_IN)
LIMIT = w.Limit(kbps=80)
A_SECOND_BYTES = 10_000
BYTES, COUNT = 1_000, 60
"""Of each frame, and how many are sent at once: six times what may pass in a second."""


def datagram(sender: w.Port, receiver: w.Port, number: int) -> bytes:
    source, target = sender.addresses[0], receiver.addresses[0]
    data = number.to_bytes(2, "big").ljust(BYTES - 42, b".")
    content = f.transport(f.UDP, source, target, 4000, 5000, data=data)
    return f.ip(sender.mac, receiver.mac, source, target, f.UDP, content)


def passed(sender: Guest, receiver: Guest) -> tuple[int, float]:
    """How many of `COUNT` frames arrive, and how long it took in seconds. A tap hands a frame on before `write`
    returns, so what has passed is there to be read."""
    began = time.monotonic()
    for number in range(COUNT):
        sender.send(datagram(sender.port, receiver.port, number))
    took = time.monotonic() - began
    sent = {datagram(sender.port, receiver.port, number) for number in range(COUNT)}
    arrived = 0
    while select.select([receiver.fd], [], [], 0.2)[0]:
        arrived += os.read(receiver.fd, 65_536)[taps.HEADER_BYTES :] in sent
    return arrived, took


def in_bounds(arrived: int, took: float, *, at_once: int = A_SECOND_BYTES) -> bool:
    """As many as the bucket holds, and at most what it was filled with meanwhile beyond it."""
    return at_once / BYTES - 1 <= arrived <= (at_once + took * A_SECOND_BYTES) / BYTES + 1


async def limited_and_free(place: Lab, **limit: w.Limit) -> tuple[Guest, Guest]:
    free, limited = port("10.0.0.1"), replace(port("10.0.0.2"), **limit)
    await wire(place, free, limited, groups=(OPEN,))
    return await place.plug("host1", limited), await place.plug("host1", free)


@pytest.mark.parametrize(("direction", "counter"), [("egress", "over_limit_out"), ("ingress", "over_limit_in")])
async def test_what_is_over_a_ports_limit_is_dropped_and_counted_one_way_only(direction: str, counter: str) -> None:
    async with lab(["host1"]) as place:
        limited, free = await limited_and_free(place, **{f"{direction}_limit": LIMIT})
        sender, receiver = (limited, free) if direction == "egress" else (free, limited)
        before = (await place.networks["host1"].counters())[counter]
        arrived, took = passed(sender, receiver)
        assert in_bounds(arrived, took)
        assert (await place.networks["host1"].counters())[counter] - before == COUNT - arrived
        assert passed(receiver, sender)[0] == COUNT, "the other way is free"


async def test_a_burst_larger_than_a_second_passes_at_once() -> None:
    async with lab(["host1"]) as place:
        limited, free = await limited_and_free(place, egress_limit=w.Limit(kbps=80, burst_kbit=320))
        arrived, took = passed(limited, free)
        assert in_bounds(arrived, took, at_once=40_000)


async def test_a_limit_that_changes_or_goes_counts_at_once_and_leaves_nothing() -> None:
    async with lab(["host1"]) as place:
        limited, free = await limited_and_free(place, egress_limit=LIMIT)
        assert passed(limited, free)[0] < COUNT
        more = replace(limited.port, egress_limit=w.Limit(kbps=8_192))
        await wire(place, free.port, more, groups=(OPEN,))
        assert passed(limited, free)[0] == COUNT
        assert [one.bytes_a_second for one in there(place).values()] == [1_024_000], "which nft calls 1,000 kbytes"
        await wire(place, free.port, replace(more, egress_limit=None), groups=(OPEN,))
        assert passed(limited, free)[0] == COUNT
        assert there(place) == {}


async def test_a_new_agent_finds_the_limits_that_are_there_and_removes_those_that_should_not_be() -> None:
    async with lab(["host1"]) as place:
        limited, free = await limited_and_free(place, egress_limit=LIMIT, ingress_limit=LIMIT)
        await place.networks["host1"].close()
        assert passed(limited, free)[0] < COUNT, "nobody is there, and it is in force"
        place.networks["host1"] = await reopened("192.0.2.1", place.namespaces["host1"])
        await wire(place, free.port, replace(limited.port, ingress_limit=None), groups=(OPEN,))
        (kept,) = there(place).values()
        assert (kept.bytes_a_second, kept.name.partition("_")[0]) == (A_SECOND_BYTES, "egress")
        assert passed(free, limited)[0] == COUNT


def there(place: Lab) -> dict[str, limits.NamedLimit]:
    with namespaces.inside(place.namespaces["host1"]):
        return nft.limits("bridge", names.TABLE)


def test_what_no_tap_could_pass_is_no_limit() -> None:
    largest = 2**31 - 1
    assert limits.named_limit("egress", "x", w.Limit(kbps=largest, burst_kbit=largest)) is None
    made = limits.named_limit("egress", "x", w.Limit(kbps=80_000_000, burst_kbit=largest))
    assert made is not None
    assert made.burst_bytes < 2**32, "more is no burst that nftables takes"


@pytest.mark.parametrize(
    ("limit", "counter"), [("egress_limit", "router_over_limit_out"), ("ingress_limit", "router_over_limit_in")]
)
async def test_what_is_over_a_floating_ips_limit_is_dropped_by_its_router_and_counted(limit: str, counter: str) -> None:
    async with site() as at:
        a, b = port("10.0.0.1"), port("10.0.0.2")
        slow = replace(floating("10.0.0.1"), **{limit: LIMIT})
        routed = replace(ROUTES, floating_ips=(slow, floating("10.0.0.2", "172.24.4.21")))
        await at.wire({"host1": [a, b], "host2": []}, {"host2": [routed]})
        one, other = await at.guest("host1", a, "10.0.0.254"), await at.guest("host1", b, "10.0.0.254")
        for guest, outside, limited in ((other, "172.24.4.21", False), (one, "172.24.4.20", True)):
            sender: Stack
            receiver: Stack
            if limit == "egress_limit":
                sender, receiver, to, heard_at = guest, at.outside, Outside.ADDRESS, Outside.ADDRESS
            else:
                sender, receiver, to, heard_at = at.outside, guest, outside, guest.port.addresses[0]
            assert sender.pings(to), "who has which address is known"
            listening = receiver.do(partial(_udp, heard_at))
            before = (await at.place.networks["host2"].counters())[counter]
            began = time.monotonic()
            with listening, sender.do(_udp) as sending:
                for _ in range(COUNT):
                    sending.sendto(bytes(BYTES - 28), (to, 5000))
                took = time.monotonic() - began
                arrived = 0
                while select.select([listening], [], [], 0.5)[0]:
                    arrived += len(listening.recv(2000)) == BYTES - 28
            dropped = (await at.place.networks["host2"].counters())[counter] - before
            assert arrived + dropped == COUNT
            assert in_bounds(arrived, took) if limited else arrived == COUNT
        await at.wire({"host1": [a, b], "host2": []}, {"host2": [ROUTES]})
        assert (await at.place.networks["host2"].counters())[counter] >= dropped, "also of what it was before"


@pytest.mark.parametrize(
    ("limit", "counter"), [("egress_limit", "router_over_limit_out"), ("ingress_limit", "router_over_limit_in")]
)
async def test_what_is_over_a_gateways_limit_is_dropped_and_that_of_floating_ips_is_not(
    limit: str, counter: str
) -> None:
    async with site() as at:
        a, b = port("10.0.0.1"), port("10.0.0.2")
        routed = replace(ROUTES, floating_ips=(floating("10.0.0.2", "172.24.4.21"),), **{limit: LIMIT})
        await at.wire({"host1": [a, b], "host2": []}, {"host2": [routed]})
        one, other = await at.guest("host1", a, "10.0.0.254"), await at.guest("host1", b, "10.0.0.254")
        for guest, outside, limited in ((one, "172.24.4.10", True), (other, "172.24.4.21", False)):
            sender, to = (guest, Outside.ADDRESS) if limit == "egress_limit" else (at.outside, outside)
            assert guest.pings(Outside.ADDRESS), "who has which address is known"
            assert at.outside.pings(outside)
            before = (await at.place.networks["host2"].counters())[counter]
            began = time.monotonic()
            with sender.do(_udp) as sending:
                for _ in range(COUNT):
                    sending.sendto(bytes(BYTES - 28), (to, 5000))
            dropped = await settled(at.place, counter) - before
            took = time.monotonic() - began
            assert in_bounds(COUNT - dropped, took) if limited else dropped == 0


async def settled(place: Lab, counter: str) -> int:
    """The counter of host2's router once all that was sent has reached it: nothing was counted for 0.2 s."""
    last, now = -1, (await place.networks["host2"].counters())[counter]
    while now != last:
        await asyncio.sleep(0.2)
        last, now = now, (await place.networks["host2"].counters())[counter]
    return now


def _udp(address: str | None = None) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if address is not None:
        made.bind((address, 5000))
    return made
