"""Routers: what belongs to no connection, and routes that need one another."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable

from msgspec.structs import replace

from cumulet.drivers.linux_network import router_rules
from cumulet.host import wiring as w
from tests.linux_network import frames as f
from tests.linux_network.lab import Guest, needs_packets
from tests.linux_network.stacks import Outside
from tests.linux_network.test_routers import GATEWAY, ROUTES, floating, routers_of, site
from tests.linux_network.wirings import port

pytestmark = needs_packets


async def test_what_begins_no_connection_neither_comes_in_nor_goes_out_untranslated() -> None:
    async with site() as at:
        a, there = port("10.0.0.1"), port(Outside.ADDRESS)
        routed = replace(ROUTES, floating_ips=(floating("10.0.0.1"),))
        await at.wire({"host1": [a], "host2": []}, {"host2": [routed]})
        at.outside.ip("address", "flush", "dev", "public")
        guest, outsider = await at.place.plug("host1", a), Guest(at.outside.plug(), there)
        at.place.guests.append(outsider)
        gateway, inside = GATEWAY.mac, ROUTES.interfaces[0].mac
        inward = (outsider, guest, gateway, "172.24.4.20")
        for sender, receiver, to, address in (inward, (guest, outsider, inside, Outside.ADDRESS)):
            source, target = sender.port.addresses[0], receiver.port.addresses[0]
            error = f.transport(f.ICMP, source, target, 3, 1, data=b"of nothing")
            sender.send(f.ip(sender.port.mac, to, source, target, f.ICMP, error))
            # What may pass follows on the same way, and shows that nothing came before it.
            ping = f.transport(f.ICMP, source, address, 8, 0, data=b"the last")
            sender.send(f.ip(sender.port.mac, to, source, address, f.ICMP, ping))
            while b"the last" not in (frame := await receiver.receive()):
                assert b"of nothing" not in frame
                if frame[12:14] == b"\x08\x06":  # The router asks who it is.
                    asks = socket.inet_ntoa(frame[28:32])
                    says = (target, receiver.port.mac)
                    receiver.send(
                        f.arp(receiver.port.mac, says=says, asks=asks, destination=sender_of(frame), operation=2)
                    )


def sender_of(frame: bytes) -> str:
    """Who has sent it."""
    return frame[6:12].hex(":")


async def test_a_route_through_a_further_range_outside_is_there_whichever_sorts_first() -> None:
    async with site() as at:
        routed = replace(
            ROUTES, on_link=("203.0.113.0/24",), routes=(w.Route(destination="10.77.0.0/16", nexthop="203.0.113.9"),)
        )
        await at.wire({"host1": [], "host2": []}, {"host1": [routed]})
        (name,) = routers_of(at.place.namespaces["host1"])
        assert "10.77.0.0/16 via 203.0.113.9" in routes_of(name)


def routes_of(namespace: str) -> str:
    return subprocess.run(["ip", "-n", namespace, "route"], check=True, capture_output=True, text=True).stdout


async def test_what_a_router_drops_is_counted_by_cause_also_when_it_has_gone() -> None:
    async with site() as at:
        a = port("10.0.0.1")
        where = {"host1": [a], "host2": []}
        await at.wire(where, {"host2": [ROUTES]})
        guest = await at.guest("host1", a, "10.0.0.254")
        assert guest.pings(Outside.ADDRESS)
        at.outside.ip("route", "add", "10.0.0.0/24", "via", "172.24.4.10")
        tries: dict[str, Callable[[], object]] = {
            "router_itself": lambda: at.outside.asks("172.24.4.10", 22, seconds=0.2),
            "router_not_asked_for": lambda: at.outside.asks("10.0.0.1", 22, seconds=0.2),
            "router_link_local": lambda: guest.asks("169.254.7.7", 22, seconds=0.2),
        }
        dropped = dict.fromkeys(router_rules.COUNTERS, 0)
        for cause, attempt in tries.items():
            assert attempt() is None
            now = await at.place.networks["host2"].counters()
            assert {name for name in dropped if now[name] > dropped[name]} == {cause}
            dropped = {name: now[name] for name in dropped}
        await at.wire(where, {"host1": [ROUTES]})
        after = await at.place.networks["host2"].counters()
        assert all(after[name] >= number for name, number in dropped.items())
        new = await at.place.networks["host1"].counters()
        assert not any(new[name] for name in dropped)
