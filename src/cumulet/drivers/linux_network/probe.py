"""Finds out by trial whether this machine can wire guests: a packet that no rule lets pass must be dropped.

The trial runs in a network namespace of its own, which ends with it. Nothing else on the machine changes.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cumulet.drivers.linux_network import namespaces, nft, taps
from cumulet.drivers.linux_network.packets import ipv4_header, packed_mac
from cumulet.drivers.linux_network.skeleton import Tracking
from cumulet.host import wiring as w

_BR_NETFILTER = Path("/proc/sys/net/bridge")
_NETWORK = "00000000-0000-4000-8000-000000000001"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`tracking` None: guests cannot be wired here, and `problem` says why."""

    tracking: Tracking | None
    problem: str = ""
    no_subports: str | None = None
    """Why subports of trunks cannot be carried here; None where they can."""


def probe() -> Answer:
    """How this machine can track connections. Takes a tenth of a second. The way that is tested most is tried first."""
    if os.geteuid() != 0:
        return Answer(tracking=None, problem="only root can make taps, bridges and rules")
    if nft.binary() is None:
        return Answer(tracking=None, problem="nft is not installed (Debian package: nftables)")
    if not os.path.exists(taps.TUN):
        return Answer(tracking=None, problem=f"there is no {taps.TUN} (load the tun module)")
    problems = []
    for tracking in (Tracking.BR_NETFILTER, Tracking.BRIDGE):
        if tracking is Tracking.BR_NETFILTER and not _BR_NETFILTER.exists():
            problems.append("bridged packets do not reach the firewall (load the br_netfilter module)")
            continue
        problem = _in_own_namespace(partial(_drops, tracking), f"what wiring needs ({tracking})")
        if problem is None:
            return Answer(tracking=tracking, no_subports=_in_own_namespace(_carries_not, "subports"))
        problems.append(problem)
    return Answer(tracking=None, problem="; ".join(problems))


def _in_own_namespace(trial: Callable[[], str | None], needed: str) -> str | None:
    """Why it does not work this way; None where it does. In a thread: a thread can have its own namespace."""
    found: list[str | None] = []

    def work() -> None:
        try:
            namespaces.enter_new()
        except OSError as refused:
            found.append(f"no network namespace can be made: {refused.strerror}")
            return
        try:
            found.append(trial())
        except Exception as refused:
            words = (str(refused).splitlines() or [type(refused).__name__])[0]  # nft shows the rule in further lines.
            found.append(f"the kernel refuses {needed}: {words[:200]}")

    thread = threading.Thread(target=work, name="network-probe")
    thread.start()
    thread.join()
    return found[0]


def _drops(tracking: Tracking) -> str | None:
    """One guest sends to another that lets nothing in. Says what went wrong; None where the packet was dropped."""
    from cumulet.drivers.linux_network.links import Links
    from cumulet.drivers.linux_network.names import bridge, tap
    from cumulet.drivers.linux_network.ruleset import Numbers, ruleset

    out = w.Rule(
        id="out",
        direction=w.Direction.OUT,
        version=4,
        protocol=None,
        range_min=None,
        range_max=None,
        remote_prefix=None,
        remote_group=None,
    )
    group = w.Group(id="g", stateful=True, rules=(out,), members=())
    network = w.Network(id=_NETWORK, kind="vxlan", vni=1, mtu=1450, dns_domain="", subnets=(), peers=(), remotes=())
    ports = tuple(_port(number) for number in (1, 2))
    wiring = w.Wiring(host="probe", networks=(network,), ports=ports, groups=(group,))
    with ExitStack() as cleanup:
        links = Links("127.0.0.1")
        cleanup.callback(links.close)
        tables = nft.Nft(tracking)
        tables.prepare()
        numbers = {tap(port.id): number for number, port in enumerate(ports, start=1)}
        tables.apply(ruleset(wiring, Numbers(ports=numbers, zones={bridge(_NETWORK): 1})))
        failed = links.apply(wiring)
        if failed:
            return failed[0].reason
        opened = []
        for port in ports:
            opened.append(taps.open_tap(tap(port.id)))
            cleanup.callback(os.close, opened[-1])
            links.attach(tap(port.id), network, mac=port.mac, active=True)
        os.write(opened[0], bytes(taps.HEADER_BYTES) + _datagram(ports[0], ports[1]))
        denied = tables.counters()["denied_in"]
    return None if denied == 1 else f"a packet that no rule lets pass was not dropped ({tracking})"


def _carries_not() -> str | None:
    from cumulet.drivers.linux_network.carrying import Carrying
    from cumulet.drivers.linux_network.links import Links

    with ExitStack() as cleanup:
        links = Links("127.0.0.1")
        cleanup.callback(links.close)
        carrying = Carrying(links)
        cleanup.callback(carrying.close)
        return carrying.problem()


def _port(number: int) -> w.Port:
    return w.Port(
        id=f"0000000{number}-0000-4000-8000-000000000002",
        network_id=_NETWORK,
        mac=f"02:00:00:00:00:0{number}",
        addresses=(f"192.0.2.{number}",),
        up=True,
        active=True,
        secured=True,
        pairs=(),
        groups=("g",),
        hostname="",
    )


def _datagram(source: w.Port, destination: w.Port) -> bytes:
    macs = packed_mac(destination.mac) + packed_mac(source.mac)
    sender, receiver = (socket.inet_aton(port.addresses[0]) for port in (source, destination))
    udp = struct.pack("!HHHH", 9, 9, 8, 0)
    return macs + b"\x08\0" + ipv4_header(sender, receiver, socket.IPPROTO_UDP, len(udp)) + udp
