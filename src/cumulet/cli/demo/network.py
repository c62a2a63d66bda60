"""The two servers' network, and pings from this machine to one of them while it moves."""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cumulet.cli.client import Persona
from cumulet.cli.demo.evidence import Evidence
from cumulet.cli.demo.personas import People
from cumulet.cli.demo.servers import until

NETWORK = "/network/v2.0"
FIRST_ANSWER_SECONDS = 20.0
PING_SECONDS = 0.01
LATE_SECONDS = 3.0
"""A ping that has no answer by then is lost."""
ON_PUBLIC = "floating IPs are reached from here"
"""What `cumulet up` says of a machine that is on `public`."""
NO_ROOT = (
    "The servers have no network: wiring real guests (taps, bridges, rules, routers) takes root. Started as root, this "
    "shows pings to one of them while it moves."
)


def make_network(evidence: Evidence, people: People, driver: Literal["simulated", "qemu"]) -> object:
    """What the servers are to be on: a network of their own behind a router, where guests can have one."""
    if driver == "qemu" and os.geteuid() != 0:
        evidence.tell(NO_ROOT)
        return "none"
    member = people.member
    network = _made(member, "network", {"name": "lab"})
    subnet = _made(member, "subnet", {"network_id": network, "ip_version": 4, "cidr": "192.0.2.0/24"})
    if driver == "qemu":
        router = _made(member, "router", {"name": "way-out", "external_gateway_info": {"network_id": _public(member)}})
        member.must("PUT", f"{NETWORK}/routers/{router}/add_router_interface", {"subnet_id": subnet})
        groups = member.get(f"{NETWORK}/security-groups?name=default")["security_groups"]
        rule = {"security_group_id": groups[0]["id"], "direction": "ingress", "protocol": "icmp"}
        _made(member, "security-group-rule", rule)
        evidence.tell("member: a network, a router with a way out, a rule that lets pings in (it takes root)")
    return [{"uuid": network}]


def _made(who: Persona, kind: str, values: dict[str, object]) -> str:
    name = kind.replace("-", "_")
    return str(who.must("POST", f"{NETWORK}/{kind}s", {name: values})[name]["id"])


def _public(who: Persona) -> str:
    return str(who.get(f"{NETWORK}/networks?name=public")["networks"][0]["id"])


def floating_ip(evidence: Evidence, people: People, server_id: str, state: Path) -> str | None:
    """An address under which this machine reaches a server. None, and a line that says so, where it cannot."""
    member = people.member
    ports = member.get(f"{NETWORK}/ports?device_id={server_id}")["ports"]
    if not ports or os.geteuid() != 0:
        return None
    if ON_PUBLIC not in state.with_name("cumulet-up.log").read_text(errors="replace"):
        evidence.tell("this machine is not on `public`, so nothing is pinged (something else has its addresses)")
        return None
    wanted = {"floating_network_id": _public(member), "port_id": ports[0]["id"]}
    made = member.must("POST", f"{NETWORK}/floatingips", {"floatingip": wanted})["floatingip"]
    address = str(made["floating_ip_address"])
    begun = time.monotonic()
    with Pings(address) as pings, until(f"{address} answers", FIRST_ANSWER_SECONDS) as waiting:
        for _ in waiting:
            if pings.answered:
                break
    evidence.claim(
        "a floating IP leads to it, from this machine",
        True,
        f"{address} answered {time.monotonic() - begun:.2f} s later",
    )
    return address


@dataclass(slots=True)
class Pings:
    """Echo requests to an address, a hundred a second, in a thread of their own, and when each answer came."""

    address: str
    answered: list[float] = field(default_factory=list)
    _end: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Pings:
        self._thread = threading.Thread(target=self._ping, name="pings", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def _ping(self) -> None:
        mark = os.urandom(2)
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
            raw.setblocking(False)
            number, next_at = 0, time.monotonic()
            while not self._end.is_set():
                if time.monotonic() >= next_at:
                    number, next_at = (number + 1) & 0xFFFF, max(next_at + PING_SECONDS, time.monotonic())
                    body = struct.pack("!BBH2sH", 8, 0, 0, mark, number)
                    body = struct.pack("!BBH2sH", 8, 0, _checksum(body), mark, number)
                    try:
                        raw.sendto(body, (self.address, 0))
                    except OSError:
                        continue  # The way there is gone for a moment.
                ready, _, _ = select.select([raw], [], [], max(0.0, next_at - time.monotonic()))
                if ready:
                    got, sender = raw.recvfrom(2048)
                    if sender[0] == self.address and got[20] == 0 and got[24:26] == mark:
                        self.answered.append(time.monotonic())

    def wait_for_more(self, answers: int) -> bool:
        """Wait until so many more answers have come; False where they do not."""
        target, deadline = len(self.answered) + answers, time.monotonic() + LATE_SECONDS
        while len(self.answered) < target:
            if time.monotonic() > deadline:
                return False
            self._end.wait(PING_SECONDS)
        return True

    @property
    def longest_hole_ms(self) -> float:
        """The longest time without an answer, less the time between two pings."""
        steps = zip(self.answered, self.answered[1:], strict=False)
        return 1000 * max(0.0, max((after - before for before, after in steps), default=0.0) - PING_SECONDS)


def _checksum(body: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(body) // 2}H", body))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
