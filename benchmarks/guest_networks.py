"""What a network costs real guests: the hole in the pings of a move, bandwidth, and the time to boot. As root.

Each is compared in the same run and by turns, because a machine may be busy: moves through the API with moves of such a
guest by raw QMP; the bandwidth between two guests on two hosts with our rules and, on the same taps, bridges and VXLAN
devices, without; a boot with a port and one without.
"""

from __future__ import annotations

import asyncio
import base64
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import cumulet.testing
from benchmarks.networks_by_hand import SETTINGS, hand_made, pings_of
from benchmarks.report import Measure, Result
from cumulet.drivers.linux_network import names, namespaces
from cumulet.testing import TestCloud

T = TypeVar("T")
MOVES = int(os.environ.get("CUMULET_BENCH_MOVES", "5"))
"""Moves of each kind. They are few, so that `make bench` does not take long; for a p99 they are too few."""
BOOTS = 5
_STAYS, _MOVES = "11", "12"

RAW_HOLE = Measure(name="ping_hole_raw", title="pings, a move by raw QMP: longest hole, median", unit="ms", goal=None)
HOLE = Measure(name="ping_hole", title="pings through a move by Cumulet: longest hole, median", unit="ms", goal=None)
WORST_HOLE = Measure(name="ping_hole_p99", title="the same, p99", unit="ms", goal=250)
MORE_HOLE = Measure(name="ping_hole_more", title="what Cumulet adds to the hole", unit="ms", goal=30)
TCP = Measure(
    name="tcp_survives",
    title="TCP connections, in and out, that lived on",
    unit="of 2",
    goal=2,
    better="higher",
)
BANDWIDTH = Measure(
    name="bandwidth_rules",
    title="TCP between guests on two hosts, of that without any rules",
    unit="",
    goal=0.8,
    better="higher",
)
MBIT = Measure(name="bandwidth", title="TCP between guests on two hosts", unit="Mbit/s", goal=None, better="higher")
BOOT = Measure(name="boot_network_more", title="a boot with a network, more than without", unit="ms", goal=150)


def measure() -> Iterator[Result]:
    """Needs root, the programs that `probe` checks, QEMU and the tiny image."""
    with tempfile.TemporaryDirectory(prefix="cumulet-bench-") as folder, hand_made(Path(folder)) as hand:
        with_rules, without = hand.bandwidth()
        yield Result(MBIT, with_rules)
        yield Result(BANDWIDTH, with_rules / without)
        with cumulet.testing.cloud(hosts=2, driver="qemu") as cloud:
            story = _Story(cloud)
            yield Result(BOOT, story.boots_more_ms())
            story.begin()
            raw, ours = [], []
            for _ in range(MOVES):
                raw.append(hand.hole_ms())
                ours.append(story.hole_ms())
            yield Result(RAW_HOLE, statistics.median(raw))
            yield Result(HOLE, statistics.median(ours))
            yield Result(WORST_HOLE, sorted(ours)[min(len(ours) - 1, int(len(ours) * 0.99))])
            yield Result(MORE_HOLE, statistics.median(ours) - statistics.median(raw))
            yield Result(TCP, story.living_connections())
            story.end()


# -- through the API


