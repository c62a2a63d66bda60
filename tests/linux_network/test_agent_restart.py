"""A host's agent ends and starts again: no packet is lost, between hosts, through a router, or translated."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

from tests.linux_network.lab import needs_packets, reopened
from tests.linux_network.stacks import Outside, Stack
from tests.linux_network.test_routers import ADDRESSES, OTHER, ROUTES, site
from tests.linux_network.wirings import port

pytestmark = needs_packets

SECONDS_BETWEEN = 0.005
PACKETS_BETWEEN = 20
"""Sent on each way before the next thing is done."""
NUMBER = 5000
WAIT_SECONDS = 10.0


class Stream:
    """Numbered UDP packets from one stack to another, until it is stopped."""

    def __init__(self, sender: Stack, receiver: Stack, address: str) -> None:
        self._in = receiver.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._out = sender.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._in.bind((address, NUMBER))
        self._in.settimeout(WAIT_SECONDS)
        self._out.connect((address, NUMBER))
        self.sent = 0
        self.seen_as: set[tuple[str, int]] = set()
        self._came: set[int] = set()
        self._progress = threading.Condition()
        self._stopping, self._sent_all = threading.Event(), False
        self._threads = [threading.Thread(target=work) for work in (self._receive, self._send)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        while not self._stopping.wait(SECONDS_BETWEEN):
            self._send_one(last=False)
        self._send_one(last=True)

    def _send_one(self, *, last: bool) -> None:
        with self._progress:
            self._out.send(self.sent.to_bytes(4, "big"))
            self.sent += 1
            self._sent_all = last
            self._progress.notify_all()

    def _receive(self) -> None:
        """Until what is sent last has come, or nothing comes any more."""
        with contextlib.suppress(TimeoutError):
            while True:
                data, whence = self._in.recvfrom(100)
                self._came.add(number := int.from_bytes(data, "big"))
                self.seen_as.add(whence)
                with self._progress:
                    if self._sent_all and number == self.sent - 1:
                        return

    async def goes_on(self) -> None:
        """Until some more packets have been sent."""

        def wait() -> None:
            with self._progress:
                wanted = self.sent + PACKETS_BETWEEN
                assert self._progress.wait_for(lambda: self.sent >= wanted, WAIT_SECONDS)

        await asyncio.to_thread(wait)

    def close(self) -> None:
        """Stop, once what has been sent has come or does not."""
        self._stopping.set()
        for thread in reversed(self._threads):
            thread.join()
        self._in.close()
        self._out.close()

    def missing(self) -> list[int]:
        """Of a stream that is closed."""
        return sorted(set(range(self.sent)) - self._came)


async def all_go_on(streams: list[Stream]) -> None:
    for stream in streams:
        await stream.goes_on()


async def test_the_agents_of_all_hosts_start_again_and_no_packet_is_lost() -> None:
    async with site() as at:
        a, b, c = port("10.0.0.1"), port("10.0.0.2"), port("10.0.1.1", network=OTHER)
        where = {"host1": [a, c], "host2": [b]}
        await at.wire(where, {"host2": [ROUTES]})
        one, two = await at.guest("host1", a, "10.0.0.254"), await at.guest("host2", b, "10.0.0.254")
        three = await at.guest("host1", c, "10.0.1.254")
        assert two.pings("10.0.0.1")
        assert three.pings("10.0.0.1")
        assert one.pings(Outside.ADDRESS)
        ways = [(two, "10.0.0.2"), (three, "10.0.1.1"), (at.outside, Outside.ADDRESS)]
        with contextlib.ExitStack() as streaming:
            streams = [
                streaming.enter_context(contextlib.closing(Stream(one, receiver, address)))
                for receiver, address in ways
            ]
            await all_go_on(streams)
            for host in ("host1", "host2"):
                await at.place.networks[host].close()
                await all_go_on(streams)
                at.place.networks[host] = await reopened(ADDRESSES[host], at.place.namespaces[host], public=True)
                await all_go_on(streams)
                await at.wire(where, {"host2": [ROUTES]})
                await all_go_on(streams)
        assert [stream.missing() for stream in streams] == [[], [], []]
        assert [len(stream.seen_as) for stream in streams] == [1, 1, 1], "as one connection, translated alike"
        assert {address for address, _ in streams[2].seen_as} == {"172.24.4.10"}