class _Story:
    """A cloud of two hosts with a guest that moves, one that stays, and a router in whose namespace pings are sent."""

    def __init__(self, cloud: TestCloud) -> None:
        self._cloud = cloud
        self._admin = cloud.persona("admin")
        self._network = self._made("network", {"name": "bench"})
        subnet = self._made("subnet", {"network_id": self._network, "ip_version": 4, "cidr": "10.98.0.0/24"})
        self._router = self._made("router", {"name": "bench"})
        interface = f"/network/v2.0/routers/{self._router}/add_router_interface"
        assert self._admin.request("PUT", interface, {"subnet_id": subnet}).status == 200
        groups = f"/network/v2.0/security-groups?name=default&project_id={self._admin.project_id}"
        group = self._admin.request("GET", groups)["security_groups"][0]["id"]
        for protocol in ("icmp", "tcp"):
            self._made(
                "security_group_rule", {"security_group_id": group, "direction": "ingress", "protocol": protocol}
            )
        self._guests: dict[str, str] = {}
        """The last parts of the addresses of the guest that stays and of the one that moves."""

    def _made(self, kind: str, values: dict[str, object]) -> str:
        answer = self._admin.request("POST", f"/network/v2.0/{kind.replace('_', '-')}s", {kind: values})
        assert answer.status == 201, answer.text
        return str(answer[kind]["id"])

    def _boot(self, networks: object, settings: bytes) -> str:
        image = self._admin.request("GET", "/image/v2/images?name=cumulet-tiny")["images"][0]["id"]
        flavors = self._admin.compute("GET", "/flavors")["flavors"]
        wanted = {
            "name": "bench",
            "imageRef": image,
            "networks": networks,
            "user_data": base64.b64encode(settings).decode(),
            "flavorRef": next(flavor["id"] for flavor in flavors if flavor["name"] == "m1.nano"),
        }
        server = str(self._admin.compute("POST", "/servers", {"server": wanted})["server"]["id"])
        self._admin.wait_for_status(server, "ACTIVE", seconds=300)
        return server

    def boots_more_ms(self) -> float:
        """Of medians, by turns: from the request until the server is ACTIVE."""
        took: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(BOOTS):
            for wired in (False, True):
                began = time.monotonic()
                server = self._boot([{"uuid": self._network}] if wired else "none", b"tick_ms=0\n")
                took[wired].append(1000 * (time.monotonic() - began))
                self._delete(server)
        return statistics.median(took[True]) - statistics.median(took[False])

    def _delete(self, server: str) -> None:
        assert self._admin.compute("DELETE", f"/servers/{server}").status == 204
        self._admin.wait(
            "it is gone", lambda: self._admin.compute("GET", f"/servers/{server}").status == 404, seconds=120
        )

    def begin(self) -> None:
        """The two guests, each of which serves the other: a connection each way."""
        for last, settings, other in ((_STAYS, b"tick_ms=0\nserve_tcp=1\n", _MOVES), (_MOVES, SETTINGS, _STAYS)):
            port = {"uuid": self._network, "fixed_ip": f"10.98.0.{last}"}
            self._guests[last] = self._boot([port], settings + f"talk_to={other}\n".encode())
        asyncio.run(self._answers())
        for guest in self._guests.values():
            self._admin.wait("it talks", lambda guest=guest: self._echoed(guest) > 0, seconds=300)  # type: ignore[misc]

    async def _answers(self) -> None:
        async with pings_of(self._namespace(), f"10.98.0.{_MOVES}"):
            pass

    def _namespace(self) -> str:
        short = names.namespace(0, self._router).rpartition("-")[2]
        (found,) = [name for name in namespaces.named(f"{names.ROUTER}-") if name.endswith(short)]
        return found

    def hole_ms(self) -> float:
        return asyncio.run(self._hole())

    async def _hole(self) -> float:
        async with pings_of(self._namespace(), f"10.98.0.{_MOVES}") as pings:
            await asyncio.to_thread(self._move)
            assert await asyncio.to_thread(pings.wait_for_more, 20)
        return pings.longest_hole_ms

    def _move(self) -> None:
        moving = self._guests[_MOVES]
        host = self._admin.server(moving)["OS-EXT-SRV-ATTR:host"]
        to = next(other for other in self._cloud.hosts if other != host)
        asked = self._admin.action(moving, {"os-migrateLive": {"block_migration": "auto", "host": to}})
        assert asked.status == 202, asked.text
        self._admin.wait("the move", lambda: self._migration(moving) == "completed", seconds=300)

    def _migration(self, server: str) -> str:
        moves = self._admin.compute("GET", f"/os-migrations?instance_uuid={server}")["migrations"]
        return str(max(moves, key=lambda move: int(move["id"]))["status"])

    def _console(self, server: str) -> str:
        return str(self._admin.action(server, {"os-getConsoleOutput": {"length": 1000}})["output"])

    def _echoed(self, server: str) -> int:
        lines = self._console(server).splitlines()
        return max((int(line.split()[1]) for line in lines if line.startswith("echoed ")), default=0)

    def living_connections(self) -> float:
        """How many guests are still answered on the connection that they have opened first."""
        living = 0
        for guest in self._guests.values():
            before = self._echoed(guest)
            self._admin.wait(
                "it talks on, or has ended",
                lambda guest=guest, before=before: self._ended(guest) or self._echoed(guest) > before,  # type: ignore[misc]
                seconds=120,
            )
            living += not self._ended(guest)
        return float(living)

    def _ended(self, server: str) -> bool:
        return "talk ended" in self._console(server)

    def end(self) -> None:
        for server in self._guests.values():
            self._delete(server)


if __name__ == "__main__":
    for result in measure():
        print(f"{result.measure.title}: {result.value:.4g} {result.measure.unit}", flush=True)
